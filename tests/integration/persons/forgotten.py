"""Looking whether anything is left of a person: for tests of forgetting them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from google.protobuf import json_format
from sqlalchemy import func, select, text

from kith.jobs.v1 import jobs_pb2
from shared.db.tables_persons import changes
from shared.db.tables_shared import job_slices
from shared.foundation import Foundation
from tests.integration.detection.known import relay
from tests.integration.persons.client import PersonsClient
from tests.integration.persons.forgetting import World, make_world


async def index_world(client: PersonsClient, base: Foundation) -> World:
    """Make a world and bring it to Qdrant; there is something to find in both stores then."""
    made = await make_world(base, client)
    await relay(base)
    assert len(await find_in_qdrant(base, made.ids)) > 10
    for trace in (*made.traces(), *made.ids):
        assert len(await find_in_tables(base, trace)) >= 2, trace
    return made


async def find_in_tables(base: Foundation, needle: str) -> dict[str, int]:
    """In how many rows of each table a text is, case aside, as such or in bytes."""
    found = {}
    async with base.database.transaction() as tx:
        tables = await tx.rows(
            text(
                "SELECT table_name FROM information_schema.tables "
                "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'"
            )
        )
        words = {needle.lower(), json.dumps(needle, ensure_ascii=False)[1:-1].lower(), needle.encode().hex()}
        for (table,) in tables:
            rows = await tx.rows(text(f"SELECT lower(to_jsonb(t)::text) AS row FROM {table} AS t"))
            hits = sum(any(word in row.row for word in words) for row in rows)
            if hits:
                found[table] = hits
    return found


async def find_in_qdrant(base: Foundation, needles: list[str]) -> list[Any]:
    """Points, in every collection of the test, that are one of these or say one of these."""
    found: list[Any] = []
    prefix = base.settings.qdrant.prefix
    for collection in (await base.qdrant.get_collections()).collections:
        if collection.name.startswith(prefix):
            records, _ = await base.qdrant.scroll(collection.name, limit=1000, with_payload=True)
            found += [
                (collection.name, record.id)
                for record in records
                if any(needle in f"{record.id} {record.payload}" for needle in needles)
            ]
    return found


async def assert_nothing_left(base: Foundation, world: World) -> None:
    """No name, no secret; ids on the receipts and in the one change alone, and nowhere in Qdrant."""
    for trace in world.traces():
        assert await find_in_tables(base, trace) == {}, trace
    for person_id in world.ids:
        assert await find_in_tables(base, person_id) == {"receipts": 1, "changes": 1}
    assert await find_in_qdrant(base, world.ids) == []
    async with base.database.transaction() as tx:
        (row,) = await tx.rows(select(changes).where(changes.c.person_ids.contains([UUID(world.her)])))
        waiting = await tx.scalar(select(func.count()).where(job_slices.c.spec["person_ids"][0].astext.is_not(None)))
    assert (row.kind, row.before, row.after, row.reason) == ("PERSON_FORGOTTEN", {}, {}, "")
    assert waiting, "what is yet to run goes on without the person"


def stores_of(job: jobs_pb2.Job) -> dict[str, int]:
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    result = json_format.MessageToDict(job.result)
    assert all(store["verified_at"] for store in result["stores"])
    return {store["store"]: int(store["deleted"]) for store in result["stores"]}
