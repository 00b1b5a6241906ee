"""The recogniser: a small residual network with PReLU, 112x112 to a 128-vector, trained by CosFace.

The tail is MobileFaceNet's (Chen et al., 2018): a global depthwise convolution, so that each place of the aligned
face keeps its own weight, and a linear layer with batch normalisation. The loss is Wang et al., 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.pack.onnx_graph import OnnxGraph, fold_normalisation

DIMENSION = 128
CROP = 112


class Slope(nn.Module):
    """PReLU: one slope per channel for negative values, learned until `fix` makes it one constant for the layer.

    The gradient of PReLU takes a third of a training step on CPU, that of a constant slope almost nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.constant: float | None = None

    def fix(self) -> None:
        """Makes the mean of the slopes the slope of every channel from now on."""
        self.constant = float(self.weight.detach().mean())
        self.weight.data.fill_(self.constant)
        self.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.constant is not None:
            return functional.leaky_relu(x, self.constant)
        return functional.prelu(x, self.weight.to(x.dtype))


class Unit(nn.Module):
    """Convolution, batch normalisation and (unless told not to) PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = Slope(outputs) if act else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.act is not None:
            x = self.act(x)
        return x

    def emit(self, graph: OnnxGraph, source: str) -> str:
        weight, bias = fold_normalisation(self.conv, self.norm)
        name = graph.convolution(source, weight, bias, self.conv.stride[0], int(self.conv.padding[0]), 1)
        return name if self.act is None else emit_prelu(graph, name, self.act)


def emit_prelu(graph: OnnxGraph, source: str, act: Slope) -> str:
    """One PRelu node with a slope per channel, shaped (c, 1, 1) as ONNX broadcasts it."""
    slope = act.weight.detach().numpy().astype(np.float32)[:, None, None]
    return graph.node("PRelu", [source, graph.constant(slope, f"slope_{source}")])


class Residual(nn.Module):
    """Two 3x3 units around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Unit(channels, channels)
        self.second = Unit(channels, channels, act=False)
        self.act = Slope(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x + self.second(self.first(x)))
        return x

    def emit(self, graph: OnnxGraph, source: str) -> str:
        name = self.second.emit(graph, self.first.emit(graph, source))
        return emit_prelu(graph, graph.node("Add", [source, name]), self.act)


class Recogniser(nn.Module):
    """Input (n, 3, 112, 112) RGB, (x - 127.5) / 127.5; output (n, 128), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            [
                Unit(3, 16, stride=2),
                Unit(16, 32, stride=2),
                Residual(32),
                Unit(32, 64, stride=2),
                Residual(64),
                Residual(64),
                Unit(64, 128, stride=2),
                Residual(128),
                Residual(128),
            ]
        )
        self.pool = nn.Conv2d(128, 128, 7, groups=128, bias=False)
        self.pool_norm = nn.BatchNorm2d(128)
        self.linear = nn.Conv2d(128, DIMENSION, 1, bias=False)
        self.norm = nn.BatchNorm2d(DIMENSION)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.body:
            x = part(x)
        x = self.norm(self.linear(self.pool_norm(self.pool(x))))
        return x.flatten(1)

    def fix_slopes(self) -> None:
        """Fixes the slope of every activation; see `Slope`."""
        for part in self.modules():
            if isinstance(part, Slope):
                part.fix()


class CosFace(nn.Module):
    """Large-margin cosine loss over the training identities."""

    def __init__(self, identities: int, scale: float = 32.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(identities, DIMENSION) * 0.1)
        self.scale = scale

    def begin_at(self, centres: Tensor) -> None:
        """Begins with known centres (identities, 128) instead of random ones."""
        self.centres.data.copy_(functional.normalize(centres))

    def forward(self, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
        cosine = functional.normalize(embeddings) @ functional.normalize(self.centres).T
        logits = self.scale * (cosine - margin * functional.one_hot(labels, cosine.shape[1]))
        return functional.cross_entropy(logits, labels)


def export_recogniser(net: Recogniser, path: Path) -> None:
    """Writes the recogniser as InsightFace's ArcFace packs are: input (n, 3, 112, 112), one output (n, 128).

    The first nodes are no Sub or Mul, so InsightFace feeds it (x - 127.5) / 127.5.
    """
    net = net.eval()
    graph = OnnxGraph()
    name = "input.1"
    for part in net.body:
        assert isinstance(part, Unit | Residual)
        name = part.emit(graph, name)
    weight, bias = fold_normalisation(net.pool, net.pool_norm)
    name = graph.convolution(name, weight, bias, 1, 0, 128)
    weight, bias = fold_normalisation(net.linear, net.norm)
    name = graph.node("Flatten", [graph.convolution(name, weight, bias, 1, 0, 1)], axis=1)
    graph.rename(name, "embedding")
    graph.save(path, ("input.1", ["batch", 3, CROP, CROP]), [("embedding", ["batch", DIMENSION])], "rec_kith")
