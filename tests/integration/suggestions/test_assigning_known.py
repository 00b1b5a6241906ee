"""Assigning the faces of known people: the sure ones by a machine, the doubtful ones by asking, and nothing twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import func, select, update

from kith.persons.v1 import assignments_pb2
from kith.suggestions.v1 import discovery_pb2
from services.suggestions.adapters.faces import IndexedFaceSearch
from services.suggestions.assigning_jobs import AssignKnownHandler
from services.suggestions.domain.assigning import ASSIGN_KNOWN, AssignKnown, start_assign_known
from services.suggestions.wiring import build_deps
from shared.caller import Caller
from shared.db.tables_persons import assignments, changes
from shared.db.tables_shared import job_slices
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from shared.jobs.handing_over import MachineAssignments
from shared.jobs.machine_assignments import RemoteMachineAssignments
from shared.jobs.model import Job
from shared.jobs.repository import get_job
from shared.rpc.channel import translate_errors
from shared.vectors.faces import FaceIndex
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import People, Person, draw_people, relay_all, seed_library, wait_indexed
from tests.integration.suggestions.conftest import Questions, summarise
from tests.integration.suggestions.discovery import Nowhere, wait_job
from tests.integration.suggestions.world import PATIENT

# By the library's calibration 0.64 is .992, 0.81 is .9997.
TARGET = 0.995


async def assign_known(base: Foundation, questions: Questions, *persons: Person, **fields: Any) -> dict[str, Any]:
    """Assign, and answer the job's result."""
    await wait_indexed(base)
    request = discovery_pb2.AssignKnownFacesRequest(
        person_ids=[str(person.person_id) for person in persons], request_id=str(uuid4()), **fields
    )
    async with translate_errors("suggestions"):
        job = (await questions.discovery.AssignKnownFaces(request)).job
    return MessageToDict((await wait_job(questions, job.id)).result)


async def read_machine(base: Foundation) -> dict[UUID, UUID]:
    """Whose each face is by a machine's word."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            select(assignments.c.face_id, assignments.c.person_id).where(assignments.c.source == "MACHINE")
        )
    return {row.face_id: row.person_id for row in rows}


async def seed_two(base: Foundation, people: People) -> tuple[SeededFaces, Person, Person]:
    """Eight faces of each of two persons, who have three; the sixth of either is a doubtful one."""
    vectors = draw_people(2, 8, likeness=0.9)
    # Directions that nobody's faces have anything of.
    across = np.linalg.qr(np.concatenate([vectors, np.eye(64)[:2]]).T)[0][:, -2:].T
    for person, row in enumerate((5, 13)):
        centre = vectors[8 * person : 8 * person + 8].mean(axis=0)
        vectors[row] = 0.5 * centre / np.linalg.norm(centre) + np.sqrt(0.75) * across[person]
    faces = await seed_library(base, vectors)
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:3])
    await people.assign(bert, faces.face_ids[8:11])
    return faces, anna, bert


async def test_the_sure_are_assigned_and_the_doubtful_asked_about(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces, anna, bert = await seed_two(base, people)
    sure = {
        **{faces.face_ids[row]: anna.person_id for row in (3, 4, 6, 7)},
        **{faces.face_ids[row]: bert.person_id for row in (11, 12, 14, 15)},
    }
    result = {"persons": 2, "candidates": 10, "assigned": 8, "refused": 0, "suggested": 2}
    # A dry run says so, and does nothing.
    assert await assign_known(base, questions, dry_run=True) == result
    assert (await read_machine(base), await questions.list()) == ({}, [])
    assert await assign_known(base, questions) == result
    assert await read_machine(base) == sure
    asked = await questions.list()
    assert summarise(asked) == {faces.face_ids[5]: anna.person_id, faces.face_ids[13]: bert.person_id}
    assert all(0.5 <= each.confidence < TARGET for each in asked)
    # Nothing is left to do.
    again = await assign_known(base, questions)
    assert (again["assigned"], again["suggested"]) == (0, 0)
    async with base.database.transaction() as tx:
        made = await tx.rows(select(changes.c.reason, changes.c.actor).where(changes.c.reason.like("recognised by%")))
    assert len(made) == 2


async def test_only_those_asked_for_and_only_as_sure_as_asked_for(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces, _, bert = await seed_two(base, people)
    assert (await assign_known(base, questions, bert, target_precision=0.99999))["assigned"] == 0
    assert (await assign_known(base, questions, bert))["assigned"] == 4
    assert set((await read_machine(base)).values()) == {bert.person_id}
    assert set(summarise(await questions.list()).values()) == {bert.person_id}
    assert faces.face_ids[3] not in await read_machine(base)


async def test_what_was_refused_or_belongs_to_another_photo_stays_a_humans(
    base: Foundation, people: People, questions: Questions
) -> None:
    faces = await seed_library(base, draw_people(1, 8, likeness=0.95), faces_per_photo=2)
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    await people.exclude(anna, faces.face_ids[2])
    result = await assign_known(base, questions)
    # The second face of Anna's photo is asked about; of the two photos left, one face each.
    assert (result["assigned"], result["refused"]) == (3, 0)
    made, asked = await read_machine(base), summarise(await questions.list())
    assert faces.face_ids[3] in made
    assert {faces.face_ids[1]} < set(asked)
    assert not {faces.face_ids[2]} & {*made, *asked}
    assert len({*made, *asked}) == 6


async def test_bad_requests_are_told_by_field(people: People, questions: Questions) -> None:
    async def ask(**fields: Any) -> None:
        async with translate_errors("suggestions"):
            await questions.discovery.AssignKnownFaces(discovery_pb2.AssignKnownFacesRequest(**fields))

    for fields, name in (
        ({"target_precision": 0.89}, "target_precision"),
        ({"target_precision": 1.0}, "target_precision"),
        ({"target_precision": float("nan")}, "target_precision"),
        ({"person_ids": ["a"]}, "person_ids[0]"),
        ({"person_ids": [str(uuid4())] * 501}, "person_ids"),
    ):
        with pytest.raises(InvalidRequest) as wrong:
            await ask(**fields)
        assert [each.field for each in wrong.value.violations] == [name]
    with pytest.raises(NotFound):
        await ask(person_ids=[str(uuid4())])
    # The least there may be is no float of 32 bits.
    await ask(target_precision=0.9)


async def test_a_library_without_a_model_has_nobody_to_assign(
    base: Foundation, people: People, questions: Questions
) -> None:
    anna = await people.create("Anna")
    result = await assign_known(base, questions, anna)
    assert result == {"persons": 1, "candidates": 0, "assigned": 0, "refused": 0, "suggested": 0}


@dataclass
class Interrupted:
    """The persons service, whose answer to a call is lost, as is the worker that waited for it."""

    inner: MachineAssignments
    lost: int
    calls: list[Mapping[UUID, float]] = field(default_factory=list)

    async def assign_recognised(
        self, library_id: str, confidences: Mapping[UUID, float], person_id: UUID, reason: str, request_id: UUID
    ) -> Collection[UUID]:
        made = await self.inner.assign_recognised(library_id, confidences, person_id, reason, request_id)
        self.calls.append(confidences)
        if len(self.calls) == self.lost:
            raise Unavailable("the answer is lost")
        return made


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_worker_that_died_between_word_and_position_doubles_nothing(
    base: Foundation, people: People, stack: AsyncExitStack, lost: int
) -> None:
    _, anna, bert = await seed_two(base, people)
    # Both in one batch; the second call is of the same round.
    remote = Interrupted(RemoteMachineAssignments(people.channel), lost)
    deps = build_deps(base)
    search = IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
    handler = AssignKnownHandler(base.database, deps, search, Nowhere(), remote)
    command = AssignKnown("default", [anna.person_id, bert.person_id], TARGET, dry_run=False)
    async with base.database.transaction() as tx:
        job = await start_assign_known(tx, deps, command, Caller("test", "test"))
    await relay_all(base)
    executor = SliceExecutor({ASSIGN_KNOWN: handler}, base.database, base.clock, base.ids, PATIENT)
    await executor.run_slice(job.job_id, 0)
    broken = await read_job(base, job.job_id)
    assert (broken.done, broken.state.value) == (0, "RUNNING")
    async with base.database.transaction() as tx:
        await tx.execute(update(job_slices).where(job_slices.c.job_id == job.job_id).values(not_before=None))
    await executor.run_slice(job.job_id, 0)
    ended = await read_job(base, job.job_id)
    assert ended.state.value == "SUCCEEDED"
    assert ended.result is not None
    assert (ended.result["assigned"], ended.result["refused"], ended.result["suggested"]) == (8, 0, 2)
    assert len(await read_machine(base)) == 8
    async with base.database.transaction() as tx:
        made = await tx.scalar(select(func.count()).select_from(changes).where(changes.c.reason.like("recognised by%")))
    # One change for each person, though the calls were sent again.
    assert made == 2


async def test_who_got_a_person_or_an_exclusion_meanwhile_is_refused(
    base: Foundation, people: People, stack: AsyncExitStack
) -> None:
    faces, anna, bert = await seed_two(base, people)

    @dataclass
    class Late:
        inner: MachineAssignments

        async def assign_recognised(
            self, library_id: str, confidences: Mapping[UUID, float], person_id: UUID, reason: str, request_id: UUID
        ) -> Collection[UUID]:
            await people.assign(bert, faces.face_ids[3:4])
            await people.exclude(anna, faces.face_ids[4])
            return await self.inner.assign_recognised(library_id, confidences, person_id, reason, request_id)

    deps = build_deps(base)
    search = IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
    late = Late(RemoteMachineAssignments(people.channel))
    handler = AssignKnownHandler(base.database, deps, search, Nowhere(), late)
    command = AssignKnown("default", [anna.person_id], TARGET, dry_run=False)
    async with base.database.transaction() as tx:
        job = await start_assign_known(tx, deps, command, Caller("test", "test"))
    await relay_all(base)
    executor = SliceExecutor({ASSIGN_KNOWN: handler}, base.database, base.clock, base.ids, PATIENT)
    await executor.run_slice(job.job_id, 0)
    ended = await read_job(base, job.job_id)
    assert ended.result is not None
    assert (ended.result["assigned"], ended.result["refused"]) == (2, 2)
    request = assignments_pb2.ListExclusionsRequest(face_id=str(faces.face_ids[4]))
    assert len((await people.assignments.ListExclusions(request)).exclusions) == 1


async def read_job(base: Foundation, job_id: UUID) -> Job:
    async with base.database.transaction() as tx:
        return await get_job(tx, "default", job_id)
