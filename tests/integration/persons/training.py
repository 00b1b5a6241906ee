"""The persons server as tests of its matchers use it, and libraries with people to learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import func, insert, select

from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import matcher_pb2 as pb
from services.persons.domain.matcher import LibraryModel, MatcherReport
from services.persons.domain.model import Change, ChangeKind, PersonsDeps
from services.persons.repository.changes import record_change
from services.persons.repository.matchers import insert_matcher
from services.persons.server import start
from services.persons.worker import start as start_worker
from shared.caller import Caller
from shared.config import PersonSettings
from shared.db.tables_persons import assignments, matchers, persons
from shared.faces.projection import Projection
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.library import MODEL, seed_faces
from tests.integration.persons.client import PersonsClient, ask
from tests.unit.persons_matching.conftest import make_faces

PEOPLE = 40
EACH = 8
DIMENSION = 64
SETTINGS = PersonSettings(matcher_min_persons=PEOPLE, matcher_epochs=3)
REPORT = MatcherReport.parse(
    {
        "before": {"eer": 0.2, "tar_at_far_1e3": 0.5},
        "after": {"eer": 0.1, "tar_at_far_1e3": 0.7},
        "better": True,
        "persons": 40,
        "faces": 320,
        "tuning_persons": 10,
        "held_out_persons": 10,
        "held_out_faces": 80,
        "gain_low": 0.05,
        "eer_noise": 0.01,
        "strangers_before": {"middle": 0.1, "spread": 0.1},
        "strangers_after": {"middle": 0.0, "spread": 0.1},
        "shrinkage": None,
        "epoch": 3,
        "seconds": 1.5,
    }
)


class Kith(PersonsClient):
    """The persons server, with short words for MatcherService."""

    async def start(self, **fields: Any) -> jobs_pb2.Job:
        """Begin to train."""
        return (await ask(self.matchers.TrainMatcher(pb.TrainMatcherRequest(**fields)))).job

    async def train(self, **fields: Any) -> jobs_pb2.Job:
        """Train and wait for the end."""
        return await self.ended(await self.start(**fields))

    async def get_matcher(self, matcher_id: str = "") -> pb.Matcher:
        """A matcher, or the active one."""
        return (await ask(self.matchers.GetMatcher(pb.GetMatcherRequest(matcher_id=matcher_id)))).matcher

    async def activate(self, matcher_id: str, **fields: Any) -> pb.ActivateMatcherResponse:
        """Let a matcher be used."""
        return await ask(self.matchers.ActivateMatcher(pb.ActivateMatcherRequest(matcher_id=matcher_id, **fields)))


def result_of(job: jobs_pb2.Job) -> dict[str, Any]:
    """A job's result, plain."""
    return dict(job.result)


async def serve_kith(running: Running) -> Kith:
    """A persons server; a matcher needs 40 persons here. Without a worker nothing is learnt."""
    running.settings = running.settings.model_copy(update={"persons": SETTINGS})
    return Kith(await running.server("persons", start))


async def start_kith(running: Running) -> Kith:
    """A persons server and its worker, which learns."""
    kith = await serve_kith(running)
    await running.worker(start_worker)
    return kith


async def store_matcher(base: Foundation, library_id: str = "default") -> str:
    """A matcher as a training leaves it, not active, of a projection that changes nothing; answers its id."""
    matcher_id, job_id = base.ids.new_uuid(), base.ids.new_uuid()
    projection = Projection(np.eye(DIMENSION, dtype=np.float32))
    async with base.database.transaction() as tx:
        model = LibraryModel(MODEL, DIMENSION)
        await insert_matcher(tx, base.clock, matcher_id, library_id, model, job_id, projection, REPORT)
    return str(matcher_id)


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
    vectors, people = make_faces(PEOPLE, EACH, dimension=DIMENSION, nuisance=nuisance)
    seeded = await seed_faces(base, vectors)
    return await confirm(base, seeded.face_ids, people.tolist())


async def count_matchers(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        found: int = await tx.scalar(select(func.count()).select_from(matchers))
        return found
