"""What the finder holds of photos while they wait for the models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import OptionOverrides
from services.detection.inference.batcher import Turn
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions, GivenFace
from shared.config import MIB, DetectionSettings, ModelSettings, Provider, Settings
from shared.errors import InvalidRequest
from shared.faces.boxes import Box
from shared.imaging.decode import DecodedImage, ImageDecoder
from shared.imaging.source import PhotoReader, PhotoSource
from shared.telemetry.metrics import Metrics

DEMO_PACK = Path(__file__).resolve().parents[3] / "demo" / "pack" / "kith_demo"
LIMIT = 16 * MIB
# Decoded, two of them fit and three do not.
PHOTO = PhotoSource(content=cv2.imencode(".jpg", np.full((1500, 1600, 3), 90, np.uint8))[1].tobytes())


class WatchedEngine(FaceEngine):
    """Notes how many bytes are held whenever a photo reaches it."""

    seen: list[int]
    metrics: Metrics

    async def detect(self, image: DecodedImage, options: DetectOptions, turn: Turn) -> list[DetectedFace]:
        self.seen.append(held(self.metrics))
        return await super().detect(image, options, turn)


def held(metrics: Metrics) -> int:
    return int(metrics.registry.get_sample_value("kith_detector_held_bytes") or 0)


@pytest.fixture
async def engine() -> AsyncIterator[WatchedEngine]:
    metrics = Metrics()
    engine = await WatchedEngine.load(
        Settings(model=ModelSettings(pack=str(DEMO_PACK), provider=Provider.CPU)), metrics
    )
    engine.seen, engine.metrics = [], metrics
    yield engine
    await engine.close()


@pytest.fixture
async def finder(engine: WatchedEngine) -> AsyncIterator[FaceFinder]:
    images = Settings().images
    with ThreadPoolExecutor(4) as threads:
        reader = PhotoReader(threads, images)
        settings = DetectionSettings(max_waiting_mb=LIMIT // MIB)
        yield FaceFinder(engine, reader, ImageDecoder(threads, images), 4, settings, engine.metrics)
        await reader.close()


async def test_decoded_photos_are_bounded_in_bytes(finder: FaceFinder, engine: WatchedEngine) -> None:
    looks = (
        finder.find_faces_in_turn(PHOTO, OptionOverrides(), with_embeddings=False, caller=f"stream {n}")
        for n in range(12)
    )
    assert len(await asyncio.gather(*looks)) == 12
    assert len(engine.seen) == 12
    assert 0 < max(engine.seen) <= LIMIT
    assert held(engine.metrics) == 0


async def test_a_photo_that_fails_or_is_given_up_is_held_no_longer(finder: FaceFinder, engine: WatchedEngine) -> None:
    outside = GivenFace("a", Box(5000, 5000, 50, 50), None)
    with pytest.raises(InvalidRequest) as caught:
        await finder.measure_given(PHOTO, [outside], caller="test", patience_s=None)
    assert caught.value.violations[0].field == "given_faces[0].box"
    assert held(engine.metrics) == 0
    looks = [
        asyncio.create_task(
            finder.find_faces(PHOTO, OptionOverrides(), with_embeddings=False, caller="x", patience_s=9)
        )
        for _ in range(6)
    ]
    while not engine.seen:  # noqa: ASYNC110 - the engine is reached from threads
        await asyncio.sleep(0.001)
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    assert held(engine.metrics) == 0
