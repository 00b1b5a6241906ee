"""A session outlives everything it stands on, as real processes: each photo is detected once, none is lost, no face doubled.

``KITH_TEST_SURVIVAL_PHOTOS`` and ``KITH_TEST_SURVIVAL_SEED`` change how many photos, and when what is done to the processes.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis.asyncio
from sqlalchemy import select

from deploy.local.directory import StackDirectory
from deploy.local.plan import Plan, RestartPolicy
from deploy.local.ports import StackPorts, find_free_base
from deploy.local.process import State
from deploy.local.stack import RunningStack, StackOptions, launch, plan_stack
from deploy.local.supervisor import StackState
from kith.detection.v1 import sessions_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from shared.config import DatabaseSettings, RpcSettings
from shared.db.engine import Database
from shared.db.tables_detection import detection_sessions, faces, session_photos
from shared.db.tables_shared import jobs
from shared.rpc.channel import open_channel
from tests.integration.conftest import eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album

PHOTOS = int(os.environ.get("KITH_TEST_SURVIVAL_PHOTOS", "200"))
SEED = int(os.environ.get("KITH_TEST_SURVIVAL_SEED", "11"))
KILLS = 5
FLUSHES = 2
# Longer than any of it takes: a photo takes some hundredths of a second, a process that died some seconds.
PATIENCE_S = 120 + 0.1 * PHOTOS
MEMBERS = ("detection", "detection-worker")
# Many small slices, so that much is begun and ended between two blows.
ENVIRONMENT = {
    "KITH_DETECTION_SESSION_SLICE": "32",
    "KITH_DETECTION_SESSION_BATCH": "8",
    "KITH_JOBS_LEASE_S": "3",
    "KITH_JOBS_HEARTBEAT_S": "0.5",
    "KITH_JOBS_DISPATCH_INTERVAL_S": "0.2",
    "KITH_QDRANT_TIMEOUT_S": "1",
    "KITH_RELAY_LEASE_S": "2",
}


class Ordeal:
    """A stack of the stores, one detection server and one detection worker, and what can be done to them."""

    def __init__(self, stack: RunningStack, database: Database) -> None:
        self._stack = stack
        self._database = database
        self.done: Counter[str] = Counter()

    async def suffer(self, blow: str) -> None:
        """One blow by name: ``kill detection``, ``flush redis``, ``stop qdrant``, ..."""
        verb, name = blow.split()
        if verb == "kill":
            await self.kill(name)
        elif verb == "flush":
            async with redis.asyncio.from_url(self._stack.env["KITH_REDIS_URL"]) as client:  # type: ignore[no-untyped-call]
                await client.flushall()
        else:
            (pid,) = [row.pid for row in self._state().processes if row.name == name and row.pid]
            os.kill(pid, signal.SIGSTOP if verb == "stop" else signal.SIGCONT)
        self.done[blow] += 1

    async def kill(self, name: str) -> None:
        """Kill a member once it runs, and wait until the supervisor has seen it die."""

        def running() -> int | None:
            row = next(row for row in self._state().processes if row.name == name)
            return row.pid if row.state is State.RUNNING else None

        async def runs() -> bool:
            return running() is not None

        await eventually(runs, PATIENCE_S)
        pid = running()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        async def died() -> bool:
            return running() != pid

        await eventually(died, PATIENCE_S)

    async def count_done(self) -> int:
        """Photos of the session that are done."""
        async with self._database.transaction() as tx:
            done: int = await tx.scalar(select(jobs.c.done))
            return done

    def restarts(self) -> dict[str, int]:
        """How often each member was started again."""
        return {row.name: row.restarts for row in self._state().processes if row.name in MEMBERS}

    def _state(self) -> StackState:
        return StackState.from_json(self._stack.directory.state.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens once so many photos are done."""

    at: int
    name: str


def plan_blows(seed: int, photos: int) -> list[Blow]:
    """Kills, flushes and an outage of Qdrant at random points of the first four fifths, in order."""
    draw = random.Random(seed)
    names = [f"kill {member}" for member in MEMBERS for _ in range(KILLS)] + ["flush redis"] * FLUSHES
    blows = [Blow(draw.randrange(photos * 4 // 5), name) for name in names]
    outage = [Blow(photos // 5, "stop qdrant"), Blow(photos * 7 // 10, "go-on qdrant")]
    return sorted([*blows, *outage], key=lambda blow: blow.at)


@pytest.fixture
def ordeal_stack(album: Album, tmp_path: Path) -> Iterator[RunningStack]:
    """Stores, a detection server and a detection worker as processes that are started again when they die."""
    options = StackOptions(
        directory=tmp_path / "stack",
        photos=(album.folder,),
        fsync=False,
        environ={**os.environ, **ENVIRONMENT},
        restarts=RestartPolicy(max_pause_s=1.0),
    )

    def build(directory: StackDirectory) -> Plan:
        plan = plan_stack(options, directory, StackPorts(find_free_base(options.free_ports)))
        others = {name for name in plan.addresses if name not in MEMBERS}
        others |= {f"{name}-worker" for name in others}
        return replace(plan, processes=tuple(spec for spec in plan.processes if spec.name not in others))

    with launch(options.directory, build, environ=options.environ) as stack:
        yield stack


@pytest.mark.timeout(60 + 2 * PATIENCE_S)
async def test_a_session_survives(ordeal_stack: RunningStack, album: Album, stack: AsyncExitStack) -> None:
    print(f"{PHOTOS} photos, seed {SEED}")  # noqa: T201
    channel = open_channel(ordeal_stack.addresses["detection"], RpcSettings(default_deadline_s=60))
    stack.push_async_callback(channel.close)
    settings = DatabaseSettings.model_validate({"url": ordeal_stack.env["KITH_DATABASE_URL"]})
    database = Database.connect(settings, application="survival")
    stack.push_async_callback(database.close)
    detection = DetectionClient(channel)
    names = [f"photo-{n:05d}" for n in range(PHOTOS)]
    drawings = {name: n % len(album.names) for n, name in enumerate(names)}
    for first in range(0, PHOTOS, 500):
        await detection.register({name: album.uri(drawings[name]) for name in names[first : first + 500]})
    session = await detection.create_session()

    ordeal = Ordeal(ordeal_stack, database)
    for blow in plan_blows(SEED, PHOTOS):

        async def reached(at: int = blow.at) -> bool:
            return await ordeal.count_done() >= at

        await eventually(reached, PATIENCE_S)
        print(f"{await ordeal.count_done():6d} done: {blow.name}")  # noqa: T201
        await ordeal.suffer(blow.name)

    async def ended() -> bool:
        async with database.transaction() as tx:
            return (await tx.scalar(select(jobs.c.state))) not in ("QUEUED", "RUNNING")

    await eventually(ended, PATIENCE_S)
    assert ordeal.restarts() == dict.fromkeys(MEMBERS, KILLS)
    ended_session = await detection.get_session(session.id)
    assert ended_session.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended_session.job.error
    assert ended_session.job.progress.done == ended_session.job.progress.total == PHOTOS
    assert not ended_session.job.failures
    await check_each_photo_once(database, ended_session, drawings)

    async def agreed() -> bool:
        check = await detection.check()
        return check.consistent and check.collections[0].qdrant_count == ended_session.faces_added

    await eventually(agreed, PATIENCE_S)


async def check_each_photo_once(database: Database, session: pb.DetectionSession, drawings: dict[str, int]) -> None:
    """Every photo is there with the faces of its drawing, and the session's counts are those of its photos."""
    async with database.transaction() as tx:
        photos = await tx.rows(select(session_photos))
        stored = Counter(row.asset_id for row in await tx.rows(select(faces.c.asset_id)))
        counted = await tx.one_or_none(select(detection_sessions))
    assert counted is not None
    assert {row.asset_id for row in photos} == set(drawings)
    outcomes = Counter(row.outcome for row in photos)
    assert outcomes == Counter(FACES=counted.photos_faces, NONE=counted.photos_none)
    assert Counter({row.asset_id: row.face_count for row in photos}) == stored
    assert session.faces_added == stored.total() > len(drawings)
    assert (session.faces_kept, session.faces_gone) == (0, 0)
    by_drawing: defaultdict[int, set[int]] = defaultdict(set)
    for row in photos:
        by_drawing[drawings[row.asset_id]].add(row.face_count)
    # The same drawing has the same faces each time: none of them lost, none twice.
    assert all(len(counts) == 1 for counts in by_drawing.values())
    breaks = Counter(row.breaks for row in photos)
    print(f"photos by breaks: {dict(sorted(breaks.items()))}")  # noqa: T201


async def test_blows_are_planned_as_the_seed_says() -> None:
    blows = plan_blows(SEED, PHOTOS)
    assert blows == plan_blows(SEED, PHOTOS)
    assert Counter(blow.name for blow in blows) == {
        "kill detection": KILLS,
        "kill detection-worker": KILLS,
        "flush redis": FLUSHES,
        "stop qdrant": 1,
        "go-on qdrant": 1,
    }
    assert max(blow.at for blow in blows) < PHOTOS
