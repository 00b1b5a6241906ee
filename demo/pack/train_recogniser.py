"""Trains the recogniser on drawn crops, in three cycles of AdamW.

In the first the margin grows from nothing; the others begin at its end, with each identity's centre at the mean of
its embeddings and the slopes of the activations fixed. The third adds identities whose crops a detector aligned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from demo.pack.recogniser_net import CosFace, Recogniser
from demo.pack.training_data import FaceCrops

_MEAN_BATCH = 128


@dataclass(frozen=True, slots=True)
class Cycle:
    """One fall of the learning rate: its peak, at most so many passes, and the share of it over which the margin grows."""

    number: int
    batch: int
    rate: float
    epochs: float
    warm_up: int
    margin: float
    margin_from: float
    margin_until: float
    looseness: float

    def margin_at(self, done: float) -> float:
        """The margin when that share (0..1) of the cycle is done."""
        return self.margin * min(1.0, max(0.0, (done - self.margin_from) / (self.margin_until - self.margin_from)))


CYCLES = (
    Cycle(
        1, batch=128, rate=3e-3, epochs=4.0, warm_up=300, margin=0.3, margin_from=0.08, margin_until=0.28, looseness=1.5
    ),
    Cycle(
        2, batch=64, rate=1.8e-3, epochs=6.0, warm_up=100, margin=0.3, margin_from=-0.1, margin_until=0.0, looseness=2.0
    ),
    Cycle(
        3,
        batch=96,
        rate=1.5e-3,
        epochs=9.0,
        warm_up=100,
        margin=0.35,
        margin_from=-0.1,
        margin_until=0.1,
        looseness=2.0,
    ),
)


def _to_input(pixels: NDArray[np.uint8], looseness: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """A batch of crops (n, 112, 112, 3) as network input: moved as a detector's key points would be off (`looseness`
    (n,) in pixels; a degree and a hundredth of scale go with each), recoloured, with a patch erased here and there."""
    count = len(pixels)
    moved = np.empty_like(pixels)
    middle = (pixels.shape[2] - 1) / 2
    for row, (dx, dy, degrees, growth) in enumerate(rng.normal(0, (1, 1, 1.2, 0.015), (count, 4)) * looseness[:, None]):
        matrix = cv2.getRotationMatrix2D((middle, middle), float(degrees), math.exp(growth))
        matrix[:, 2] += (dx, dy)
        size = (pixels.shape[2], pixels.shape[1])
        moved[row] = cv2.warpAffine(pixels[row], matrix, size, borderMode=cv2.BORDER_REPLICATE)
        if rng.random() < 0.12:
            left, top = rng.integers(0, 80, 2)
            wide, high = rng.integers(14, 46, 2)
            moved[row, top : top + high, left : left + wide] = rng.integers(0, 256, 3)
    batch = torch.from_numpy(moved).permute(0, 3, 1, 2).to(torch.float32)
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.06, (count, 3))).astype(np.float32))
    level = torch.from_numpy(rng.normal(0, 8, (count, 1)).astype(np.float32))
    batch = (batch * gain[:, :, None, None] + level[:, :, None, None]).clamp_(0, 255)
    return ((batch - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


def _mean_embeddings(net: Recogniser, sources: Sequence[FaceCrops], views: int) -> Tensor:
    """The mean embedding (identities, 128) of the first views of each identity of all sources."""
    means = []
    step = _MEAN_BATCH // views
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for crops in sources:
            for first in range(0, len(crops.pixels), step):
                pixels = torch.from_numpy(np.array(crops.pixels[first : first + step, :views]))
                batch = (pixels.flatten(0, 1).permute(0, 3, 1, 2).float() - 127.5) / 127.5
                embeddings = functional.normalize(net(batch.contiguous(memory_format=torch.channels_last)).float())
                means.append(embeddings.view(-1, views, embeddings.shape[1]).mean(1))
    return torch.cat(means)


def _deal_batches(
    sources: Sequence[FaceCrops], cycle: Cycle, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Input and identities of one batch after the other without end, each pass over all sources in a new order."""
    tables, identities = [], 0
    for number, crops in enumerate(sources):
        people, views = np.indices(crops.pixels.shape[:2]).reshape(2, -1)
        tables.append(np.stack((np.full(len(people), number), people, views, people + identities), axis=1))
        identities += len(crops.pixels)
    table = np.concatenate(tables)
    looseness = np.array([crops.looseness for crops in sources]) * cycle.looseness
    while True:
        order = rng.permutation(len(table))
        for first in range(0, len(order) - cycle.batch + 1, cycle.batch):
            # In the order of the files: the crops are read from disk.
            rows = table[np.sort(order[first : first + cycle.batch])]
            pixels = np.stack([sources[source].pixels[person, view] for source, person, view, _ in rows])
            yield _to_input(pixels, looseness[rows[:, 0]], rng), torch.from_numpy(rows[:, 3].copy())


def train_recogniser(
    net: Recogniser,
    sources: Sequence[FaceCrops],
    seed: int,
    cycle: Cycle,
    say: Callable[[str], None],
    budget_seconds: float,
) -> Recogniser:
    """Trains a network, new or from an earlier cycle, for one cycle; says how the loss falls.

    The learning rate follows whichever is further, the steps or the time: a slow machine gets a shorter cycle, not
    one cut off. Convolutions run in bfloat16, weights and loss stay float32.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11, cycle.number])
    loss_of = CosFace(sum(len(crops.pixels) for crops in sources))
    if cycle.number > 1:
        net.fix_slopes()
        loss_of.begin_at(_mean_embeddings(net.eval(), sources, 4))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        [{"params": net.parameters(), "weight_decay": 0.05}, {"params": loss_of.parameters(), "weight_decay": 0.0}]
    )
    steps = int(cycle.epochs * sum(crops.pixels.shape[0] * crops.pixels.shape[1] for crops in sources) / cycle.batch)
    batches = _deal_batches(sources, cycle, rng)
    started, smooth, step = time.monotonic(), 0.0, 0
    net.train()
    with ThreadPoolExecutor(1) as dealer:
        coming = dealer.submit(next, batches)
        while (done := max(step / steps, (time.monotonic() - started) / budget_seconds)) < 1:
            share = min(1.0, (step + 1) / cycle.warm_up) * 0.5 * (1 + math.cos(math.pi * done)) + 0.002
            for group in optimiser.param_groups:
                group["lr"] = cycle.rate * share
            batch, people = coming.result()
            coming = dealer.submit(next, batches)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                embeddings = net(batch)
            loss = loss_of(embeddings.float(), people, cycle.margin_at(done))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            smooth = float(loss.detach()) if step == 0 else 0.98 * smooth + 0.02 * float(loss.detach())
            if step % 100 == 0:
                say(f"recogniser: step {step} ({done:.0%}) loss {smooth:.3f} {time.monotonic() - started:.0f} s")
            step += 1
    net.eval()
    return net
