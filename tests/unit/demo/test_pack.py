"""The demo's model pack: InsightFace loads it from its folder, unchanged, and it sees what was drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from insightface.app import FaceAnalysis
from insightface.model_zoo import get_model
from insightface.utils import face_align

import demo.pack
from demo.drawing import AlbumTruth, draw_album
from demo.pack.alignment import crop_face, fit_similarity
from demo.pack.held_out import find_faces, pair_scores

PACK = Path(demo.pack.__file__).parent / "kith_demo"


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AlbumTruth]:
    folder = tmp_path_factory.mktemp("album")
    return folder, draw_album(41, people=6, photos=16, out=folder, workers=1)


def test_face_analysis_loads_the_pack_as_it_loads_its_own(album: tuple[Path, AlbumTruth], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "kith_demo").symlink_to(PACK)
    app = FaceAnalysis(name="kith_demo", root=str(tmp_path), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    assert sorted(app.models) == ["detection", "recognition"]
    folder, truth = album
    faces = app.get(cv2.imread(str(folder / truth.photos[0].file)))
    assert len(faces) == len(truth.photos[0].faces)
    dimension = json.loads((PACK / "pack.json").read_text(encoding="utf-8"))["dimension"]
    assert all(face.embedding.shape == (dimension,) for face in faces)


def test_pack_finds_the_drawn_faces_and_tells_people_apart(album: tuple[Path, AlbumTruth]) -> None:
    faces = find_faces(PACK, *album)
    assert faces.drawn == sum(len(photo.faces) for photo in album[1].photos)
    assert faces.recall >= 0.95
    assert faces.precision >= 0.95
    genuine, impostor = pair_scores(faces)
    assert np.median(genuine) > np.quantile(impostor, 0.99)


def test_a_photo_without_people_has_no_faces() -> None:
    detector = get_model(str(PACK / "det_kith.onnx"), providers=["CPUExecutionProvider"])
    detector.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=0.5)
    image = np.full((480, 640, 3), 140, np.uint8)
    for x in (100, 300, 500):
        cv2.circle(image, (x, 200), 40, (120, 160, 220), -1)
    found, _ = detector.detect(image)
    assert len(found) == 0


def test_detector_has_the_form_of_insightface_exports() -> None:
    graph = onnx.load(PACK / "det_kith.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    widths = [output.type.tensor_type.shape.dim[-1].dim_value for output in graph.output]
    assert widths == [1, 1, 1, 4, 4, 4, 10, 10, 10]
    for output in graph.output:
        node = makers[output.name]
        while node.op_type != "Reshape":
            node = makers[node.input[0]]
        transpose = makers[node.input[0]]
        assert transpose.op_type == "Transpose"
        assert list(transpose.attribute[0].ints) == [2, 3, 0, 1]


def test_recogniser_embeds_a_batch_as_it_embeds_one_by_one() -> None:
    recogniser = get_model(str(PACK / "rec_kith.onnx"), providers=["CPUExecutionProvider"])
    assert (recogniser.input_mean, recogniser.input_std) == (127.5, 127.5)
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8))
    together = recogniser.get_feat(crops)
    alone = np.concatenate([recogniser.get_feat(crop) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_alignment_is_insightfaces() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    landmarks = face_align.arcface_dst * 0.9 + rng.normal(0, 3, (5, 2)).astype(np.float32) + 30
    np.testing.assert_allclose(fit_similarity(landmarks), face_align.estimate_norm(landmarks), atol=1e-4)
    theirs = face_align.norm_crop(image, landmarks).astype(int)
    assert np.abs(crop_face(image, landmarks) - theirs).mean() < 0.5


def test_pack_describes_itself() -> None:
    pack = json.loads((PACK / "pack.json").read_text(encoding="utf-8"))
    cosines = pack["thresholds"]
    assert set(cosines) == {
        "knn_floor", "link_floor", "merge", "attach", "attach_margin", "suggest_floor", "assign_floor",
    }  # fmt: skip
    assert cosines["knn_floor"] < cosines["link_floor"]
    assert cosines["suggest_floor"] <= cosines["assign_floor"]
    assert pack["calibration"]["slope"] > 0
    assert all((PACK / file).is_file() for file in pack["files"].values())


def test_using_the_pack_needs_no_torch() -> None:
    script = "import sys, demo.drawing, demo.pack.held_out, demo.pack.thresholds; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACK.parents[2])
