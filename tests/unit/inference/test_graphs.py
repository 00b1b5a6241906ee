"""Rewrites of ONNX graphs: equal where they are accepted, refused where they would not be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.detection.inference.batchable import make_batchable, verify_batch
from services.detection.inference.detector import Detector, suppress_overlaps
from services.detection.inference.errors import InferenceError, RewriteError
from services.detection.inference.models import check_batchable
from services.detection.inference.packs import ModelPack, read_graph
from services.detection.inference.probe import as_input, probe_pictures
from services.detection.inference.recogniser import Recogniser
from services.detection.inference.rewrite import replace_prelu, verify_embeddings
from services.detection.inference.session import open_session
from shared.config import Provider
from shared.faces.boxes import iou_matrix

Photos = dict[str, NDArray[np.uint8]]


def prelu_graph(slope: NDArray[np.float32], *, slope_as_input: bool = False) -> onnx.ModelProto:
    """Conv, PRelu, Conv, PRelu: the second PRelu has half the slopes of the first."""
    random = np.random.default_rng(5)
    float32 = onnx.TensorProto.FLOAT
    kernels = {f"w{i}": random.normal(0, 0.3, (4, 3 if i == 0 else 4, 3, 3)).astype(np.float32) for i in range(2)}
    tensors: dict[str, NDArray[np.float32]] = {**kernels, "s0": slope, "s1": slope * np.float32(0.5)}
    inputs = [helper.make_tensor_value_info("x", float32, ["N", 3, 16, 16])]
    if slope_as_input:
        del tensors["s0"]
        inputs.append(helper.make_tensor_value_info("s0", float32, list(slope.shape)))
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["a", "s0"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["c", "s1"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    outputs = [helper.make_tensor_value_info("y", float32, ["N", 4, 16, 16])]
    graph = helper.make_graph(nodes, "prelu", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


SLOPES = [
    pytest.param(np.array([[[0.25]], [[-0.5]], [[1.0]], [[1.7]]], np.float32), id="per channel, beyond 0..1"),
    pytest.param(np.array([0.1], np.float32), id="one for all"),
]


@pytest.mark.parametrize("slope", SLOPES)
def test_prelu_rewrite_computes_the_same(slope: NDArray[np.float32]) -> None:
    original = prelu_graph(slope)
    rewritten, count = replace_prelu(original)
    assert count == 2
    assert not any(node.op_type == "PRelu" for node in rewritten.graph.node)
    x = np.random.default_rng(1).normal(0, 2, (3, 3, 16, 16)).astype(np.float32)
    expected = open_session(original, Provider.CPU).run(None, {"x": x})[0]
    found = open_session(rewritten, Provider.CPU).run(None, {"x": x})[0]
    assert float(expected.min()) < 0 < float(expected.max())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_prelu_rewrite_leaves_the_original_and_run_time_slopes_alone() -> None:
    original = prelu_graph(np.array([0.1], np.float32), slope_as_input=True)
    before = original.SerializeToString()
    rewritten, count = replace_prelu(original)
    assert count == 1
    assert [node.op_type for node in rewritten.graph.node].count("PRelu") == 1
    assert original.SerializeToString() == before


def test_prelu_rewrite_of_the_pack_gives_the_same_embeddings(pack: ModelPack) -> None:
    graph = read_graph(pack.recogniser.path)
    rewritten, _ = replace_prelu(graph)
    blob = as_input(probe_pictures(3, pack.recogniser.side), pack.recogniser.mean, pack.recogniser.deviation)
    name = graph.graph.input[0].name
    sessions = [open_session(model, Provider.CPU) for model in (graph, rewritten)]
    rows = [np.concatenate([session.run(None, {name: blob[i : i + 1]})[0] for i in range(3)]) for session in sessions]
    assert verify_embeddings(rows[0], rows[1]) >= 0.999999


def test_verification_refuses_different_embeddings() -> None:
    rows = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32)
    changed = rows.copy()
    changed[1, 0] += 0.2
    with pytest.raises(RewriteError, match="lowest cosine"):
        verify_embeddings(rows, changed)
    with pytest.raises(RewriteError, match="cannot be compared"):
        verify_embeddings(rows, np.zeros_like(rows))


def test_batch_of_three_different_pictures_equals_single_runs(pack: ModelPack) -> None:
    size = pack.detector.fixed_size or 640
    graph = read_graph(pack.detector.path)
    batchable = make_batchable(graph, size=size, strides=pack.detector.strides, anchors=pack.detector.anchors)
    assert check_batchable(graph, batchable, pack, size) <= 1e-4
    # The pictures must matter, or a batch that mixes them up would pass.
    blob = as_input(probe_pictures(3, size), pack.detector.mean, pack.detector.deviation)
    outputs = open_session(batchable, Provider.CPU).run(None, {graph.graph.input[0].name: blob})
    for level in range(len(pack.detector.strides)):
        scores = outputs[level]
        assert scores.shape[0] == 3
        assert np.abs(scores[0] - scores[1]).max() > 1e-3


def fold_heads(model: onnx.ModelProto) -> onnx.ModelProto:
    """The official packs' form: Transpose(2, 3, 0, 1) and Reshape(-1, k), outputs of two dimensions."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    producers = {name: node for node in folded.graph.node for name in node.output}
    for output in folded.graph.output:
        width = output.type.tensor_type.shape.dim[-1].dim_value
        reshape = producers[output.name]
        while reshape.op_type != "Reshape":
            reshape = producers[reshape.input[0]]
        order = next(a for a in producers[reshape.input[0]].attribute if a.name == "perm")
        del order.ints[:]
        order.ints.extend([2, 3, 0, 1])
        name = f"{output.name}_folded"
        folded.graph.initializer.append(numpy_helper.from_array(np.array([-1, width], np.int64), name))
        reshape.input[1] = name
        output.CopyFrom(helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["A", width]))
    del folded.graph.value_info[:]
    return folded


def test_batchable_also_takes_the_folded_form(pack: ModelPack) -> None:
    size = pack.detector.fixed_size or 640
    folded = fold_heads(read_graph(pack.detector.path))
    batchable = make_batchable(folded, size=size, strides=pack.detector.strides, anchors=pack.detector.anchors)
    assert check_batchable(folded, batchable, pack, size) <= 1e-4


def test_padded_batches_detect_what_single_photos_detect(pack: ModelPack, photos: Photos) -> None:
    size = pack.detector.fixed_size or 640
    graph = read_graph(pack.detector.path)
    batchable = make_batchable(graph, size=size, strides=pack.detector.strides, anchors=pack.detector.anchors)
    single = Detector(open_session(graph, Provider.CPU), pack.detector, size=size, nms_iou=0.4, buckets=(1,))
    session = open_session(batchable, Provider.CPU)
    batched = Detector(session, pack.detector, size=size, nms_iou=0.4, buckets=(1, 4))
    pixels = list(photos.values())[:7]
    thresholds = [0.2, 0.5, 0.2, 0.9, 0.3, 0.2, 0.4]
    expected = single.detect(pixels, thresholds)
    assert sum(len(found.scores) for found in expected) > 0
    # Seven photos are one full batch and one of three, padded to four.
    for found, wanted in zip(batched.detect(pixels, thresholds), expected, strict=True):
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
        np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.01)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_padded_crops_embed_as_single_crops(pack: ModelPack) -> None:
    model = pack.recogniser
    session = open_session(read_graph(model.path), Provider.CPU)
    crops = list(probe_pictures(6, model.side))

    def embed(buckets: tuple[int, ...]) -> NDArray[np.float32]:
        recogniser = Recogniser(session, side=model.side, mean=model.mean, deviation=model.deviation, buckets=buckets)
        return recogniser.embed(crops)[0]

    np.testing.assert_allclose(embed((1, 4)), embed((1,)), atol=1e-4)


def test_an_embedding_without_direction_is_an_error(pack: ModelPack) -> None:
    class Silent:
        def run(self, names: Sequence[str] | None, feed: dict[str, Any]) -> list[NDArray[np.float32]]:
            return [np.zeros((1, 8), np.float32)]

        def get_inputs(self) -> list[Any]:
            return open_session(read_graph(pack.recogniser.path), Provider.CPU).get_inputs()

        def get_outputs(self) -> list[Any]:
            return []

        def get_providers(self) -> list[str]:
            return []

    recogniser = Recogniser(Silent(), side=112, mean=0, deviation=1, buckets=(1,))
    with pytest.raises(InferenceError, match="without direction"):
        recogniser.embed(list(probe_pictures(1, 112)))


@pytest.mark.parametrize("count", [0, 1, 300])
def test_suppression_keeps_no_two_that_overlap(count: int) -> None:
    random = np.random.default_rng(12)
    corners = random.uniform(0, 200, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(20, 60, (count, 2))]).astype(np.float32)
    keep = suppress_overlaps(boxes, 0.4)
    assert keep == sorted(keep)
    assert (0 in keep) == (count > 0)
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1])
    overlap = iou_matrix(xywh, xywh)
    for row in range(count):
        better = [kept for kept in keep if kept < row]
        assert (row in keep) == all(overlap[row, kept] <= 0.4 + 1e-6 for kept in better)


def test_a_graph_of_another_shape_is_refused(pack: ModelPack) -> None:
    with pytest.raises(RewriteError, match="does not end in"):
        make_batchable(prelu_graph(np.array([0.1], np.float32)), size=64, strides=(8,), anchors=2)


def test_verification_refuses_mixed_pictures() -> None:
    random = np.random.default_rng(4)
    batch = [random.normal(size=(3, 10, 4)).astype(np.float32)]
    single = [[batch[0][row]] for row in range(3)]
    assert verify_batch(single, batch) == 0.0
    with pytest.raises(RewriteError, match="differs"):
        verify_batch([single[1], single[0], single[2]], batch)
    with pytest.raises(RewriteError, match="output 0"):
        verify_batch(single, [batch[0][:2]])
