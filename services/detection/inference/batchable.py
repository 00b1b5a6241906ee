"""SCRFD exports are for one image at a time; a GPU wants many. This gives their graphs a batch axis.

Two forms exist. The official packs end in Transpose(2, 3, 0, 1) and Reshape(-1, k), which folds the batch
into the anchors; newer ones in Transpose(0, 2, 3, 1) and Reshape(1, -1, k). Both become Transpose(0, 2, 3, 1)
and Reshape(0, -1, k). Opening only the input's batch dimension would run on the first form and silently mix
the images of a batch, so the result is always verified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.detection.inference.errors import RewriteError
from services.detection.inference.rewrite import constant_tensors

MAX_DIFFERENCE = 1e-3
_NCHW_TO_NHWC = [0, 2, 3, 1]
_DOUBLING = np.array([1, 1, 2, 2], np.float32)


def make_batchable(model: onnx.ModelProto, *, size: int, strides: Sequence[int], anchors: int) -> onnx.ModelProto:
    """A copy of ``model`` that takes (N, 3, size, size) and gives (N, cells * anchors, k) for k = 1, 4, 10.

    Also turns each Resize by computed sizes into one by a factor of two, which drops the shape arithmetic a
    GPU would leave to the CPU. Raises :class:`RewriteError` if the graph has another form.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    producers = {name: node for node in graph.node for name in node.output}
    for index, output in enumerate(graph.output):
        stride = strides[index % len(strides)]
        _open_head(graph, producers, output, cells=(size // stride) ** 2 * anchors)
    _resize_by_factor(graph)
    dimensions = graph.input[0].type.tensor_type.shape.dim
    dimensions[0].Clear()
    dimensions[0].dim_param = "N"
    for axis in (2, 3):
        dimensions[axis].Clear()
        dimensions[axis].dim_value = size
    # Inferred shapes of the batch-1 graph would contradict the new ones.
    del graph.value_info[:]
    _drop_dead_nodes(graph)
    onnx.checker.check_model(rewritten)
    return rewritten


def verify_batch(single: Sequence[Sequence[NDArray[np.float32]]], batch: Sequence[NDArray[np.float32]]) -> float:
    """Largest difference between outputs of single runs (per picture, per output) and of one batch (per output, N
    first).

    Raises :class:`RewriteError` above :data:`MAX_DIFFERENCE` or if shapes disagree.
    """
    largest = 0.0
    for row, outputs in enumerate(single):
        for index, expected in enumerate(outputs):
            flat = expected.reshape(-1, expected.shape[-1])
            found = batch[index]
            if found.ndim != 3 or found.shape[0] != len(single) or found[row].shape != flat.shape:
                raise RewriteError(f"output {index} of a batch of {len(single)} is {found.shape}, single {flat.shape}")
            largest = max(largest, float(np.abs(found[row] - flat).max()))
    if not largest <= MAX_DIFFERENCE:
        raise RewriteError(f"a batch differs from single runs by {largest:.2e}, at most {MAX_DIFFERENCE:.0e} allowed")
    return largest


def _open_head(
    graph: onnx.GraphProto, producers: dict[str, onnx.NodeProto], output: onnx.ValueInfoProto, *, cells: int
) -> None:
    reshape = producers.get(output.name)
    while reshape is not None and reshape.op_type != "Reshape":
        reshape = producers.get(reshape.input[0])
    transpose = producers.get(reshape.input[0]) if reshape is not None else None
    if reshape is None or transpose is None or transpose.op_type != "Transpose":
        raise RewriteError(f"output '{output.name}' does not end in Transpose and Reshape")
    width = output.type.tensor_type.shape.dim[-1].dim_value
    if width not in (1, 4, 10):
        raise RewriteError(f"output '{output.name}' is {width} wide; 1, 4 and 10 are known")
    order = next((attribute for attribute in transpose.attribute if attribute.name == "perm"), None)
    if order is None or list(order.ints) not in ([2, 3, 0, 1], _NCHW_TO_NHWC):
        raise RewriteError(f"output '{output.name}' is transposed in an unknown order")
    del order.ints[:]
    order.ints.extend(_NCHW_TO_NHWC)
    shape = f"{output.name}_batch_shape"
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1, width], np.int64), shape))
    reshape.input[1] = shape
    for attribute in list(reshape.attribute):
        # allowzero would read the 0 as a size instead of "as the input's".
        if attribute.name == "allowzero":
            reshape.attribute.remove(attribute)
    output.CopyFrom(helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["N", cells, width]))


def _resize_by_factor(graph: onnx.GraphProto) -> None:
    constants = constant_tensors(graph)
    for index, node in enumerate(graph.node):
        if node.op_type != "Resize":
            continue
        scales = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if len(node.input) == 3 and scales is not None and scales.size == 4:
            continue
        # SCRFD's feature pyramid only ever doubles; verification refuses the graph if this one does not.
        name = f"{node.name or f'resize_{index}'}_scales"
        graph.initializer.append(numpy_helper.from_array(_DOUBLING, name))
        del node.input[2:]
        node.input.append(name)


def _drop_dead_nodes(graph: onnx.GraphProto) -> None:
    wanted = {output.name for output in graph.output}
    alive: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            alive.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(alive)]
    del graph.node[:]
    graph.node.extend(kept)
    tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
    kept_tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del graph.initializer[:]
    graph.initializer.extend(kept_tensors)
