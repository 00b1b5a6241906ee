"""A rewrite that is wrong is refused at load, and the engine says so and computes what the unmodified graph does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from services.detection.inference import models
from services.detection.inference.batcher import Turn
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions, ModelInfo
from services.detection.inference.models import prepare_batchable
from services.detection.inference.packs import ModelPack, read_graph
from services.detection.inference.rewrite import replace_prelu
from shared.config import ModelSettings, Provider, Settings
from tests.unit.inference.test_parity import as_image

Photos = dict[str, NDArray[np.uint8]]


def run(folder: Path, pixels: NDArray[np.uint8]) -> tuple[ModelInfo, list[DetectedFace]]:
    async def load_and_look() -> tuple[ModelInfo, list[DetectedFace]]:
        engine = await FaceEngine.load(Settings(model=ModelSettings(pack=str(folder), provider=Provider.CPU)))
        try:
            return engine.info, await engine.detect(as_image(pixels), DetectOptions(0.3, 0, 0, 50), Turn("test"))
        finally:
            await engine.close()

    return asyncio.run(load_and_look())


def double_slopes(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Every PRelu replaced, but with twice its slope."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    slopes = {node.input[1] for node in wrong.graph.node if node.op_type == "PRelu"}
    for tensor in wrong.graph.initializer:
        if tensor.name in slopes:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
    return replace_prelu(wrong)


def open_the_input_only(graph: onnx.ModelProto, **_: object) -> onnx.ModelProto:
    """What a batch axis looks like when only the input gets it: the images of a batch are mixed."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    dimension = wrong.graph.input[0].type.tensor_type.shape.dim[0]
    dimension.Clear()
    dimension.dim_param = "N"
    return wrong


def test_a_wrong_prelu_is_refused_and_told(
    pack_folder: Path, pack: ModelPack, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = replace_prelu(read_graph(pack.recogniser.path))[1]
    pixels = next(pixels for name, pixels in photos.items() if name.startswith("drawn"))
    right, expected = run(pack_folder, pixels)
    assert any(note.startswith(f"recogniser runs without its {count} PRelu") for note in right.rewrites)
    monkeypatch.setattr(models, "replace_prelu", double_slopes)
    wrong, found = run(pack_folder, pixels)
    assert len(wrong.rewrites) == 1
    assert wrong.rewrites[0].startswith(f"recogniser keeps its {count} PRelu: embeddings differ after the rewrite")
    assert expected
    for face, same in zip(found, expected, strict=True):
        assert face.embedding is not None
        assert same.embedding is not None
        assert float(face.embedding @ same.embedding) >= 0.99999


def test_a_batch_axis_that_mixes_photos_is_refused_and_told(pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    size = pack.detector.fixed_size or 640
    graph = read_graph(pack.detector.path)
    notes: list[str] = []
    assert prepare_batchable(graph, pack, size, notes) is not None
    assert notes.pop().startswith("detector takes batches")
    monkeypatch.setattr(models, "make_batchable", open_the_input_only)
    assert prepare_batchable(graph, pack, size, notes) is None
    assert len(notes) == 1
    assert notes[0].startswith("detector runs one photo at a time: ")
