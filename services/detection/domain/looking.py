"""Looking at one photo: read, decode upright, find the faces. Stateless; shared by every call and stream of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from services.detection.domain.holding import ByteRoom
from services.detection.domain.model import OptionOverrides
from services.detection.inference.batcher import Turn
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import DetectedFace, DetectOptions, GivenFace
from shared.config import MIB, DetectionSettings
from shared.errors import FieldViolation, InvalidRequest
from shared.imaging.decode import DecodedImage, ImageDecoder
from shared.imaging.source import PhotoReader, PhotoSource
from shared.telemetry.metrics import Metrics

# Enough to hide the latency of a remote store.
_READS_PER_DECODER = 8

Value = TypeVar("Value", bool, int, float)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A photo and the faces on it, best first by confidence."""

    image: DecodedImage
    faces: list[DetectedFace]


_Work = Callable[[DecodedImage, Turn], Awaitable[list[DetectedFace]]]


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
        # So many photos are decoded at once, and no more than a few times as many are read ahead: encoded they are small, but
        # some are not.
        self._threads = asyncio.Semaphore(decoders)
        self._read_ahead = asyncio.Semaphore(_READS_PER_DECODER * decoders)
        self._room = ByteRoom(settings.max_waiting_mb * MIB)
        self._settings = settings
        self._metrics = metrics
        metrics.detector_held_bytes.set_function(lambda: self._room.held)

    async def read_photo(self, source: PhotoSource) -> DecodedImage:
        """The upright photo. Raises :class:`ImageUnreadable` or :class:`InvalidRequest` naming what is wrong with it."""
        async with self._reading(source) as data, self._threads:
            return await self._decode(data)

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
        work = self._finding(overrides, with_embeddings)
        return await self._look(source, work, Turn(caller, patience_s))

    async def find_faces_in_turn(
        self, source: PhotoSource, overrides: OptionOverrides, *, with_embeddings: bool, caller: str
    ) -> Sight:
        """As :meth:`find_faces`, but a full queue makes it wait instead of fail: for streams, which slow down by it."""
        return await self._look(source, self._finding(overrides, with_embeddings), Turn(caller, waits=True))

    async def measure_given(
        self,
        source: PhotoSource,
        given: Sequence[GivenFace],
        *,
        caller: str,
        patience_s: float | None,
        with_embeddings: bool = True,
    ) -> Sight:
        """Measure and embed faces whose boxes are known, in the order given; nothing else is looked for.

        Raises as :meth:`find_faces`, and :class:`InvalidRequest` for a box whose centre lies outside the photo.
        """
        return await self._look(source, self._measuring(given, with_embeddings), Turn(caller, patience_s))

    async def measure_given_in_turn(
        self, source: PhotoSource, given: Sequence[GivenFace], *, with_embeddings: bool, caller: str
    ) -> Sight:
        """As :meth:`measure_given`, but a full queue makes it wait instead of fail."""
        return await self._look(source, self._measuring(given, with_embeddings), Turn(caller, waits=True))

    async def _look(self, source: PhotoSource, work: _Work, turn: Turn) -> Sight:
        image, held = await self._hold_photo(source)
        try:
            with self._timed("detect"):
                faces = await work(image, turn)
        finally:
            self._room.give_back(held)
        self._metrics.faces.inc(len(faces))
        return Sight(image, faces)

    async def _hold_photo(self, source: PhotoSource) -> tuple[DecodedImage, int]:
        """The upright photo, and how many bytes it takes of the room for those that wait for inference."""
        async with self._reading(source) as data, self._threads:
            image = await self._decode(data)
            # Here, so that no more photos are decoded than there are threads while there is no room.
            return image, await self._room.take(image.pixels.nbytes)

    @asynccontextmanager
    async def _reading(self, source: PhotoSource) -> AsyncIterator[bytes]:
        """The bytes of a photo, in one of the places for what is read ahead; what came with the call is in memory anyhow."""
        async with self._read_ahead if source.uri is not None else nullcontext():
            with self._timed("read"):
                data = await self._reader.read(source)
            yield data

    async def _decode(self, data: bytes) -> DecodedImage:
        with self._timed("decode"):
            return await self._decoder.decode(data)

    def _finding(self, overrides: OptionOverrides, with_embeddings: bool) -> _Work:
        options = self._options(overrides, with_embeddings)

        async def find(image: DecodedImage, turn: Turn) -> list[DetectedFace]:
            return await self._engine.detect(image, options, turn)

        return find

    def _measuring(self, given: Sequence[GivenFace], with_embeddings: bool) -> _Work:
        async def measure(image: DecodedImage, turn: Turn) -> list[DetectedFace]:
            _refuse_outside(given, image)
            floor = self._settings.min_confidence
            return await self._engine.measure(image, given, turn, min_confidence=floor, with_embeddings=with_embeddings)

        return measure

    def _options(self, overrides: OptionOverrides, with_embeddings: bool) -> DetectOptions:
        usual = self._settings
        return DetectOptions(
            min_confidence=_given(overrides.min_confidence, usual.min_confidence),
            min_face_px=_given(overrides.min_face_px, usual.min_face_px),
            min_quality=_given(overrides.min_quality, usual.min_quality),
            max_faces=_given(overrides.max_faces, usual.max_faces),
            with_embeddings=with_embeddings,
            second_pass=_given(overrides.second_pass, usual.second_pass),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.detector_seconds.labels(stage).observe(time.perf_counter() - began)


def _refuse_outside(given: Sequence[GivenFace], image: DecodedImage) -> None:
    # A detector's box may reach beyond the photo's edge, so of a given one only the centre must lie on the photo.
    violations = [
        FieldViolation(
            f"given_faces[{index}].box",
            f"the centre of given_faces[{index}].box lies outside the photo of {image.width} x {image.height} pixels",
        )
        for index, face in enumerate(given)
        if not (0 <= face.box.x + face.box.width / 2 < image.width)
        or not (0 <= face.box.y + face.box.height / 2 < image.height)
    ]
    if violations:
        raise InvalidRequest(violations[0].description, violations=violations)


def _given(value: Value | None, usual: Value) -> Value:
    return usual if value is None else value
