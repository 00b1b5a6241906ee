"""The detector without a network: photo bytes in, faces out, through the same use case that every RPC calls."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.rate import Turn, make_turn
from services.detection.domain.looking import FaceFinder
from services.detection.domain.model import OptionOverrides
from services.detection.inference.engine import FaceEngine
from shared.config import ModelSettings, Provider, Settings
from shared.imaging.decode import ImageDecoder
from shared.imaging.source import PhotoReader, PhotoSource
from shared.telemetry.metrics import Metrics

# Enough to keep every thread busy, as a stream's window does.
IN_FLIGHT_PER_CORE = 4


class Direct:
    """Photos by their bytes, several in flight, embeddings included."""

    def __init__(self, pack: Path, photos: Sequence[Path]) -> None:
        settings = Settings(model=ModelSettings(pack=str(pack), provider=Provider.CPU))
        self._photos = [path.read_bytes() for path in photos]
        self._cores = os.cpu_count() or 1
        self._runner = asyncio.Runner()
        threads = ThreadPoolExecutor(self._cores)
        self._finder = FaceFinder(
            self._runner.run(FaceEngine.load(settings)),
            PhotoReader(threads, settings.images),
            ImageDecoder(threads, settings.images),
            self._cores,
            settings.detection,
            Metrics(),
        )
        self._at = 0

    def take_turn(self, seconds: float) -> Turn:
        return self._runner.run(self._look(seconds))

    async def _look(self, seconds: float) -> Turn:
        taken: list[float] = []
        begun = time.monotonic()

        async def look() -> None:
            while (now := time.monotonic()) < begun + seconds:
                photo = PhotoSource(content=self._photos[self._at % len(self._photos)])
                self._at += 1
                await self._finder.find_faces_in_turn(photo, OptionOverrides(), with_embeddings=True, caller="bench")
                taken.append(time.monotonic() - now)

        await asyncio.gather(*(look() for _ in range(IN_FLIGHT_PER_CORE * self._cores)))
        return make_turn(taken, time.monotonic() - begun)
