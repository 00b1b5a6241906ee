"""Giving recognised faces to their people, through the persons service, and having people asked about the doubtful ones.

The calls go out in rounds. A round is remembered with the job's position before it is sent: a worker that takes over after a
crash sends it again as it was, under the same ids, and hears the same answers, so that nothing is done or counted twice. What
a round does to the ledger is one change for each of its calls, which is one person and up to 500 faces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid5

import numpy as np

from services.clustering.domain.model import ClusteringDeps
from services.clustering.domain.ports import People
from services.clustering.domain.recognising import Recognised, Verdict
from services.clustering.repository.known import KnownPeople
from services.clustering.repository.unassigned import FaceTable
from shared.db.engine import Transaction
from shared.errors import NotFound, PreconditionFailed
from shared.jobs.asking import PairToAsk, ask_pairs_later
from shared.jobs.model import Json

# What persons takes in one call.
FACES_PER_CALL: Final = 500
# What is remembered at once, and how much of it is under way at a time.
FACES_PER_ROUND: Final = 2000
CALLS_PER_ROUND: Final = 40
CALLS_AT_ONCE: Final = 4


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


@dataclass(slots=True)
class Standing:
    """How far a job is with its recognised faces. ``refused``: faces that could not go to their person and are grouped.

    ``under_way``: the calls that may have been sent. ``ended``: all was given, and all was asked.
    """

    assigned: int = 0
    refused: int = 0
    suggested: int = 0
    under_way: list[Handover] = field(default_factory=list)
    ended: bool = False

    def encode(self) -> Json:
        """As it is kept with the job's position."""
        return {
            "assigned": self.assigned,
            "refused": self.refused,
            "suggested": self.suggested,
            "under_way": [handover.encode() for handover in self.under_way],
            "ended": self.ended,
        }

    @classmethod
    def decode(cls, stored: Json | None) -> Standing:
        """What :meth:`encode` made; the beginning without it."""
        if stored is None:
            return cls()
        return cls(
            assigned=stored["assigned"],
            refused=stored["refused"],
            suggested=stored["suggested"],
            under_way=[Handover.decode(each) for each in stored["under_way"]],
            ended=stored["ended"],
        )


class Assigner:
    """Carries out the verdicts of one job, whose position it keeps:

    1. :meth:`send` what was under way when the worker died, before any face is read;
    2. :meth:`plan` the verdicts;
    3. :meth:`prepare` a round, store :attr:`position`, and :meth:`send` it, until none is left;
    4. :meth:`ask`, and store :attr:`position` in the same transaction.

    Faces that are read afterwards are those left to be grouped.
    """

    def __init__(
        self, people: People, deps: ClusteringDeps, library_id: str, job_id: UUID, position: Json | None = None
    ) -> None:
        self._people = people
        self._deps = deps
        self._library_id = library_id
        self._job_id = job_id
        self._standing = Standing.decode(position)
        self._waiting: list[Handover] = []
        self._questions: list[PairToAsk] = []

    @property
    def position(self) -> Json:
        """To be stored with the job's."""
        return self._standing.encode()

    @property
    def assigned(self) -> int:
        """Faces the job has given to people so far."""
        return self._standing.assigned

    @property
    def suggested(self) -> int:
        """Faces the job has had people asked about."""
        return self._standing.suggested

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do for the job."""
        return self._standing.ended

    def plan(self, known: KnownPeople, faces: FaceTable, recognised: Recognised) -> None:
        """Take the verdicts over."""
        self._waiting = list(_list_handovers(known, faces, recognised))
        self._questions = [
            PairToAsk(
                faces.face_ids[row],
                known.people[int(recognised.people[row])].person_id,
                float(recognised.confidences[row]),
            )
            for row in recognised.rows_to(Verdict.ASK).tolist()
        ]

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

    async def ask(self, tx: Transaction, started_by: str) -> None:
        """Have people asked, once; the position has to be stored in the same transaction."""
        await ask_pairs_later(tx, self._deps.ids, self._deps.clock, self._library_id, self._questions, started_by)
        self._standing.suggested += len(self._questions)
        self._standing.ended = True
        self._questions = []

    async def _send(self, handover: Handover) -> int:
        try:
            made = await self._people.assign_recognised(
                self._library_id,
                handover.confidences,
                handover.person_id,
                f"recognised by clustering job {self._job_id}",
                _name_request(self._job_id, handover),
            )
        except (NotFound, PreconditionFailed):
            # Faces are refused one by one, so this is about the person.
            return 0
        return len(made.face_ids)


def _list_handovers(known: KnownPeople, faces: FaceTable, recognised: Recognised) -> list[Handover]:
    """The assignments by person, the surest faces first."""
    rows = recognised.rows_to(Verdict.ASSIGN)
    order = np.lexsort((rows, -recognised.confidences[rows], recognised.people[rows]))
    rows = rows[order]
    people = recognised.people[rows]
    handovers: list[Handover] = []
    cuts = np.flatnonzero(people[1:] != people[:-1]) + 1
    for part in np.split(rows, cuts) if len(rows) else ():
        person_id = known.people[int(recognised.people[part[0]])].person_id
        for start in range(0, len(part), FACES_PER_CALL):
            chosen = part[start : start + FACES_PER_CALL].tolist()
            handovers.append(
                Handover(person_id, {faces.face_ids[row]: float(recognised.confidences[row]) for row in chosen})
            )
    return handovers


def _name_request(job_id: UUID, handover: Handover) -> UUID:
    """The same for the same call of the same job: a later plan that differs is another call."""
    faces = ",".join(f"{face_id}={confidence!r}" for face_id, confidence in handover.confidences.items())
    return uuid5(job_id, f"{handover.person_id}:{faces}")
