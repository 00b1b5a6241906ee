"""Photos that kill the detector: they are found out and fail, and no photo next to them does."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import UUID

from sqlalchemy import select, update

from kith.detection.v1 import sessions_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from services.detection.domain.breaking import TRIALS, note_break
from services.detection.domain.model import DetectionDeps, OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from services.detection.domain.ports import DetectorBroke, PhotoLooker
from services.detection.worker import start as start_worker
from shared.config import Settings
from shared.db.tables_detection import assets, session_photos
from shared.db.tables_shared import job_slices
from shared.foundation import Foundation
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.crashing import DEADLY, serve
from tests.integration.detection.handlers import build_executor, open_looker
from tests.integration.detection.test_interruptions import check_stored_once, environment
from tests.integration.waiting import somebody_waits

PHOTOS = 24


class CrashingServer:
    """A real detection server process that dies of deadly photos and is started again each time.

    Each is forked from a process that has imported everything: starting again takes moments.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings.model_copy(
            update={"services": settings.services.model_copy(update={"detection": f"127.0.0.1:{port}"})}
        )
        self._env = {**environment(settings), "KITH_RPC_PORT": str(port)}
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload([serve.__module__])
        self.deaths: Counter[int] = Counter()

    async def keep(self) -> None:
        """Run until cancelled."""
        while True:
            process = self._forks.Process(target=serve, args=(self._env,), daemon=True)
            process.start()
            try:
                await _wait_ended(process)
                self.deaths[process.exitcode or 0] += 1
            finally:
                process.kill()
                process.join()


class BreakingLooker:
    """A real looker whose detector is killed: in each stream, as long as there are ``kills``, after so many answers.

    What it had in hand then is the photos that come next, as many as the stream allows.
    """

    def __init__(self, inner: PhotoLooker, kills: Sequence[int], window: int = 10) -> None:
        self._inner = inner
        self._kills = iter(kills)
        self._window = window

    async def describe_pack(self, library_id: str) -> PackDescription:
        return await self._inner.describe_pack(library_id)

    async def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides, *, alone: bool = False
    ) -> AsyncGenerator[PhotoLook, None]:
        answering = photos[: next(self._kills, None)]
        async with aclosing(self._inner.look_at(library_id, answering, options, alone=alone)) as looks:
            async for look in looks:
                yield look
        in_hand = [photo.asset_id for photo in photos[len(answering) :]][: 1 if alone else self._window]
        if in_hand:
            raise DetectorBroke(in_hand)


async def _wait_ended(process: BaseProcess) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def read_breaks(base: Foundation) -> dict[str, int]:
    """How often a detector broke off at each photo, as counted, without those at which none did."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(session_photos).where(session_photos.c.breaks > 0))
    return {row.asset_id: row.breaks for row in rows}


async def test_a_photo_that_kills_the_detector_fails_and_the_others_are_found(
    detection: DetectionClient,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    tmp_path: Path,
    unused_tcp_port: int,
) -> None:
    deadly = tmp_path / "deadly.jpg"
    deadly.write_bytes(album.path(1).read_bytes() + DEADLY)
    await detection.register({f"photo-{n:02d}": album.uri(n) for n in range(PHOTOS)})
    await detection.register({"photo-05-deadly": deadly.as_uri()})
    crashing = CrashingServer(running.settings, unused_tcp_port)
    keeping = asyncio.create_task(crashing.keep())
    try:
        worker = await start_worker(crashing.settings, stack)
        session = await detection.wait_session((await detection.create_session()).id)
        await worker.drain()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    assert session.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [failure.id for failure in session.job.failures] == ["photo-05-deadly"]
    failed = await detection.outcomes(session.id, pb.PHOTO_OUTCOME_FAILED)
    assert failed["photo-05-deadly"].failure.reason == "DETECTOR_CRASHED"
    assert failed["photo-05-deadly"].failure.message == session.job.failures[0].message
    breaks = await read_breaks(base)
    assert breaks.pop("photo-05-deadly") == 1 + TRIALS
    # Those in hand with it were suspected, and cleared by the first look at them alone.
    assert set(breaks.values()) == {1}
    assert crashing.deaths == {-signal.SIGABRT: 1 + TRIALS}
    await running.worker(start_worker)
    await check_stored_once(detection, base, session.id)


async def test_a_detector_that_is_killed_again_and_again_condemns_nobody(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await detection.register({f"photo-{n:02d}": album.uri(n) for n in range(PHOTOS)})
    session = await detection.create_session()
    # Two kills with many in hand make suspects of 20 photos; three more hit trials.
    looker = BreakingLooker(open_looker(base, stack, running.settings.services.detection), [2] * 5)
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    ended = await detection.get_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert (ended.photos_failed, ended.photos_pending) == (0, 0)
    # Each kill on trial hit another photo, as a photo that was hit goes to the end.
    assert sorted(Counter((await read_breaks(base)).values()).items()) == [(1, 17), (2, 3)]
    await running.worker(start_worker)
    await check_stored_once(detection, base, session.id)


async def test_trials_are_counted_across_workers_and_burn_no_attempts(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> None:
    await detection.register({f"photo-{n:02d}": album.uri(n) for n in range(4)})
    session = await detection.create_session()
    # What earlier workers have seen: one photo before its last trial, and a slice begun as often as allowed.
    async with base.database.transaction() as tx:
        photo = session_photos.c.asset_id == "photo-02"
        await tx.execute(update(session_photos).where(photo).values(breaks=TRIALS))
        await tx.execute(update(job_slices).values(attempts=base.settings.jobs.max_attempts - 1))
    looker = BreakingLooker(open_looker(base, stack, running.settings.services.detection), [3, 0])
    await build_executor(base, looker).run_slice(UUID(session.job.id), 0)
    ended = await detection.get_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [(failure.id, failure.reason) for failure in ended.job.failures] == [("photo-02", "DETECTOR_CRASHED")]
    assert (ended.photos_failed, ended.photos_pending) == (1, 0)


async def test_a_break_is_noted_in_the_order_in_which_looks_are_stored(
    detection: DetectionClient, base: Foundation, album: Album
) -> None:
    await detection.register({"photo": album.uri(0)})
    session_id = UUID((await detection.create_session()).id)
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)

    async def note() -> None:
        async with base.database.transaction() as tx:
            await note_break(tx, deps, "default", session_id, ["photo"], alone=False)

    async with base.database.transaction() as tx:
        await tx.execute(select(assets.c.asset_id).with_for_update())
        noting = asyncio.create_task(note())
        await eventually(lambda: somebody_waits(base))
        # If the session's row were held already, one of the two would be killed here.
        await tx.execute(select(session_photos.c.asset_id).with_for_update())
    await noting
    assert await read_breaks(base) == {"photo": 1}
