"""Trains the recogniser on drawn crops: AdamW, one cycle, a margin that grows over the first quarter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.pack.recogniser_net import CosFace, Recogniser
from demo.pack.training_data import FaceCrops

BATCH = 128
PEAK_RATE = 3e-3
MARGIN = 0.3


def _to_input(pixels: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """A batch of crops (n, 112, 112, 3) with small shifts, gains and erased patches, as network input."""
    count = len(pixels)
    padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    moved = np.empty_like(pixels)
    for row, (dx, dy) in enumerate(rng.integers(0, 7, (count, 2))):
        moved[row] = padded[row, dy : dy + 112, dx : dx + 112]
        if rng.random() < 0.12:
            left, top = rng.integers(0, 80, 2)
            wide, high = rng.integers(14, 46, 2)
            moved[row, top : top + high, left : left + wide] = rng.integers(0, 256, 3)
    batch = torch.from_numpy(moved).permute(0, 3, 1, 2).to(torch.float32)
    gain = torch.from_numpy(np.exp(rng.normal(0, (0.06, 0.06, 0.06), (count, 3))).astype(np.float32))
    level = torch.from_numpy(rng.normal(0, 8, (count, 1)).astype(np.float32))
    batch = (batch * gain[:, :, None, None] + level[:, :, None, None]).clamp_(0, 255)
    return ((batch - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


def train_recogniser(
    crops: FaceCrops, seed: int, epochs: float, say: Callable[[str], None], budget_seconds: float
) -> Recogniser:
    """Trains from nothing for `epochs` passes, fewer if the budget would not hold; says how the loss falls.

    The budget is measured over the first hundred steps and only shortens the schedule, so the learning rate always
    runs its full course. bfloat16 where the processor multiplies it well; weights stay float32.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    identities, views = crops.pixels.shape[:2]
    net: Recogniser = Recogniser().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_of = CosFace(identities)
    optimiser = torch.optim.AdamW(
        [
            {"params": net.parameters(), "weight_decay": 0.05},
            {"params": loss_of.parameters(), "weight_decay": 0.0},
        ],
        lr=PEAK_RATE,
    )
    steps = int(epochs * identities * views / BATCH)
    order = np.empty(0, np.int64)
    started, smooth = time.monotonic(), 0.0
    step = 0
    net.train()
    while step < steps:
        if step == 100:
            per_step = (time.monotonic() - started) / 100
            steps = min(steps, int(budget_seconds / per_step))
            say(f"recogniser: {per_step * 1e3:.0f} ms a step, {steps} steps")
        if len(order) < BATCH:
            order = rng.permutation(identities * views)
        chosen, order = np.sort(order[:BATCH]), order[BATCH:]
        done = step / steps
        rate = PEAK_RATE * (min(1.0, step / 300) * 0.5 * (1 + math.cos(math.pi * done)) + 0.002)
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = _to_input(crops.pixels[chosen // views, chosen % views], rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = net(batch)
        labels = torch.from_numpy(chosen // views)
        loss = loss_of(embeddings.float(), labels, MARGIN * min(1.0, max(0.0, (done - 0.08) / 0.2)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        smooth = float(loss.detach()) if step == 0 else 0.98 * smooth + 0.02 * float(loss.detach())
        if step % 100 == 0:
            say(f"recogniser: step {step}/{steps} loss {smooth:.3f} {time.monotonic() - started:.0f} s")
        step += 1
    net.eval()
    return net
