"""The engine against its oracle, InsightFace's own FaceAnalysis, on the same pack and photos."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from insightface.app import FaceAnalysis
from insightface.app.common import Face
from insightface.utils.face_align import estimate_norm
from numpy.typing import NDArray

from services.detection.inference.alignment import similarity_transform, template_for
from services.detection.inference.batcher import Turn
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions
from services.detection.inference.packs import ModelPack
from shared.config import ModelSettings, Provider, Settings
from shared.imaging.decode import DecodedImage, decode_image

Photos = dict[str, NDArray[np.uint8]]


def as_image(pixels: NDArray[np.uint8]) -> DecodedImage:
    return decode_image(cv2.imencode(".png", pixels)[1].tobytes(), max_pixels=60_000_000)


def run_engine(folder: Path, photos: Sequence[NDArray[np.uint8]], options: DetectOptions) -> list[list[DetectedFace]]:
    async def run() -> list[list[DetectedFace]]:
        engine = await FaceEngine.load(
            Settings(model=ModelSettings(pack=str(folder), provider=Provider.CPU, threads=2))
        )
        try:
            images = [as_image(pixels) for pixels in photos]
            return await asyncio.gather(*(engine.detect(image, options, Turn("test")) for image in images))
        finally:
            await engine.close()

    return asyncio.run(run())


def run_oracle(folder: Path, photos: Sequence[NDArray[np.uint8]], min_confidence: float) -> list[list[Face]]:
    oracle = FaceAnalysis(
        name=str(folder), allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
    )
    oracle.prepare(ctx_id=-1, det_size=(640, 640), det_thresh=min_confidence)
    return [oracle.get(pixels) for pixels in photos]


@dataclass(slots=True)
class Differences:
    """The largest ones between two ways of looking, over all faces."""

    box_px: float = 0.0
    landmarks_px: float = 0.0
    confidence: float = 0.0
    norm_share: float = 0.0
    cosine_loss: float = 0.0

    def add(self, face: DetectedFace, oracle: Face) -> None:
        box = [face.box.x, face.box.y, face.box.x + face.box.width, face.box.y + face.box.height]
        assert face.embedding is not None
        assert face.embedding_norm is not None
        norm = float(oracle.embedding_norm)
        self.box_px = max(self.box_px, float(np.abs(box - oracle.bbox).max()))
        self.landmarks_px = max(self.landmarks_px, float(np.abs(face.landmarks - oracle.kps).max()))
        self.confidence = max(self.confidence, abs(face.confidence - float(oracle.det_score)))
        self.norm_share = max(self.norm_share, abs(face.embedding_norm - norm) / norm)
        self.cosine_loss = max(self.cosine_loss, 1 - float(face.embedding @ oracle.normed_embedding))


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")
@pytest.mark.parametrize("min_confidence", [0.5, 0.2])
def test_engine_equals_face_analysis(pack_folder: Path, photos: Photos, min_confidence: float) -> None:
    """For the figures of another pack: ``KITH_TEST_PACK=<folder> pytest tests/unit/inference/test_parity.py -rP``."""
    options = DetectOptions(min_confidence, min_face_px=0, min_quality=0, max_faces=10_000)
    ours = run_engine(pack_folder, list(photos.values()), options)
    theirs = run_oracle(pack_folder, list(photos.values()), min_confidence)

    assert [len(faces) for faces in ours] == [len(faces) for faces in theirs]
    assert sum(len(faces) for faces in ours) >= 5
    found = Differences()
    for faces, expected in zip(ours, theirs, strict=True):
        for face, oracle_face in zip(faces, expected, strict=True):
            found.add(face, oracle_face)
    print(f"{sum(len(faces) for faces in ours)} faces, {found}")  # noqa: T201 - for -rP
    assert found.box_px <= 0.01
    assert found.landmarks_px <= 0.05
    assert found.confidence <= 1e-5
    assert found.norm_share <= 1e-3
    assert found.cosine_loss <= 1e-5


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")
@pytest.mark.parametrize("side", [112, 128, 224])
def test_similarity_transform_equals_insightface(side: int) -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        points = (random.normal(0, 40, (5, 2)) + random.uniform(0, 2000, 2)).astype(np.float32)
        expected = estimate_norm(points, side)
        assert np.allclose(similarity_transform(points, template_for(side)), expected, atol=1e-3, rtol=1e-5)


def test_coinciding_landmarks_give_a_finite_transform() -> None:
    matrix = similarity_transform(np.full((5, 2), 31.0), template_for(112))
    assert np.all(np.isfinite(matrix))


def test_embeddings_are_unit_length_and_of_the_measured_dimension(pack_folder: Path, photos: Photos) -> None:
    async def run() -> None:
        engine = await FaceEngine.load(Settings(model=ModelSettings(pack=str(pack_folder), provider=Provider.CPU)))
        try:
            options = DetectOptions(0.2, 0, 0, 50)
            faces = [
                face
                for pixels in photos.values()
                for face in await engine.detect(as_image(pixels), options, Turn("test"))
            ]
            assert faces
            for face in faces:
                assert face.embedding is not None
                assert face.embedding.dtype == np.float32
                assert face.embedding.shape == (engine.info.dimension,)
                assert float(np.linalg.norm(face.embedding)) == pytest.approx(1.0, abs=1e-5)
                assert 0.0 <= face.quality.overall <= 1.0
        finally:
            await engine.close()

    asyncio.run(run())


def test_options_filter_and_order(pack_folder: Path, photos: Photos) -> None:
    everything = DetectOptions(0.2, 0, 0, 1000)
    pixels = list(photos.values())
    all_faces = run_engine(pack_folder, pixels, everything)
    richest = max(range(len(pixels)), key=lambda index: len(all_faces[index]))
    faces = all_faces[richest]
    assert len(faces) >= 2
    assert [face.confidence for face in faces] == sorted((face.confidence for face in faces), reverse=True)

    (best,) = run_engine(pack_folder, [pixels[richest]], DetectOptions(0.2, 0, 0, 1))[0]
    assert best.box == faces[0].box

    sides = sorted(min(face.box.width, face.box.height) for face in faces)
    floor = (sides[0] + sides[-1]) / 2
    large = run_engine(pack_folder, [pixels[richest]], DetectOptions(0.2, floor, 0, 1000))[0]
    assert [f.box for f in large] == [f.box for f in faces if min(f.box.width, f.box.height) >= floor]
    assert 0 < len(large) < len(faces)

    qualities = sorted(face.quality.overall for face in faces)
    middle = (qualities[0] + qualities[-1]) / 2
    good = run_engine(pack_folder, [pixels[richest]], DetectOptions(0.2, 0, middle, 1000))[0]
    assert [f.box for f in good] == [f.box for f in faces if f.quality.overall >= middle]

    bare = run_engine(pack_folder, [pixels[richest]], DetectOptions(0.2, 0, 0, 1000, with_embeddings=False))[0]
    assert [f.box for f in bare] == [f.box for f in faces]
    assert all(f.embedding is None and f.embedding_norm is None for f in bare)


def test_a_pack_whose_norm_means_quality_counts_it_with_and_without_embeddings(
    pack: ModelPack, photos: Photos, tmp_path: Path
) -> None:
    for model in (pack.detector, pack.recogniser):
        shutil.copy(model.path, tmp_path / model.path.name)
    (tmp_path / "pack.json").write_text(json.dumps({"norm_range": [0.0, 1000.0]}), encoding="utf-8")
    pixels = list(photos.values())
    found = run_engine(tmp_path, pixels, DetectOptions(0.2, 0, 0, 50))
    faces = [face for photo in found for face in photo]
    assert faces
    for face in faces:
        assert face.embedding_norm is not None
        assert face.quality.norm == pytest.approx(face.embedding_norm / 1000)
    floor = sorted(face.quality.overall for face in faces)[len(faces) // 2]
    options = DetectOptions(0.2, 0, floor, 50, with_embeddings=False)
    kept = [face for photo in run_engine(tmp_path, pixels, options) for face in photo]
    assert [face.box for face in kept] == [face.box for face in faces if face.quality.overall >= floor]
    assert all(face.embedding is None for face in kept)
