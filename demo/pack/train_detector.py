"""Trains the detector on crops of drawn photos, zoomed, flipped and recoloured.

In three cycles: the first finds faces, the second, begun where the first ended and with a layer more before the heads,
turns to tight boxes and exact key points, the third to the last false finds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.pack.detector_loss import detector_loss, make_anchors
from demo.pack.detector_net import Detector
from demo.pack.training_data import DetectorScenes

BATCH = 12
SIDE = 320


@dataclass(frozen=True, slots=True)
class Cycle:
    """One fall of the learning rate: its peak, at most so many steps, the weights of box and key-point loss, and how
    far scenes are zoomed."""

    number: int
    rate: float
    steps: int
    box: float
    points: float
    zoom: tuple[float, float]


CYCLES = (
    Cycle(1, rate=4e-3, steps=4500, box=2.0, points=1.0, zoom=(0.5, 1.6)),
    Cycle(2, rate=2.5e-3, steps=4500, box=3.0, points=15.0, zoom=(0.75, 1.6)),
    Cycle(3, rate=1.5e-3, steps=3000, box=3.0, points=15.0, zoom=(0.75, 1.6)),
)
_SWAP = np.array([1, 0, 2, 4, 3])


def _cut(
    pixels: NDArray[np.uint8], truth: NDArray[np.float32], zooms: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A zoomed 320x320 cut of a scene, around a face three times out of four, and its truth.

    Faces of which less than 60 % is inside are painted grey and forgotten: neither face nor background.
    """
    zoom = float(np.exp(rng.uniform(math.log(zooms[0]), math.log(zooms[1]))))
    window = SIDE / zoom
    faces = truth[truth[:, 2] > 0].copy()
    if len(faces) and rng.random() < 0.75:
        face = faces[int(rng.integers(len(faces)))]
        middle = (face[:2] + face[2:4]) / 2
        corner = middle - rng.uniform(0.15, 0.85, 2) * window
    else:
        corner = rng.uniform(-0.2, 1.0, 2) * (pixels.shape[0] - window)
    matrix = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]])
    mode = cv2.INTER_LINEAR if zoom > 0.75 else cv2.INTER_AREA
    cut = np.asarray(cv2.warpAffine(pixels, matrix, (SIDE, SIDE), flags=mode), np.uint8)
    faces[:, 0::2] = (faces[:, 0::2] - corner[0]) * zoom
    faces[:, 1::2] = (faces[:, 1::2] - corner[1]) * zoom
    inside = np.clip(faces[:, :4], 0, SIDE)
    area = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    whole = (faces[:, 2] - faces[:, 0]) * (faces[:, 3] - faces[:, 1])
    keep = (area > 0.6 * whole) & (whole > 10.0**2)
    for box in inside[~keep & (area > 0)]:
        x1, y1, x2, y2 = np.rint(box).astype(int)
        cut[y1:y2, x1:x2] = 127
    faces = faces[keep]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
        faces[:, 0::2] = SIDE - 1 - faces[:, 0::2]
        faces[:, [0, 2]] = faces[:, [2, 0]]
        faces[:, 4:] = faces[:, 4:].reshape(-1, 5, 2)[:, _SWAP].reshape(-1, 10)
    rows = np.full_like(truth, -1)
    rows[: len(faces)] = faces
    return cut, rows


def _draw_batch(
    scenes: DetectorScenes, chosen: NDArray[np.int64], zooms: tuple[float, float], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    cuts = [_cut(scenes.pixels[index], scenes.truth[index], zooms, rng) for index in chosen]
    pixels = torch.from_numpy(np.stack([cut for cut, _ in cuts])).permute(0, 3, 1, 2).float()
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.08, (len(cuts), 3))).astype(np.float32))
    pixels = (pixels * gain[:, :, None, None]).clamp_(0, 255)
    truth = torch.from_numpy(np.stack([rows for _, rows in cuts]))
    return ((pixels - 127.5) / 128).contiguous(memory_format=torch.channels_last), truth


def train_detector(
    net: Detector, scenes: DetectorScenes, seed: int, cycle: Cycle, say: Callable[[str], None], budget_seconds: float
) -> Detector:
    """Trains a network, new or from an earlier cycle, for one cycle; says how the losses fall.

    The learning rate follows whichever is further, the steps or the time: a slow machine gets a shorter cycle, not
    one cut off. Returns the moving average of the weights.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 12, cycle.number])
    if cycle.number == 2:
        net.refine()
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    anchors = make_anchors(SIDE, SIDE)
    optimiser = torch.optim.AdamW(net.parameters(), lr=cycle.rate, weight_decay=0.02)
    average = torch.optim.swa_utils.AveragedModel(
        net,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    order = np.empty(0, np.int64)
    smooth = np.zeros(3)
    started, step = time.monotonic(), 0
    net.train()
    while (done := max(step / cycle.steps, (time.monotonic() - started) / budget_seconds)) < 1:
        if len(order) < BATCH:
            order = rng.permutation(len(scenes.pixels))
        chosen, order = order[:BATCH], order[BATCH:]
        share = min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done)) + 0.003
        for group in optimiser.param_groups:
            group["lr"] = cycle.rate * share
        pixels, truth = _draw_batch(scenes, chosen, cycle.zoom, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = net(pixels)
        score, box, points = detector_loss(outputs, truth, anchors)
        loss = score + cycle.box * box + cycle.points * points
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        average.update_parameters(net)
        parts = np.array([float(score.detach()), float(box.detach()), float(points.detach())])
        smooth = parts if step == 0 else 0.98 * smooth + 0.02 * parts
        if step % 100 == 0:
            shown = " ".join(f"{value:.3f}" for value in smooth)
            say(f"detector: step {step} ({done:.0%}) score, box, points {shown} {time.monotonic() - started:.0f} s")
        step += 1
    trained = average.module
    assert isinstance(trained, Detector)
    return trained.eval()
