"""Looking at one photo: read, decode upright, find the faces. Stateless; shared by every call and stream of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from services.detection.domain.model import OptionOverrides
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions
from shared.config import DetectionSettings
from shared.errors import Overloaded
from shared.imaging.decode import DecodedImage, ImageDecoder
from shared.imaging.source import PhotoReader, PhotoSource
from shared.telemetry.metrics import Metrics

# Before a full queue is asked again, if it does not say when.
_RETRY_S = 0.1


Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A photo and the faces on it, best first by confidence."""

    image: DecodedImage
    faces: list[DetectedFace]


class FaceFinder:
    """Photo in, faces out."""

    def __init__(
        self,
        engine: FaceEngine,
        reader: PhotoReader,
        decoder: ImageDecoder,
        decoders: int,
        settings: DetectionSettings,
        metrics: Metrics,
    ) -> None:
        """``decoders`` is how many photos ``decoder`` can decode at once."""
        self._engine = engine
        self._reader = reader
        self._decoder = decoder
        # The decoder's time limit is for decoding: a photo must not use it up waiting for a thread.
        self._threads = asyncio.Semaphore(decoders)
        self._settings = settings
        self._metrics = metrics

    async def read_photo(self, source: PhotoSource) -> DecodedImage:
        """The upright photo. Raises :class:`ImageUnreadable` or :class:`InvalidRequest` naming what is wrong with it."""
        with self._timed("read"):
            data = await self._reader.read(source)
        async with self._threads:
            with self._timed("decode"):
                return await self._decoder.decode(data)

    async def find_faces(
        self,
        source: PhotoSource,
        overrides: OptionOverrides,
        *,
        with_embeddings: bool,
        caller: str,
        patience_s: float | None,
    ) -> Sight:
        """Faces of a photo. ``caller`` is its lane in the queue for inference.

        Raises as :meth:`read_photo`, and :class:`Overloaded` if the queue is full or longer than ``patience_s``.
        """
        image = await self.read_photo(source)
        return await self._infer(image, self._options(overrides, with_embeddings), caller, patience_s)

    async def find_faces_in_turn(
        self, source: PhotoSource, overrides: OptionOverrides, *, with_embeddings: bool, caller: str
    ) -> Sight:
        """As :meth:`find_faces`, but a full queue makes it wait instead of fail: for streams, which slow down by it."""
        image = await self.read_photo(source)
        options = self._options(overrides, with_embeddings)
        while True:
            try:
                return await self._infer(image, options, caller, None)
            except Overloaded as refusal:
                await asyncio.sleep(refusal.retry_after_s or _RETRY_S)

    async def _infer(self, image: DecodedImage, options: DetectOptions, caller: str, patience_s: float | None) -> Sight:
        with self._timed("detect"):
            faces = await self._engine.detect(image, options, caller=caller, patience_s=patience_s)
        self._metrics.faces.inc(len(faces))
        self._metrics.detector_queue.set(self._engine.state().waiting)
        return Sight(image, faces)

    def _options(self, overrides: OptionOverrides, with_embeddings: bool) -> DetectOptions:
        usual = self._settings
        return DetectOptions(
            min_confidence=_given(overrides.min_confidence, usual.min_confidence),
            min_face_px=_given(overrides.min_face_px, usual.min_face_px),
            min_quality=_given(overrides.min_quality, usual.min_quality),
            max_faces=_given(overrides.max_faces, usual.max_faces),
            with_embeddings=with_embeddings,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.detector_seconds.labels(stage).observe(time.perf_counter() - began)


def _given(value: Number | None, usual: Number) -> Number:
    return usual if value is None else value
