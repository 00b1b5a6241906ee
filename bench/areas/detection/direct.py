"""The detector without a network: photo bytes in, faces out, through the same use case that every RPC calls."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.areas.detection.rate import Rate
from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import OptionOverrides
from services.detection.inference.engine import FaceEngine
from shared.config import ModelSettings, Provider, Settings
from shared.imaging.decode import ImageDecoder
from shared.imaging.source import PhotoReader, PhotoSource
from shared.telemetry.metrics import Metrics

# Enough to keep every thread busy, as a stream's window does.
IN_FLIGHT_PER_CORE = 4


def measure_direct(pack: Path, photos: Sequence[Path], seconds: float) -> Rate:
    """Photos by their bytes, several in flight, embeddings included."""
    return asyncio.run(_measure(pack, [path.read_bytes() for path in photos], seconds))


async def _measure(pack: Path, photos: Sequence[bytes], seconds: float) -> Rate:
    settings = Settings(model=ModelSettings(pack=str(pack), provider=Provider.CPU))
    cores = os.cpu_count() or 1
    engine = await FaceEngine.load(settings)
    taken: list[float] = []
    with ThreadPoolExecutor(cores) as threads:
        finder = FaceFinder(
            engine,
            PhotoReader(threads, settings.images),
            ImageDecoder(threads, settings.images),
            cores,
            settings.detection,
            Metrics(),
        )

        async def look(lane: int, until: float) -> None:
            at = lane * len(photos) // (IN_FLIGHT_PER_CORE * cores)
            while (now := time.monotonic()) < until:
                await finder.find_faces_in_turn(
                    PhotoSource(content=photos[at % len(photos)]),
                    OptionOverrides(),
                    with_embeddings=True,
                    caller="bench",
                )
                taken.append(time.monotonic() - now)
                at += 1

        for warming in (True, False):
            taken.clear()
            begun = time.monotonic()
            until = begun + (1.0 if warming else seconds)
            await asyncio.gather(*(look(lane, until) for lane in range(IN_FLIGHT_PER_CORE * cores)))
            spent = time.monotonic() - begun
    await engine.close()
    return Rate.of(taken, spent)
