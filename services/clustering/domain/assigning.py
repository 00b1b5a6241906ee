"""What becomes of faces that a DUAL run recognised: the sure ones are given to their people, the doubtful ones asked about."""

from __future__ import annotations

from uuid import UUID

import numpy as np

from services.clustering.domain.model import ClusteringDeps
from services.clustering.domain.recognising import Recognised, Verdict
from services.clustering.repository.known import KnownPeople
from services.clustering.repository.unassigned import FaceTable
from shared.db.engine import Transaction
from shared.jobs.asking import PairToAsk, ask_pairs_later
from shared.jobs.handing_over import Handover, HandoverRounds, MachineAssignments, make_handovers
from shared.jobs.model import Json


class Assigner:
    """Carries out the verdicts of one job, whose position it keeps:

    1. :meth:`HandoverRounds.send` what was under way when the worker died, before any face is read;
    2. :meth:`plan` the verdicts;
    3. send the :attr:`rounds`, storing :attr:`position` before each;
    4. :meth:`ask`, and store :attr:`position` in the same transaction.

    Faces that are read afterwards are those left to be grouped.
    """

    def __init__(
        self,
        people: MachineAssignments,
        deps: ClusteringDeps,
        library_id: str,
        job_id: UUID,
        position: Json | None = None,
    ) -> None:
        self._deps = deps
        self._library_id = library_id
        self.rounds = HandoverRounds(people, library_id, job_id, "clustering", position)
        self.suggested: int = position["suggested"] if position else 0
        """Faces the job has had people asked about."""
        self.ended: bool = position["ended"] if position else False
        """Whether there is nothing left to do for the job."""
        self._questions: list[PairToAsk] = []

    @property
    def position(self) -> Json:
        """To be stored with the job's."""
        return {**self.rounds.position, "suggested": self.suggested, "ended": self.ended}

    def plan(self, known: KnownPeople, faces: FaceTable, recognised: Recognised) -> None:
        """Take the verdicts over."""
        self.rounds.add(_list_handovers(known, faces, recognised))
        self._questions = [
            PairToAsk(
                faces.face_ids[row],
                known.people[int(recognised.people[row])].person_id,
                float(recognised.confidences[row]),
            )
            for row in recognised.rows_to(Verdict.ASK).tolist()
        ]

    async def ask(self, tx: Transaction, started_by: str) -> None:
        """Have people asked, once; the position has to be stored in the same transaction."""
        await ask_pairs_later(tx, self._deps.ids, self._deps.clock, self._library_id, self._questions, started_by)
        self.suggested += len(self._questions)
        self.ended = True
        self._questions = []


def _list_handovers(known: KnownPeople, faces: FaceTable, recognised: Recognised) -> list[Handover]:
    """The assignments by person, the surest faces first."""
    rows = recognised.rows_to(Verdict.ASSIGN)
    order = np.lexsort((rows, -recognised.confidences[rows], recognised.people[rows]))
    sure: dict[UUID, dict[UUID, float]] = {}
    for row in rows[order].tolist():
        person_id = known.people[int(recognised.people[row])].person_id
        sure.setdefault(person_id, {})[faces.face_ids[row]] = float(recognised.confidences[row])
    return [handover for person_id, chosen in sure.items() for handover in make_handovers(person_id, chosen)]
