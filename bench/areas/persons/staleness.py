"""How long Qdrant shows a face as nobody's after AssignFace has answered that it is somebody's."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from typing import Final

import grpc.aio
from sqlalchemy import func, select

from bench.areas.persons.library import MODEL, SeededLibrary, Shape, seed_library
from bench.rate import Turn, make_turn
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc
from shared.config import Settings
from shared.db.tables_shared import vector_outbox
from shared.foundation import Foundation, open_foundation

LIBRARY: Final = "staleness"
ASSIGNS_PER_S: Final = 50
ASSIGNS: Final = 1_000
PEOPLE: Final = 50
FACES_OF_EACH: Final = 10
READY_S: Final = 60.0
QUIET_POLL_S: Final = 0.1
# Between two looks at Qdrant: what is added to a figure at most, and small beside it.
LOOK_S: Final = 0.002


async def measure_staleness(settings: Settings, target: str) -> Turn:
    """A turn of :data:`ASSIGNS` assignments, evenly spread, with the seconds from each answer until its point shows the person.

    A worker has to run: its relay is what is measured. The turn ends when the last point shows its person.
    """
    async with AsyncExitStack() as stack:
        base = await open_foundation(settings, stack, "bench")
        shape = Shape(persons=[FACES_OF_EACH] * PEOPLE, unassigned=ASSIGNS)
        library = await seed_library(base, LIBRARY, shape, with_points=True)
        await _await_quiet(base)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        await asyncio.wait_for(channel.channel_ready(), READY_S)
        return await _assign_and_watch(base, assignments_pb2_grpc.AssignmentServiceStub(channel), library)


async def _assign_and_watch(
    base: Foundation, stub: assignments_pb2_grpc.AssignmentServiceStub, library: SeededLibrary
) -> Turn:
    answered: dict[str, float] = {}
    taken: list[float] = []
    begun = time.monotonic()

    async def assign(number: int) -> None:
        await asyncio.sleep(begun + number / ASSIGNS_PER_S - time.monotonic())
        face_id = str(library.unassigned[number])
        await stub.AssignFace(
            assignments_pb2.AssignFaceRequest(
                library_id=LIBRARY,
                face_id=face_id,
                person_id=str(library.person_ids[number % PEOPLE]),
                request_id=str(uuid.uuid4()),
            ),
            timeout=READY_S,
        )
        answered[face_id] = time.monotonic()

    async def watch() -> None:
        collection = base.collections.faces(MODEL)
        while len(taken) < ASSIGNS:
            if answered:
                points = await base.qdrant.retrieve(collection, list(answered), with_payload=["person_id"])
                now = time.monotonic()
                for point in points:
                    if (point.payload or {}).get("person_id"):
                        taken.append(now - answered.pop(str(point.id)))
            await asyncio.sleep(LOOK_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        for number in range(ASSIGNS):
            group.create_task(assign(number))
    return make_turn(taken, time.monotonic() - begun)


async def _await_quiet(base: Foundation) -> None:
    """Until Qdrant has every point."""
    while True:
        async with base.database.transaction() as tx:
            if not await tx.scalar(select(func.count()).select_from(vector_outbox)):
                return
        await asyncio.sleep(QUIET_POLL_S)
