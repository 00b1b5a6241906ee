"""PRelu without onnxruntime's PRelu.

Its CPU kernel is not vectorised for negative inputs and takes more than half of an ArcFace model's time on real faces
(on zeros it hides). ``s*x + (1 - s)*Relu(x)`` is the same function for every slope and runs on vectorised kernels.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.detection.inference.errors import RewriteError

MIN_COSINE = 0.999_999


def replace_prelu(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy of ``model`` with every PRelu of constant slope replaced, and how many there were.

    A slope that is computed at run time keeps its PRelu: (1 - s) could not be folded.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    slopes = constant_tensors(graph)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        slope = slopes.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None:
            nodes.append(node)
            continue
        count += 1
        x, slope_name, y = node.input[0], node.input[1], node.output[0]
        complement = f"{y}_one_minus_slope"
        graph.initializer.append(numpy_helper.from_array((1 - slope).astype(slope.dtype), complement))
        nodes += [
            helper.make_node("Relu", [x], [f"{y}_positive"], name=f"{y}_relu"),
            helper.make_node("Mul", [f"{y}_positive", complement], [f"{y}_gain"], name=f"{y}_gain"),
            helper.make_node("Mul", [x, slope_name], [f"{y}_leak"], name=f"{y}_leak"),
            helper.make_node("Add", [f"{y}_gain", f"{y}_leak"], [y], name=f"{y}_sum"),
        ]
    replaced = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(replaced)
    onnx.checker.check_model(rewritten)
    return rewritten, count


def constant_tensors(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """Every initializer and Constant node of ``graph``, by the name of its value."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            if value is not None:
                found[node.output[0]] = numpy_helper.to_array(value)
    return found


def verify_embeddings(original: NDArray[np.float32], rewritten: NDArray[np.float32]) -> float:
    """The lowest cosine between two (N, D) embeddings of the same probes, row by row.

    Raises :class:`RewriteError` if it is below :data:`MIN_COSINE`, or if either holds no direction at all.
    """
    norms = np.linalg.norm(original, axis=1) * np.linalg.norm(rewritten, axis=1)
    if original.shape != rewritten.shape or not np.all(np.isfinite(norms)) or np.any(norms == 0):
        raise RewriteError(f"embeddings {original.shape} and {rewritten.shape} cannot be compared")
    lowest = float(((original * rewritten).sum(axis=1) / norms).min())
    if lowest < MIN_COSINE:
        raise RewriteError(
            f"embeddings differ after the rewrite: lowest cosine {lowest:.7f}, at least {MIN_COSINE} wanted"
        )
    return lowest
