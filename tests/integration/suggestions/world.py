"""People who are merged, parted and deleted row by row, as the persons service would, and the jobs that follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select, update

from services.suggestions.domain.model import Evidence, ExemplarMatch, Question, SuggestionMethod
from services.suggestions.repository.questions import store_questions
from services.suggestions.wiring import build_deps, build_handlers
from shared.config import JobSettings
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.db.tables_shared import jobs
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS, FOLLOW_PEOPLE, PairToAsk, ask_pairs_later, follow_people_later
from shared.jobs.execution import SliceExecutor
from shared.jobs.model import Job
from shared.jobs.repository import get_job
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import People, Person

# So long that no heartbeat falls into a count.
PATIENT = JobSettings(lease_s=600, heartbeat_s=200)


@dataclass
class World:
    """Three persons and some faces."""

    base: Foundation
    stack: AsyncExitStack
    faces: SeededFaces
    anna: Person
    bert: Person
    cleo: Person

    async def merge(self, part: Person, whole: Person) -> None:
        """``part`` becomes part of ``whole``: faces, prototypes and exclusions move."""
        async with self.base.database.transaction() as tx:
            values = {"status": "MERGED", "merged_into": whole.person_id}
            await tx.execute(update(persons).where(persons.c.person_id == part.person_id).values(**values))
            for table in (assignments, exclusions, prototypes):
                moved = update(table).where(table.c.person_id == part.person_id)
                await tx.execute(moved.values(person_id=whole.person_id))

    async def part(self, part: Person, faces: Sequence[int] = ()) -> None:
        """``part`` is somebody of their own again, with these faces."""
        face_ids = [self.faces.face_ids[row] for row in faces]
        async with self.base.database.transaction() as tx:
            values = {"status": "ACTIVE", "merged_into": None}
            await tx.execute(update(persons).where(persons.c.person_id == part.person_id).values(**values))
            for table in (assignments, prototypes):
                moved = update(table).where(table.c.face_id.in_(face_ids))
                await tx.execute(moved.values(person_id=part.person_id))

    async def delete(self, person: Person, *, deleted: bool = True) -> None:
        """Soft delete, or its undoing."""
        async with self.base.database.transaction() as tx:
            at = self.base.clock.now() if deleted else None
            await tx.execute(update(persons).where(persons.c.person_id == person.person_id).values(deleted_at=at))

    async def later(self, *people: Person) -> UUID:
        """Leave the job, and answer its id."""
        base = self.base
        async with base.database.transaction() as tx:
            ids = [person.person_id for person in people]
            await follow_people_later(tx, base.ids, base.clock, "default", ids, "tester")
        return await self._newest(FOLLOW_PEOPLE)

    async def follow(self, *people: Person) -> tuple[int, int, int]:
        """Leave the job and run it: how many questions moved, were opened, expired."""
        return counts(await self.run(await self.later(*people)))

    async def ask_pairs(self, *pairs: tuple[int, Person, float]) -> Job:
        """Leave the job and run it."""
        base = self.base
        given = [PairToAsk(self.faces.face_ids[row], person.person_id, sure) for row, person, sure in pairs]
        async with base.database.transaction() as tx:
            await ask_pairs_later(tx, base.ids, base.clock, "default", given, "tester")
        return await self.run(await self._newest(ASK_PAIRS))

    async def run(self, job_id: UUID) -> Job:
        """Run the one slice of a job."""
        handlers = build_handlers(self.base, self.stack)
        executor = SliceExecutor(handlers, self.base.database, self.base.clock, self.base.ids, PATIENT)
        await executor.run_slice(job_id, 0)
        async with self.base.database.transaction() as tx:
            return await get_job(tx, "default", job_id)

    async def ask_resting_on(self, row: int, person: Person, exemplars: Sequence[int]) -> None:
        """Ask about a face that looks like these faces of the person."""
        shown = tuple(ExemplarMatch(self.faces.face_ids[each], 0.6) for each in exemplars)
        evidence = Evidence(0.6, None, None, len(shown), shown, 0.8, None)
        face_id, asset_id = self.faces.face_ids[row], self.faces.asset_ids[row]
        question = Question(face_id, asset_id, person.person_id, 0.9, evidence)
        async with self.base.database.transaction() as tx:
            await store_questions(
                tx, build_deps(self.base), "default", uuid4(), SuggestionMethod.PROTOTYPES, [question]
            )

    async def standing(self) -> dict[tuple[int, str], str]:
        """State of every question by face number and person's name."""
        rows_of = {face_id: row for row, face_id in enumerate(self.faces.face_ids)}
        names = {person.person_id: person.name for person in (self.anna, self.bert, self.cleo)}
        async with self.base.database.transaction() as tx:
            rows = await tx.rows(select(suggestions.c.face_id, suggestions.c.person_id, suggestions.c.state))
        return {(rows_of[row.face_id], names[row.person_id]): row.state for row in rows}

    async def _newest(self, kind: str) -> UUID:
        async with self.base.database.transaction() as tx:
            found: UUID = await tx.scalar(
                select(jobs.c.job_id).where(jobs.c.kind == kind).order_by(jobs.c.job_id.desc()).limit(1)
            )
        return found


async def make_world(base: Foundation, people: People, stack: AsyncExitStack, faces: SeededFaces) -> World:
    """Anna, Bert and Cleo, who have no faces yet."""
    return World(base, stack, faces, *[await people.create(name) for name in ("Anna", "Bert", "Cleo")])


def counts(job: Job) -> tuple[int, int, int]:
    """What a job of following came to: moved, opened, expired."""
    assert job.state.value == "SUCCEEDED", job
    assert job.result is not None
    return job.result["moved"], job.result["opened"], job.result["expired"]
