"""Crops that were cut a moment ago, in the memory of this process and nowhere else.

Nothing is written to a disk. A crop is only asked for here once its face was found in PostgreSQL, so those of a face that is
gone are handed to nobody, and are gone for good within the time to live. Where that is not soon enough (a person is forgotten)
they are dropped: :meth:`CropCache.drop`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from services.detection.domain.cropping import Crop, CropStyle
from shared.config import MIB, DetectionSettings
from shared.faces.boxes import Box
from shared.telemetry.metrics import Metrics

# What a crop takes besides its picture: key, entry, objects. Measured: about 900 bytes.
_OVERHEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class CropKey:
    """All that a crop depends on. ``photo_changed``: when anything about its photo was written last."""

    face_id: UUID
    uri: str
    photo_changed: datetime
    box: Box
    style: CropStyle


@dataclass(slots=True, eq=False)
class _Cutting:
    """A crop being cut, how many calls wait for it, and whether its face went meanwhile."""

    task: asyncio.Task[Crop]
    waiting: int = 0
    dropped: bool = False


class CropCache:
    """Bounded in bytes and in time; calls for one crop at one moment cut it once."""

    def __init__(
        self, settings: DetectionSettings, metrics: Metrics, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """``settings.crop_cache_mb`` 0 keeps nothing, and still cuts once for calls at one moment."""
        self._kept: TTLCache[CropKey, Crop] = TTLCache(
            settings.crop_cache_mb * MIB, settings.crop_cache_ttl_s, timer, getsizeof=_size
        )
        self._cutting: dict[CropKey, _Cutting] = {}
        self._metrics = metrics

    async def get(self, key: CropKey, cut: Callable[[], Awaitable[Crop]]) -> Crop:
        """The crop of ``key``: kept, being cut for somebody else, or cut now. Raises what ``cut`` raises, and keeps no failure.

        Cutting is given up when the last call that waits for it is.
        """
        kept = self._kept.get(key)
        if kept is not None:
            self._metrics.crops.labels("kept").inc()
            return kept
        cutting = self._cutting.get(key)
        if cutting is None:
            self._metrics.crops.labels("cut").inc()
            cutting = self._cutting[key] = _Cutting(asyncio.create_task(self._cut(key, cut), name="crop"))
        else:
            self._metrics.crops.labels("shared").inc()
        cutting.waiting += 1
        try:
            return await asyncio.shield(cutting.task)
        finally:
            cutting.waiting -= 1
            if not cutting.waiting:
                self._forget(key, cutting)

    def list_faces(self) -> set[UUID]:
        """The faces of which a crop is kept or being cut."""
        self._kept.expire()
        return {key.face_id for key in (*self._kept, *self._cutting)}

    def drop(self, face_ids: Collection[UUID]) -> int:
        """Forget every crop of these faces, and keep none that is being cut; answers how many were kept."""
        gone = [key for key in self._kept if key.face_id in face_ids]
        for key in gone:
            del self._kept[key]
        for key, cutting in self._cutting.items():
            cutting.dropped = cutting.dropped or key.face_id in face_ids
        return len(gone)

    async def _cut(self, key: CropKey, cut: Callable[[], Awaitable[Crop]]) -> Crop:
        crop = await cut()
        cutting = self._cutting.get(key)
        if _size(crop) <= self._kept.maxsize and not (cutting is not None and cutting.dropped):
            self._kept[key] = crop
        return crop

    def _forget(self, key: CropKey, cutting: _Cutting) -> None:
        # Only now, so that a call that comes between the end of the work and its last waiter does no second work.
        if self._cutting.get(key) is cutting:
            del self._cutting[key]
        cutting.task.cancel()


def _size(crop: Crop) -> int:
    return len(crop.content) + _OVERHEAD_BYTES
