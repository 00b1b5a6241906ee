"""The detector: a small SCRFD (Guo et al., 2021, "Sample and Computation Redistribution for Efficient Face Detection").

Strides 8, 16 and 32, two anchors per place, score, box distances and five key points for each; distances are in
strides from the anchor's centre, which lies at column * stride, row * stride as InsightFace decodes it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.pack.onnx_graph import OnnxGraph, fold_normalisation

STRIDES = (8, 16, 32)
ANCHORS = 2
ANCHOR_SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
WIDTHS = (1, 4, 10)


class Unit(nn.Module):
    """Convolution, batch normalisation and (unless told not to) ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.act else x

    def emit(self, graph: OnnxGraph, source: str) -> str:
        weight, bias = fold_normalisation(self.conv, self.norm)
        conv = self.conv
        name = graph.convolution(source, weight, bias, conv.stride[0], int(conv.padding[0]), conv.groups)
        return graph.node("Relu", [name]) if self.act else name


class Residual(nn.Module):
    """Depthwise 3x3, pointwise, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depth = Unit(channels, channels, 3, groups=channels)
        self.point = Unit(channels, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.point(self.depth(x)))

    def emit(self, graph: OnnxGraph, source: str) -> str:
        name = self.point.emit(graph, self.depth.emit(graph, source))
        return graph.node("Relu", [graph.node("Add", [source, name])])


class Refinement(nn.Module):
    """A dense 3x3 layer added to its input; begins as doing nothing, so it can join a trained network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit = Unit(channels, channels, act=False)
        nn.init.zeros_(self.unit.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.unit(x))

    def emit(self, graph: OnnxGraph, source: str) -> str:
        return graph.node("Relu", [graph.node("Add", [source, self.unit.emit(graph, source)])])


class Chain(nn.Module):
    """Units one after the other."""

    def __init__(self, *units: Unit | Residual | Refinement) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit(x)
        return x

    def emit(self, graph: OnnxGraph, source: str) -> str:
        for unit in self.units:
            assert isinstance(unit, Unit | Residual | Refinement)
            source = unit.emit(graph, source)
        return source


class Detector(nn.Module):
    """Input (n, 3, h, w) RGB, (x - 127.5) / 128, h and w multiples of 32.

    Output per stride: raw scores (n, 2, h, w), box distances (n, 8, h, w) and key points (n, 20, h, w).
    """

    def __init__(self, neck: int = 48) -> None:
        super().__init__()
        self.neck = neck
        self.stem = Chain(Unit(3, 10, stride=2), Unit(10, 24, stride=2), Unit(24, 40, stride=2))
        self.stage8 = Chain(Residual(40), Residual(40))
        self.stage16 = Chain(Unit(40, 72, stride=2), Residual(72), Residual(72), Residual(72))
        self.stage32 = Chain(Unit(72, 112, stride=2), Residual(112), Residual(112), Residual(112))
        self.lateral = nn.ModuleList(Unit(channels, neck, 1) for channels in (40, 72, 112))
        self.smooth = nn.ModuleList(Chain(Residual(neck), Residual(neck)) for _ in STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(neck, ANCHORS * sum(WIDTHS), 1) for _ in STRIDES)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.normal_(head.weight, 0, 0.01)
            nn.init.zeros_(head.bias)
            # Faces are rare: start every score near 0.02, as focal losses want it.
            nn.init.constant_(head.bias[:ANCHORS], -4.0)

    def refine(self) -> None:
        """Adds a dense layer before each head: more exact boxes and key points for a quarter more work."""
        for smooth in self.smooth:
            assert isinstance(smooth, Chain)
            smooth.units.append(Refinement(self.neck))

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        first = self.stage8(self.stem(x))
        second = self.stage16(first)
        third = self.stage32(second)
        levels = [lateral(level) for lateral, level in zip(self.lateral, (first, second, third), strict=True)]
        levels[1] = levels[1] + functional.interpolate(levels[2], scale_factor=2.0, mode="nearest")
        levels[0] = levels[0] + functional.interpolate(levels[1], scale_factor=2.0, mode="nearest")
        outputs = []
        for level, smooth, head in zip(levels, self.smooth, self.heads, strict=True):
            score, box, points = head(smooth(level)).split([ANCHORS * width for width in WIDTHS], dim=1)
            outputs.append((score, box, points))
        return outputs


def export_detector(net: Detector, path: Path, score_floor: float = 0.5) -> None:
    """Writes the detector in the form of InsightFace's batch-1 packs.

    Scores learn the overlap with the face, so the score that best parts faces from the rest is not 0.5: logits are
    shifted until `score_floor` comes out as 0.5, where InsightFace and Kith expect the line.

    Input `input.1` (1, 3, ?, ?); nine outputs, each (places * 2, k): scores of strides 8, 16, 32, then boxes, then
    key points; by Transpose(2, 3, 0, 1) and Reshape(-1, k).
    """
    net = net.eval()
    graph = OnnxGraph()
    first = net.stage8.emit(graph, net.stem.emit(graph, "input.1"))
    second = net.stage16.emit(graph, first)
    third = net.stage32.emit(graph, second)
    levels = []
    for lateral, level in zip(net.lateral, (first, second, third), strict=True):
        assert isinstance(lateral, Unit)
        levels.append(lateral.emit(graph, level))
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32), "upsample")
    resize = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for low in (1, 0):
        larger = graph.node("Resize", [levels[low + 1], "", scales], **resize)
        levels[low] = graph.node("Add", [levels[low], larger])
    names: dict[tuple[int, int], str] = {}
    for index, (level, smooth, head) in enumerate(zip(levels, net.smooth, net.heads, strict=True)):
        assert isinstance(smooth, Chain)
        assert isinstance(head, nn.Conv2d)
        assert head.bias is not None
        feature = smooth.emit(graph, level)
        start = 0
        for part, width in enumerate(WIDTHS):
            rows = slice(start, start + ANCHORS * width)
            weight, bias = head.weight.detach()[rows].numpy(), head.bias.detach()[rows].numpy()
            if part == 0:
                bias = bias - np.float32(math.log(score_floor / (1 - score_floor)))
            name = graph.convolution(feature, weight, bias, 1, 0, 1)
            shape = graph.constant(np.array([-1, width], np.int64), f"rows{index}_{part}")
            name = graph.node("Reshape", [graph.node("Transpose", [name], perm=[2, 3, 0, 1]), shape])
            names[part, index] = graph.node("Sigmoid", [name]) if part == 0 else name
            start += ANCHORS * width
    outputs: list[tuple[str, list[int | str]]] = []
    for part, width in enumerate(WIDTHS):
        for index, stride in enumerate(STRIDES):
            final = f"{('score', 'bbox', 'kps')[part]}_{stride}"
            graph.rename(names[part, index], final)
            outputs.append((final, [f"anchors_{stride}", width]))
    graph.save(path, ("input.1", [1, 3, "height", "width"]), outputs, "det_kith")


def count_parameters(net: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(int(torch.numel(weight)) for weight in net.parameters())
