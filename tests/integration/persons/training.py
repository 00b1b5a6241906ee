"""The persons server as tests of its matchers use it, and libraries with people to learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import changes_pb2_grpc
from kith.persons.v1 import matcher_pb2 as pb
from kith.persons.v1.matcher_pb2_grpc import MatcherServiceStub
from services.persons.domain.model import Change, ChangeKind, PersonsDeps
from services.persons.repository.changes import record_change
from services.persons.server import start
from services.persons.worker import start as start_worker
from shared.caller import Caller
from shared.config import PersonSettings
from shared.db.tables_persons import assignments, matchers, persons
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.library import seed_faces
from tests.unit.persons_matching.conftest import make_faces

PEOPLE = 40
EACH = 8
SETTINGS = PersonSettings(matcher_min_persons=PEOPLE, matcher_epochs=3)


class Kith:
    """The persons server by its stubs; errors come as Kith's own."""

    def __init__(self, channel: Any) -> None:
        self.matchers = MatcherServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.changes = changes_pb2_grpc.ChangeServiceStub(channel)

    async def start(self, **fields: Any) -> str:
        async with translate_errors("persons"):
            return (await self.matchers.TrainMatcher(pb.TrainMatcherRequest(**fields))).job.id

    async def train(self, **fields: Any) -> jobs_pb2.Job:
        """Train and wait for the end."""
        return await self.ended(await self.start(**fields))

    async def ended(self, job_id: str) -> jobs_pb2.Job:
        request = jobs_pb2.WaitJobRequest(job_id=job_id)
        request.timeout.FromSeconds(50)
        return (await self.jobs.WaitJob(request, timeout=55)).job

    async def get(self, matcher_id: str = "") -> pb.Matcher:
        async with translate_errors("persons"):
            return (await self.matchers.GetMatcher(pb.GetMatcherRequest(matcher_id=matcher_id))).matcher

    async def activate(self, matcher_id: str, **fields: Any) -> pb.ActivateMatcherResponse:
        async with translate_errors("persons"):
            return await self.matchers.ActivateMatcher(pb.ActivateMatcherRequest(matcher_id=matcher_id, **fields))


def result_of(job: jobs_pb2.Job) -> dict[str, Any]:
    """A job's result, plain."""
    return dict(job.result)


async def start_kith(running: Running) -> Kith:
    """A persons server and its worker; a matcher needs 40 persons here."""
    running.settings = running.settings.model_copy(update={"persons": SETTINGS})
    channel = await running.server("persons", start)
    await running.worker(start_worker)
    return Kith(channel)


async def confirm(
    base: Foundation,
    face_ids: list[UUID],
    whose: list[int],
    *,
    source: str = "HUMAN",
    library_id: str = "default",
    names: Callable[[int], str] = "Person {}".format,
) -> dict[int, UUID]:
    """Give faces to new persons, as if it had been done over a long time; answers the persons by number."""
    made = {number: base.ids.new_uuid() for number in sorted(set(whose))}
    now = base.clock.now()
    deps = PersonsDeps(base.clock, base.ids, base.settings.persons)
    async with base.database.transaction() as tx:
        change_id = await record_change(
            tx, deps, library_id, Change(ChangeKind.FACES_ASSIGNED), Caller("a human", "test")
        )
        common = {"library_id": library_id, "created_at": now, "updated_at": now}
        rows = [
            {"person_id": person_id, "name": names(number), "name_key": names(number).casefold(), **common}
            for number, person_id in made.items()
        ]
        await tx.execute(insert(persons), rows)
        held = [
            {
                "face_id": face_id,
                "library_id": library_id,
                "person_id": made[number],
                "source": source,
                "confidence": 1.0,
                "version": at,
                "change_id": change_id,
                "assigned_at": now,
            }
            for at, (face_id, number) in enumerate(zip(face_ids, whose, strict=True))
        ]
        await tx.execute(insert(assignments), held)
    return made


async def seed_confirmed(base: Foundation, *, nuisance: float = 1.6) -> dict[int, UUID]:
    """A library of 40 people whose faces a projection can tell apart better (or not, with other ``nuisance``)."""
    vectors, people = make_faces(PEOPLE, EACH, dimension=64, nuisance=nuisance)
    seeded = await seed_faces(base, vectors)
    return await confirm(base, seeded.face_ids, people.tolist())


async def count_matchers(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(matchers))
        return found
