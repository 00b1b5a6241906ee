"""What the engine tells of itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import generate_latest

from services.detection.inference.batcher import Turn
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectOptions
from services.detection.inference.packs import ModelPack
from shared.config import ModelSettings, Provider, Settings
from shared.telemetry.metrics import Metrics
from tests.unit.inference.test_parity import as_image


async def test_model_info_is_of_the_loaded_files(pack_folder: Path, pack: ModelPack) -> None:
    model = ModelSettings(pack=str(pack_folder), provider=Provider.CPU, version="my_space")
    engine = await FaceEngine.load(Settings(model=model))
    await engine.close()
    info = engine.info
    assert info.version == "my_space"
    assert info.provider is Provider.CPU
    assert info.sha256 == {model.path.name: model.sha256 for model in (pack.detector, pack.recogniser)}
    assert info.providers == dict.fromkeys(info.sha256, "CPUExecutionProvider")
    assert info.licence == pack.licence
    assert info.detection_size % 32 == 0


async def test_metrics_tell_the_model_and_its_queue(pack_folder: Path, real_photo: NDArray[np.uint8]) -> None:
    metrics = Metrics()
    engine = await FaceEngine.load(Settings(model=ModelSettings(pack=str(pack_folder), provider=Provider.CPU)), metrics)
    try:
        image, options = as_image(real_photo), DetectOptions(0.5, 16, 0, 500)
        await asyncio.gather(*(engine.detect(image, options, Turn(f"caller {n}")) for n in range(5)))
    finally:
        await engine.close()
    text = generate_latest(metrics.registry).decode()
    info = engine.info
    labels = f'dimension="{info.dimension}",model_version="{info.version}",pack="{info.pack}",provider="cpu"'
    assert f"kith_model_info{{{labels}}} 1.0" in text
    assert "kith_detector_wait_seconds_count 5.0" in text
    assert "kith_detector_batch_photos_sum 5.0" in text
    assert "kith_detector_waiting 0.0" in text
    assert "kith_detector_running 0.0" in text
