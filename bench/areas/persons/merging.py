"""Two people with a hundred thousand faces each become one, while others go on reading."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import grpc.aio

from bench.areas.persons.library import Shape, seed_library
from kith.persons.v1 import persons_pb2, persons_pb2_grpc
from shared.config import Settings
from shared.foundation import open_foundation

LIBRARY: Final = "merge"
FACES: Final = 100_000
BYSTANDERS: Final = 20
BYSTANDERS_FACES: Final = 30
DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Merge:
    """How long MergePersons took, and the slowest GetPerson that was answered meanwhile, both in seconds."""

    seconds: float
    slowest_read: float


async def measure_merge(settings: Settings, target: str) -> Merge:
    """Merge two persons of :data:`FACES` each, reading both and bystanders in turn as long as it takes.

    Raises ``RuntimeError`` if not every face moved.
    """
    async with AsyncExitStack() as stack:
        base = await open_foundation(settings, stack, "bench")
        shape = Shape(persons=[FACES, FACES, *[BYSTANDERS_FACES] * BYSTANDERS])
        people = [str(person_id) for person_id in (await seed_library(base, LIBRARY, shape)).person_ids]
    async with grpc.aio.insecure_channel(target) as merging, grpc.aio.insecure_channel(target) as reading:
        merger, reader = persons_pb2_grpc.PersonServiceStub(merging), persons_pb2_grpc.PersonServiceStub(reading)
        survivor, merged = [await _get_person(merger, person_id) for person_id in people[:2]]
        request = persons_pb2.MergePersonsRequest(
            library_id=LIBRARY,
            survivor_id=survivor.id,
            survivor_etag=survivor.etag,
            merged_id=merged.id,
            merged_etag=merged.etag,
            # Whichever birth dates they were given, this one decides.
            birth_date=survivor.birth_date if survivor.HasField("birth_date") else None,
        )
        ended = asyncio.Event()
        reads = asyncio.create_task(_read_until(ended, reader, people))
        begun = time.monotonic()
        answer = await merger.MergePersons(request, timeout=DEADLINE_S)
        seconds = time.monotonic() - begun
        ended.set()
        if answer.faces_moved != FACES:
            raise RuntimeError(f"{answer.faces_moved} of {FACES} faces moved")
        return Merge(seconds, max(await reads))


async def _read_until(
    ended: asyncio.Event, reader: persons_pb2_grpc.PersonServiceStub, people: list[str]
) -> list[float]:
    """Seconds of each GetPerson, one after the other, the last of them begun before ``ended``."""
    taken: list[float] = []
    for person_id in cycle(people):
        begun = time.monotonic()
        await _get_person(reader, person_id)
        taken.append(time.monotonic() - begun)
        if ended.is_set():
            return taken
    return taken


async def _get_person(stub: persons_pb2_grpc.PersonServiceStub, person_id: str) -> persons_pb2.Person:
    request = persons_pb2.GetPersonRequest(library_id=LIBRARY, person_id=person_id)
    return (await stub.GetPerson(request, wait_for_ready=True, timeout=DEADLINE_S)).person
