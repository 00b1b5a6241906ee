"""What the clients ask: requests as bytes, spread over the whole library, and how large an answer is."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from google.protobuf.message import Message

from bench.areas.persons.clients import Calls
from bench.areas.persons.library import SeededLibrary
from kith.persons.v1 import assignments_pb2, persons_pb2

PAGE: Final = 50
READY_S: Final = 60.0
# Requests whose answers are looked at to know how large the echo's must be.
SAMPLE: Final = 40
_PERSONS: Final = "/kith.persons.v1.PersonService"
_ASSIGNMENTS: Final = "/kith.persons.v1.AssignmentService"


@dataclass(frozen=True, slots=True)
class Lane:
    """One call: its row, what is asked in each of its runs, and the mean size of an answer."""

    row: str
    calls: Sequence[Calls]
    answer_bytes: int


async def make_lanes(target: str, library: SeededLibrary, runs: int) -> list[Lane]:
    """The lanes, with requests for ``runs`` runs of each."""
    async with grpc.aio.insecure_channel(target) as channel:
        people = [
            persons_pb2.GetPersonRequest(library_id=library.library_id, person_id=str(person_id))
            for person_id in library.person_ids
        ]
        assigning = _assign_each(library)
        share = (len(assigning) - SAMPLE) // runs
        return [
            await _lane(channel, f"{_PERSONS}/GetPerson", people, runs),
            await _lane(channel, f"{_PERSONS}/ListPersons", await _pages(channel, library, "ListPersons"), runs),
            await _lane(channel, f"{_PERSONS}/ListPeople", await _pages(channel, library, "ListPeople"), runs),
            Lane(
                "AssignFace",
                [
                    Calls(f"{_ASSIGNMENTS}/AssignFace", assigning[SAMPLE:][share * run : share * (run + 1)], once=True)
                    for run in range(runs)
                ],
                await _answer_bytes(channel, f"{_ASSIGNMENTS}/AssignFace", assigning),
            ),
        ]


def _assign_each(library: SeededLibrary) -> list[bytes]:
    """Each face of nobody, once, to people in turn, as a client that would repeat a call sends it: with a request id."""
    return [
        assignments_pb2.AssignFaceRequest(
            library_id=library.library_id,
            face_id=str(face_id),
            person_id=str(library.person_ids[number % len(library.person_ids)]),
            request_id=str(uuid.uuid4()),
        ).SerializeToString()
        for number, face_id in enumerate(library.unassigned)
    ]


async def _pages(channel: grpc.aio.Channel, library: SeededLibrary, name: str) -> list[Message]:
    """A request for each page of a list, from the first to the last."""
    request_type, answer_type = getattr(persons_pb2, f"{name}Request"), getattr(persons_pb2, f"{name}Response")
    method = channel.unary_unary(
        f"{_PERSONS}/{name}", request_serializer=_serialise, response_deserializer=answer_type.FromString
    )
    requests = [request_type(library_id=library.library_id, page_size=PAGE)]
    while token := (await method(requests[-1], wait_for_ready=True, timeout=READY_S)).next_page_token:
        requests.append(request_type(library_id=library.library_id, page_size=PAGE, page_token=token))
    return requests


async def _lane(channel: grpc.aio.Channel, method: str, requests: Sequence[Message], runs: int) -> Lane:
    sent = [_serialise(request) for request in requests]
    return Lane(method.rpartition("/")[2], [Calls(method, sent)] * runs, await _answer_bytes(channel, method, sent))


async def _answer_bytes(channel: grpc.aio.Channel, method: str, requests: Sequence[bytes]) -> int:
    call: Any = channel.unary_unary(method)
    sizes = [len(await call(request, wait_for_ready=True, timeout=READY_S)) for request in requests[:SAMPLE]]
    return round(statistics.mean(sizes))


def _serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
