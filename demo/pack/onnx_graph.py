"""Writes networks as ONNX node by node, in the shapes that InsightFace's own exports have.

A tracing exporter would choose the nodes; here they are chosen, because detector surgery and InsightFace's
routing look at them: names, Transpose orders and which outputs come first. Batch normalisation is folded into
the convolution before it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 13


def fold_normalisation(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of one convolution that does what conv and norm (at inference) do in turn."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight.detach() * gain[:, None, None, None]
    bias = norm.bias.detach() - norm.running_mean * gain
    return weight.numpy().astype(np.float32), bias.numpy().astype(np.float32)


class OnnxGraph:
    """Collects nodes and constants; every method appends one node and returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.float32] | NDArray[np.int64], name: str) -> str:
        """A named constant."""
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: int | str | list[int]) -> str:
        """Any node with one output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes)  # type: ignore[arg-type]
        )
        return f"{name}_out"

    def convolution(
        self,
        source: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        stride: int,
        padding: int,
        groups: int,
    ) -> str:
        """A two-dimensional convolution with a square kernel."""
        at = len(self._nodes)
        inputs = [source, self.constant(weight, f"w{at}"), self.constant(bias, f"b{at}")]
        kernel = int(weight.shape[-1])
        return self.node(
            "Conv",
            inputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[padding] * 4,
            group=groups,
            dilations=[1, 1],
        )

    def rename(self, source: str, name: str) -> None:
        """Gives the output of the node that made `source` its final name."""
        for node in self._nodes:
            for index, output in enumerate(node.output):
                if output == source:
                    node.output[index] = name

    def save(
        self, path: Path, inputs: tuple[str, list[int | str]], outputs: list[tuple[str, list[int | str]]], title: str
    ) -> None:
        """Checks the graph and writes it."""
        graph = helper.make_graph(
            self._nodes,
            title,
            [helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, inputs[1])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="kith")
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, path)
