"""Giving faces that a machine recognised to their people, through the persons service, so that a crash doubles nothing.

The calls go out in rounds. A round is remembered with the job's position before it is sent: a worker that takes over after a
crash sends it again as it was, under the same ids, and hears the same answers, so that nothing is done or counted twice. What
a round does to the ledger is one change for each of its calls, which is one person and up to 500 faces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol
from uuid import UUID, uuid5

from shared.errors import NotFound, PreconditionFailed
from shared.jobs.model import Json

# What persons takes in one call.
FACES_PER_CALL: Final = 500
# What is remembered at once, and how much of it is under way at a time.
FACES_PER_ROUND: Final = 2000
CALLS_PER_ROUND: Final = 40
CALLS_AT_ONCE: Final = 4


class MachineAssignments(Protocol):
    """The persons service, told by a machine whose face a face is."""

    async def assign_recognised(
        self, library_id: str, confidences: Mapping[UUID, float], person_id: UUID, reason: str, request_id: UUID
    ) -> Collection[UUID]:
        """Give those of up to 500 faces that can go to a person; ``confidences`` are of each face, 0..1.

        Answers the faces that are the person's now. The same ``request_id`` with the same arguments is done once, however often
        it is called. Raises :class:`NotFound` for an unknown person, :class:`PreconditionFailed` for one merged or deleted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Handover:
    """Faces to give to a person in one call, each with how sure it is, 0..1."""

    person_id: UUID
    confidences: Mapping[UUID, float]

    def encode(self) -> Json:
        """As it is remembered."""
        return {
            "person_id": str(self.person_id),
            "faces": [[str(face_id), confidence] for face_id, confidence in self.confidences.items()],
        }

    @classmethod
    def decode(cls, stored: Json) -> Handover:
        """What :meth:`encode` made."""
        return cls(UUID(stored["person_id"]), {UUID(face_id): confidence for face_id, confidence in stored["faces"]})


def make_handovers(person_id: UUID, confidences: Mapping[UUID, float]) -> list[Handover]:
    """Any number of one person's faces, in as many calls as it takes."""
    faces = iter(confidences.items())
    handovers: list[Handover] = []
    while part := dict(islice(faces, FACES_PER_CALL)):
        handovers.append(Handover(person_id, part))
    return handovers


@dataclass(slots=True)
class Standing:
    """How far a job is with its handovers: how many faces were ``assigned``, how many ``refused`` as they could not go to
    their person, and the calls that may have been sent and were not heard of.
    """

    assigned: int = 0
    refused: int = 0
    under_way: list[Handover] = field(default_factory=list)

    def encode(self) -> Json:
        """As it is kept with the job's position."""
        return {
            "assigned": self.assigned,
            "refused": self.refused,
            "under_way": [handover.encode() for handover in self.under_way],
        }

    @classmethod
    def decode(cls, stored: Json | None) -> Standing:
        """What :meth:`encode` made; the beginning without it."""
        if stored is None:
            return cls()
        return cls(stored["assigned"], stored["refused"], [Handover.decode(each) for each in stored["under_way"]])


class HandoverRounds:
    """Carries out the handovers of one job, whose position it keeps:

    1. :meth:`send` what was under way when the worker died, before any face is read;
    2. :meth:`add` handovers;
    3. :meth:`prepare` a round, store :attr:`position`, and :meth:`send` it, until none is left.

    ``doing`` says in the ledger what the faces were recognised by.
    """

    def __init__(
        self, people: MachineAssignments, library_id: str, job_id: UUID, doing: str, position: Json | None = None
    ) -> None:
        self._people = people
        self._library_id = library_id
        self._job_id = job_id
        self._reason = f"recognised by {doing} job {job_id}"
        self._standing = Standing.decode(position)
        self._waiting: list[Handover] = []

    @property
    def position(self) -> Json:
        """To be stored with the job's."""
        return self._standing.encode()

    @property
    def assigned(self) -> int:
        """Faces the job has given to people so far."""
        return self._standing.assigned

    @property
    def refused(self) -> int:
        """Faces that could not go to their person."""
        return self._standing.refused

    def add(self, handovers: Sequence[Handover]) -> None:
        """Have these sent after those added before."""
        self._waiting += handovers

    def prepare(self) -> bool:
        """Choose the next round; False if there is none. The position has to be stored then, before :meth:`send`."""
        faces = 0
        while self._waiting and len(self._standing.under_way) < CALLS_PER_ROUND:
            faces += len(self._waiting[0].confidences)
            if self._standing.under_way and faces > FACES_PER_ROUND:
                break
            self._standing.under_way.append(self._waiting.pop(0))
        return bool(self._standing.under_way)

    async def send(self) -> int:
        """Send what is under way; answers how many faces that was. The position moves on, to be stored with the next round.

        Raises what the persons service raises, but for a person who was merged, deleted or forgotten: their faces are
        refused, as are those that got a person meanwhile, or whom a human or a rule keeps from this one.
        """
        round_, turns = self._standing.under_way, asyncio.Semaphore(CALLS_AT_ONCE)

        async def send_one(handover: Handover) -> int:
            async with turns:
                return await self._send(handover)

        calls = [asyncio.ensure_future(send_one(handover)) for handover in round_]
        try:
            answers = await asyncio.gather(*calls)
        finally:
            # One that failed ends the round; what the others may have done is asked again with it.
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        sent = sum(len(handover.confidences) for handover in round_)
        assigned = sum(answers)
        self._standing.assigned += assigned
        self._standing.refused += sent - assigned
        self._standing.under_way = []
        return sent

    async def _send(self, handover: Handover) -> int:
        request_id = _name_request(self._job_id, handover)
        try:
            made = await self._people.assign_recognised(
                self._library_id, handover.confidences, handover.person_id, self._reason, request_id
            )
        except (NotFound, PreconditionFailed):
            # Faces are refused one by one, so this is about the person.
            return 0
        return len(made)


def _name_request(job_id: UUID, handover: Handover) -> UUID:
    """The same for the same call of the same job: a later plan that differs is another call."""
    faces = ",".join(f"{face_id}={confidence!r}" for face_id, confidence in handover.confidences.items())
    return uuid5(job_id, f"{handover.person_id}:{faces}")
