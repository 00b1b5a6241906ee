"""Packs and providers: what is loaded, and what is refused with which reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import helper

from services.detection.inference.errors import ModelPackError, ProviderError
from services.detection.inference.models import load_models
from services.detection.inference.packs import ModelPack, load_pack
from services.detection.inference.session import ProviderChoice, choose_provider, list_providers, open_session
from shared.config import ModelSettings, Provider


def copy_pack(pack: ModelPack, folder: Path, *, detector: bool = True, recogniser: bool = True) -> Path:
    folder.mkdir()
    for model, wanted in ((pack.detector, detector), (pack.recogniser, recogniser)):
        if wanted:
            shutil.copy(model.path, folder / model.path.name)
    return folder


def test_version_names_pack_and_recogniser(pack: ModelPack, tmp_path: Path) -> None:
    folder = copy_pack(pack, tmp_path / "My-Pack v2")
    loaded = load_pack(ModelSettings(pack=str(folder)))
    assert loaded.name == "My-Pack v2"
    assert loaded.version == f"my_pack_v2_{pack.recogniser.sha256[:8]}"
    assert loaded.detector.sha256 == pack.detector.sha256
    assert load_pack(ModelSettings(pack=str(folder), version="chosen_7")).version == "chosen_7"


def test_manifest_is_read(pack: ModelPack, tmp_path: Path) -> None:
    folder = copy_pack(pack, tmp_path / "p")
    content = {
        "name": "Demo",
        "licence": "CC0-1.0",
        "thresholds": {"merge": 0.5},
        "seed": 1,
    }
    (folder / "pack.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = load_pack(ModelSettings(pack=str(folder)))
    assert (loaded.name, loaded.version) == ("Demo", f"demo_{pack.recogniser.sha256[:8]}")
    assert loaded.manifest.licence == "CC0-1.0"
    assert loaded.manifest.thresholds == {"merge": 0.5}


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "not a valid"), ('{"dimension": 0}', "not a valid"), ('{"norm_range": [9, 3]}', "low below high")],
)
def test_broken_manifest_is_refused(pack: ModelPack, tmp_path: Path, content: str, reason: str) -> None:
    folder = copy_pack(pack, tmp_path / "p")
    (folder / "pack.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelPackError, match=reason):
        load_pack(ModelSettings(pack=str(folder)))


def test_declared_dimension_must_be_the_measured_one(pack: ModelPack, tmp_path: Path) -> None:
    folder = copy_pack(pack, tmp_path / "p")
    (folder / "pack.json").write_text('{"dimension": 3}', encoding="utf-8")
    choice = ProviderChoice(Provider.CPU, "test")
    with pytest.raises(ModelPackError, match=r"pack\.json says 3 dimensions, the recogniser gives \d+"):
        load_models(load_pack(ModelSettings(pack=str(folder))), choice, detection_size=640, nms_iou=0.4, batch_max=1)


def test_what_is_missing_is_named(pack: ModelPack, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelPackError, match=r"no \.onnx file"):
        load_pack(ModelSettings(pack=str(tmp_path / "empty")))
    with pytest.raises(ModelPackError, match="does not exist"):
        load_pack(ModelSettings(pack=str(tmp_path / "absent")))
    with pytest.raises(ModelPackError, match="no recogniser among"):
        load_pack(ModelSettings(pack=str(copy_pack(pack, tmp_path / "blind", recogniser=False))))
    with pytest.raises(ModelPackError, match="no detector among"):
        load_pack(ModelSettings(pack=str(copy_pack(pack, tmp_path / "nameless", detector=False))))


def test_a_file_that_is_no_graph_is_refused(pack: ModelPack, tmp_path: Path) -> None:
    folder = copy_pack(pack, tmp_path / "p")
    (folder / "another.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelPackError, match="cannot be loaded"):
        load_pack(ModelSettings(pack=str(folder)))


def test_a_detector_without_key_points_is_refused(pack: ModelPack, tmp_path: Path) -> None:
    folder = copy_pack(pack, tmp_path / "p", detector=False)
    detector = onnx.load(str(pack.detector.path))
    del detector.graph.output[2 * len(pack.detector.strides) :]
    onnx.save(detector, str(folder / "det_plain.onnx"))
    with pytest.raises(ModelPackError, match="6 outputs"):
        load_pack(ModelSettings(pack=str(folder)))


def test_auto_says_why_it_took_the_cpu() -> None:
    choice = choose_provider(Provider.AUTO, available=["CPUExecutionProvider"])
    assert choice.provider is Provider.CPU
    assert "no CUDA provider" in choice.reason


@pytest.mark.parametrize("requested", [Provider.CUDA, Provider.TENSORRT])
def test_an_explicit_provider_is_never_replaced(requested: Provider) -> None:
    with pytest.raises(ProviderError, match="offers only"):
        choose_provider(requested, available=["CPUExecutionProvider"])


def test_a_session_on_an_absent_provider_is_refused() -> None:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert open_session(model, Provider.CPU).get_providers()[0] == "CPUExecutionProvider"
    with pytest.raises(ProviderError):
        open_session(model, Provider.CUDA)


def test_tensorrt_keeps_what_it_compiled_and_leaves_the_rest_to_cuda(tmp_path: Path) -> None:
    names = [name for name, _ in list_providers(Provider.TENSORRT, tmp_path)]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert list_providers(Provider.TENSORRT, tmp_path)[0][1]["trt_engine_cache_path"] == str(tmp_path)
    assert "trt_engine_cache_enable" not in list_providers(Provider.TENSORRT, None)[0][1]
    assert [name for name, _ in list_providers(Provider.CUDA, None)] == ["CUDAExecutionProvider"]


def test_a_pack_of_insightface_has_its_licence(pack: ModelPack, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    copy_pack(pack, tmp_path / "models" / "buffalo_x")
    by_name = load_pack(ModelSettings(pack="buffalo_x", root=tmp_path))
    assert by_name.licence == "available for non-commercial research purposes only"
    assert load_pack(ModelSettings(pack=str(tmp_path / "models" / "buffalo_x"))).licence == ""
