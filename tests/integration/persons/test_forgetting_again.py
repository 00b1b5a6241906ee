"""ForgetPerson sent again, after its end and after it was cancelled, and calls about the forgotten sent again."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2 as pb
from services.persons.domain.forgetting import FORGET_PERSON
from services.persons.repository.receipts import find_receipts
from shared.db.tables_persons import changes, receipts
from shared.db.tables_shared import jobs
from shared.errors import EtagMismatch, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.library import random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import World, make_handlers, working
from tests.integration.persons.forgotten import assert_nothing_left, find_in_tables, stores_of


async def test_a_retry_does_not_make_the_person_again(client: PersonsClient, base: Foundation) -> None:
    request = pb.CreatePersonRequest(person=pb.Person(name="Anna"), request_id=str(uuid4()))
    anna = (await client.people.CreatePerson(request)).person
    assert (await client.people.CreatePerson(request)).person.id == anna.id
    async with working(base, make_handlers(base)):
        stores_of(await client.ended(await client.forget(anna.id, anna.etag)))
    with pytest.raises(NotFound) as refused:
        async with translate_errors("persons"):
            await client.people.CreatePerson(request)
    assert refused.value.metadata["resource"] == "person"
    assert await find_in_tables(base, "Anna") == {}
    assert await find_in_tables(base, anna.id) == {"receipts": 1, "changes": 1}


async def test_a_second_call_is_answered_as_the_first(client: PersonsClient, base: Foundation) -> None:
    anna, eve = [await client.create(name) for name in ("Anna", "Eve")]
    await client.merge(anna, eve)
    for wrong, refusal in (("", PreconditionFailed), ("7777", EtagMismatch)):
        with pytest.raises(refusal):
            await client.forget(anna, wrong)
    with pytest.raises(PreconditionFailed) as refused:
        await client.forget(eve, await client.etag(eve))
    assert refused.value.metadata["merged_into"] == anna
    with pytest.raises(NotFound):
        await client.get_receipt(anna)
    etag = await client.etag(anna)
    twins = await asyncio.gather(*(client.forget(anna, etag) for _ in range(4)))
    assert len({job.id for job in twins}) == 1
    assert not (await client.get_receipt(anna)).HasField("complete_time")
    async with base.database.transaction() as tx:
        assert set(await find_receipts(tx, [UUID(anna), UUID(eve), uuid4()])) == {UUID(anna), UUID(eve)}
    seeded = await seed_faces(base, random_vectors(1))
    with pytest.raises(PreconditionFailed) as inactive:
        await client.assign(seeded.face_ids[0], anna)
    assert inactive.value.reason is Reason.PERSON_NOT_ACTIVE
    async with working(base, make_handlers(base)):
        first = await client.ended(twins[0])
    stores_of(first)
    # Nobody is there any more, and the answer is the same: also for whoever had become part of her.
    for person in (anna, eve):
        again = await client.forget(person, "stale", delete_faces=True)
        assert (again.id, again.result) == (first.id, first.result)
    async with base.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).where(changes.c.kind == "PERSON_FORGOTTEN")) == 1
        assert await tx.scalar(select(func.count()).where(jobs.c.kind == FORGET_PERSON)) == 1
    with pytest.raises(NotFound):
        await client.forget(str(uuid4()), "1")


async def test_a_job_that_was_cancelled_is_gone_on_with(client: PersonsClient, world: World, base: Foundation) -> None:
    first = await client.forget(world.her, await client.etag(world.her), delete_faces=True)
    await client.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=first.id))
    twins = await asyncio.gather(*(client.forget(world.part) for _ in range(3)))
    (second,) = {job.id for job in twins}
    assert second != first.id
    async with working(base, make_handlers(base)):
        stores_of(await client.ended(twins[0]))
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(receipts.c.job_id, receipts.c.delete_faces))
    assert {(str(row.job_id), row.delete_faces) for row in rows} == {(second, True)}
    await assert_nothing_left(base, world)
