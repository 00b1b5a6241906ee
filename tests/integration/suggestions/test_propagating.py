"""Asking about the faces most like given ones of a person: what chosen prototypes would not find, by the same rules."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import update

from kith.jobs.v1 import jobs_pb2
from kith.suggestions.v1 import discovery_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.domain.propagating import PropagateLabel, start_propagate
from services.suggestions.wiring import build_deps
from shared.caller import Caller
from shared.db.tables_detection import assets
from shared.db.tables_persons import prototypes
from shared.errors import InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.suggestions.album import People, Person, draw_people, seed_library, wait_indexed
from tests.integration.suggestions.conftest import Questions, summarise
from tests.integration.suggestions.discovery import run_slice, wait_job


async def propagate(base: Foundation, questions: Questions, person: Person, *face_ids: UUID) -> jobs_pb2.Job:
    await wait_indexed(base)
    request = discovery_pb2.PropagateLabelRequest(
        person_id=str(person.person_id), face_ids=[str(face_id) for face_id in face_ids], request_id=str(uuid4())
    )
    async with translate_errors("suggestions"):
        job = (await questions.discovery.PropagateLabel(request)).job
    return await wait_job(questions, job.id)


async def test_a_look_nobody_knew_the_person_by_leads_to_others_like_it(
    base: Foundation, people: People, questions: Questions
) -> None:
    # Two looks of one person that have nothing in common: the second is no prototype.
    faces = await seed_library(base, draw_people(3, 4))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, [*faces.face_ids[:2], faces.face_ids[4]])
    await people.assign(bert, faces.face_ids[8:9])
    async with base.database.transaction() as tx:
        await tx.execute(prototypes.delete().where(prototypes.c.face_id == faces.face_ids[4]))
    await questions.find_more(anna)
    assert set(summarise(await questions.list())) == set(faces.face_ids[2:4])
    job = await propagate(base, questions, anna, faces.face_ids[4])
    asked = await questions.list(person_id=str(anna.person_id))
    assert set(summarise(asked)) == {*faces.face_ids[2:4], *faces.face_ids[5:8]}
    assert MessageToDict(job.result)["created"] == 3
    assert (job.progress.done, job.progress.total) == (1, 1)
    new = [each for each in asked if UUID(each.face_id) in faces.face_ids[5:8]]
    assert {each.method for each in new} == {pb.SUGGESTION_METHOD_PROPAGATION}
    assert {each.evidence.exemplars[0].face_id for each in new} == {str(faces.face_ids[4])}
    again = await propagate(base, questions, anna, faces.face_ids[4])
    assert MessageToDict(again.result)["created"] == 0


async def test_a_face_more_like_another_person_or_refused_is_not_asked_about(
    base: Foundation, people: People, questions: Questions
) -> None:
    vectors = draw_people(2, 6)
    between = 0.6 * vectors[0] + 0.8 * vectors[6]
    vectors[5] = between / np.linalg.norm(between)
    faces = await seed_library(base, vectors)
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:1])
    await people.assign(bert, faces.face_ids[6:7])
    await people.exclude(anna, faces.face_ids[1])
    await propagate(base, questions, anna, faces.face_ids[0])
    (first, *_) = found = await questions.list()
    assert set(summarise(found)) == set(faces.face_ids[2:5])
    await questions.reject(first.id)
    for _ in range(2):
        await propagate(base, questions, anna, faces.face_ids[0])
        assert set(summarise(await questions.list())) == set(faces.face_ids[2:5]) - {UUID(first.face_id)}


async def test_near_duplicates_are_one_question(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    async with base.database.transaction() as tx:
        await tx.execute(
            update(assets)
            .where(assets.c.asset_id.in_([faces.asset_ids[2], faces.asset_ids[3]]))
            .values(captured_at=datetime(2021, 1, 1, tzinfo=UTC), difference_hash=7)
        )
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    job = await propagate(base, questions, anna, faces.face_ids[0])
    assert MessageToDict(job.result) == {"candidates": 3, "created": 2}


async def test_faces_that_went_meanwhile_are_left_out(base: Foundation, people: People, stack: AsyncExitStack) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    anna = await people.create("Anna")
    await people.assign(anna, faces.face_ids[:1])
    command = PropagateLabel("default", anna.person_id, faces.face_ids[:1])
    async with base.database.transaction() as tx:
        job = await start_propagate(tx, build_deps(base), command, Caller("test", "test"))
    await people.unassign(faces.face_ids[0])
    ended = await run_slice(base, stack, job)
    assert (ended.result, ended.done, ended.skipped) == ({"candidates": 0, "created": 0}, 1, 1)


async def test_only_faces_of_the_person_are_taken(base: Foundation, people: People, questions: Questions) -> None:
    faces = await seed_library(base, draw_people(1, 4))
    anna, bert = await people.create("Anna"), await people.create("Bert")
    await people.assign(anna, faces.face_ids[:1])
    await people.assign(bert, faces.face_ids[1:2])

    async def ask(**fields: Any) -> None:
        async with translate_errors("suggestions"):
            await questions.discovery.PropagateLabel(discovery_pb2.PropagateLabelRequest(**fields))

    own = str(faces.face_ids[0])
    for stranger in faces.face_ids[1:3]:
        with pytest.raises(PreconditionFailed) as refused:
            await ask(person_id=str(anna.person_id), face_ids=[own, str(stranger)])
        assert refused.value.reason is Reason.FACE_NOT_ASSIGNED
        assert refused.value.metadata["face_id"] == str(stranger)
    with pytest.raises(NotFound):
        await ask(person_id=str(anna.person_id), face_ids=[str(uuid4())])
    with pytest.raises(NotFound):
        await ask(person_id=str(uuid4()), face_ids=[own])
    for fields, name in (
        ({"person_id": str(anna.person_id)}, "face_ids"),
        ({"person_id": str(anna.person_id), "face_ids": [own] * 101}, "face_ids"),
        ({"person_id": str(anna.person_id), "face_ids": ["a"]}, "face_ids[0]"),
        ({"face_ids": [own]}, "person_id"),
    ):
        with pytest.raises(InvalidRequest) as wrong:
            await ask(**fields)
        assert [each.field for each in wrong.value.violations] == [name]
