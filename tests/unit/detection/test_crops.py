"""The cache of crops: bounded in bytes and time, one cut for calls at one moment, nothing kept of failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.detection.domain.cropping import Crop, CropStyle
from services.detection.domain.crops import CropCache, CropKey
from shared.config import MIB, DetectionSettings
from shared.faces.boxes import Box
from shared.imaging.crop import CropFormat
from shared.telemetry.metrics import Metrics

STYLE = CropStyle(size=256, margin=0.25, square=False, format=CropFormat.JPEG)
KEY = CropKey(UUID(int=1), "file:///a.jpg", datetime(2024, 1, 1, tzinfo=UTC), Box(1, 2, 30, 40), STYLE)


class Cutter:
    """Counts cuts; each waits for ``go``."""

    def __init__(self, size: int = 1000) -> None:
        self.cuts = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()
        self._size = size

    async def __call__(self) -> Crop:
        self.cuts += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Crop(bytes(self._size), self.cuts, 1)


class Timer:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_cache(metrics: Metrics | None = None, timer: Timer | None = None, mb: int = 1) -> CropCache:
    settings = DetectionSettings(crop_cache_mb=mb, crop_cache_ttl_s=60)
    return CropCache(settings, metrics or Metrics(), timer or Timer())


def counted(metrics: Metrics) -> dict[str, float]:
    outcomes = ("kept", "cut", "shared")
    return {each: metrics.registry.get_sample_value("kith_crops_total", {"outcome": each}) or 0 for each in outcomes}


async def test_a_crop_is_cut_once_and_again_when_its_time_is_up() -> None:
    metrics, timer, cutter = Metrics(), Timer(), Cutter()
    cache = make_cache(metrics, timer)
    first = await cache.get(KEY, cutter)
    timer.now = 59
    assert await cache.get(KEY, cutter) is first
    timer.now = 61
    assert (await cache.get(KEY, cutter)).width == 2
    assert counted(metrics) == {"kept": 1, "cut": 2, "shared": 0}


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, face_id=UUID(int=2)),
        replace(KEY, uri="file:///b.jpg"),
        replace(KEY, photo_changed=datetime(2024, 1, 2, tzinfo=UTC)),
        replace(KEY, box=Box(1, 2, 30, 41)),
        replace(KEY, style=replace(STYLE, size=128)),
        replace(KEY, style=replace(STYLE, margin=0.5)),
        replace(KEY, style=replace(STYLE, square=True)),
        replace(KEY, style=replace(STYLE, format=CropFormat.WEBP)),
    ],
)
async def test_whatever_a_crop_depends_on_tells_it_from_others(other: CropKey) -> None:
    cache, cutter = make_cache(), Cutter()
    await cache.get(KEY, cutter)
    await cache.get(other, cutter)
    assert cutter.cuts == 2


async def test_the_bytes_kept_are_bounded() -> None:
    cache, cutter = make_cache(), Cutter(MIB // 4)
    keys = [replace(KEY, face_id=UUID(int=number)) for number in range(6)]
    for key in keys:
        await cache.get(key, cutter)
    for key in reversed(keys):
        await cache.get(key, cutter)
    # Of six quarters of a MiB, with what else an entry takes, three stay.
    assert cutter.cuts == 6 + 3


@pytest.mark.parametrize(("mb", "size"), [(0, 10), (1, 2 * MIB)])
async def test_what_does_not_fit_is_not_kept(mb: int, size: int) -> None:
    cache, cutter = make_cache(mb=mb), Cutter(size)
    await cache.get(KEY, cutter)
    await cache.get(KEY, cutter)
    assert cutter.cuts == 2


async def test_calls_at_one_moment_share_one_cut() -> None:
    metrics, cutter = Metrics(), Cutter()
    cache = make_cache(metrics)
    cutter.go.clear()
    calls = [asyncio.create_task(cache.get(KEY, cutter)) for _ in range(5)]
    await asyncio.sleep(0)
    # One that is given up takes nothing from the others.
    calls[0].cancel()
    await asyncio.sleep(0)
    cutter.go.set()
    crops = await asyncio.gather(*calls[1:])
    assert cutter.cuts == 1
    assert all(crop is crops[0] for crop in crops)
    assert calls[0].cancelled()
    assert counted(metrics) == {"kept": 0, "cut": 1, "shared": 4}


async def test_a_cut_nobody_waits_for_is_given_up() -> None:
    cache, cutter = make_cache(), Cutter()
    cutter.go.clear()
    calls = [asyncio.create_task(cache.get(KEY, cutter)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert cutter.cancelled == 1
    cutter.go.set()
    assert (await cache.get(KEY, cutter)).width == 2


async def test_failures_reach_every_caller_and_are_not_kept() -> None:
    cache, cutter = make_cache(), Cutter()

    async def fail() -> Crop:
        await asyncio.sleep(0)
        raise OSError("the photo is away")

    answers = await asyncio.gather(cache.get(KEY, fail), cache.get(KEY, fail), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError, OSError]
    assert (await cache.get(KEY, cutter)).width == 1


async def test_the_crops_of_a_face_that_is_gone_are_dropped_and_none_that_is_being_cut_is_kept() -> None:
    cache = make_cache()
    other = replace(KEY, face_id=UUID(int=2))
    cutter = Cutter()
    await cache.get(KEY, cutter)
    await cache.get(other, cutter)
    cutter.go.clear()
    smaller = replace(KEY, style=replace(STYLE, size=64))
    cutting = asyncio.create_task(cache.get(smaller, cutter))
    for _ in range(3):
        await asyncio.sleep(0)
    assert cutter.cuts == 3
    assert cache.list_faces() == {KEY.face_id, other.face_id}
    assert cache.drop({KEY.face_id}) == 1
    cutter.go.set()
    await cutting
    assert cache.list_faces() == {other.face_id}
    await cache.get(other, cutter)
    assert cutter.cuts == 3
