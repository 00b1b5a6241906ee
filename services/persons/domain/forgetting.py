"""Beginning to forget a person, and where the job stands that does it (``services/persons/forgetting_jobs.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from services.persons.domain.model import Change, ChangeKind, PersonsDeps, PersonStatus
from services.persons.domain.people import check_etag, refuse_inactive
from services.persons.repository.changes import record_change
from services.persons.repository.forgetting import lock_with_parts, mark_deleted
from services.persons.repository.receipts import (
    Receipt,
    find_receipt,
    hand_over_receipts,
    insert_receipts,
    lock_receipts,
)
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.jobs.forgetting import add_counts
from shared.jobs.model import Job, JobState, Json, NewJob
from shared.jobs.repository import create_job, get_job, read_checkpoint

FORGET_PERSON: Final = "persons.forget_person"
STAGES: Final = (
    "suggestions",
    "centroids",
    "faces",
    "assignments",
    "exclusions",
    "answers",
    "jobs",
    "reasons",
    "ledger",
    "person",
    "verify",
)
"""In this order: names are taken out of texts while the ledger still tells them; the person's row, to which all else refers,
last."""
DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class ForgetPerson:
    """A person to forget, with the etag; and whether their faces are to be deleted, too."""

    library_id: str
    person_id: UUID
    etag: str
    delete_faces: bool


@dataclass(frozen=True, slots=True)
class Position:
    """Where the job stands: stage and round, the other service's job it waits for, how far it is within the stage, and what was
    removed so far, by store. ``stores`` is the receipt, once all was read back.
    """

    stage: str = STAGES[0]
    round: int = 1
    part: str = ""
    after: str = ""
    deleted: Mapping[str, int] = field(default_factory=dict)
    stores: tuple[Json, ...] = ()

    @classmethod
    def parse(cls, checkpoint: Json, spec: Json) -> Position:
        """The position of a checkpoint; of an empty one, the beginning, with what an earlier job had removed."""
        if not checkpoint:
            return cls(deleted=spec["deleted"])
        return cls(**{**checkpoint, "stores": tuple(checkpoint["stores"])})

    def store(self) -> Json:
        """As a checkpoint."""
        return {
            "stage": self.stage,
            "round": self.round,
            "part": self.part,
            "after": self.after,
            "deleted": dict(self.deleted),
            "stores": list(self.stores),
        }

    def plus(self, removed: Mapping[str, int]) -> Position:
        """With more removed, by store."""
        return replace(self, deleted=add_counts(self.deleted, removed))

    def onward(self) -> Position:
        """At the beginning of the next stage."""
        following = (*STAGES, DONE)[STAGES.index(self.stage) + 1]
        return replace(self, stage=following, part="", after="")

    def again(self) -> Position:
        """At the beginning of the next round."""
        return replace(self, stage=STAGES[0], round=self.round + 1, part="", after="")


async def forget_person(tx: Transaction, deps: PersonsDeps, command: ForgetPerson, caller: Caller) -> Job:
    """Put a person away for good, with all who became part of them, and leave the rest to a job.

    For a person who is being forgotten, or was, nothing is checked: answers with the job that does it or did it, and with a new
    one that goes on if it failed or was cancelled. Raises :class:`NotFound`, :class:`EtagMismatch`, and
    :class:`PreconditionFailed` with ETAG_REQUIRED or, for one who is part of another, PERSON_NOT_ACTIVE.
    """
    receipt = await find_receipt(tx, command.library_id, command.person_id)
    if receipt is not None:
        return await _go_on(tx, deps, command, receipt, caller)
    people = await lock_with_parts(tx, command.library_id, command.person_id)
    # Another call may have been first while we waited.
    receipt = await find_receipt(tx, command.library_id, command.person_id)
    if receipt is not None:
        return await _go_on(tx, deps, command, receipt, caller)
    person = people[0]
    check_etag(person, command.etag, required="etag")
    if person.status is PersonStatus.MERGED:
        refuse_inactive(person)
    person_ids = [part.person_id for part in people]
    job = await _start_job(tx, deps, command.library_id, {}, caller)
    await insert_receipts(tx, deps.clock, command.library_id, person_ids, job.job_id, delete_faces=command.delete_faces)
    change = Change(ChangeKind.PERSON_FORGOTTEN, person_ids=person_ids)
    await record_change(tx, deps, command.library_id, change, caller)
    await mark_deleted(tx, deps.clock, person_ids)
    return job


async def _go_on(tx: Transaction, deps: PersonsDeps, command: ForgetPerson, receipt: Receipt, caller: Caller) -> Job:
    # Whoever else asks at this moment waits here, and then sees whose the receipts are.
    people = await lock_receipts(tx, command.library_id, receipt.job_id)
    if not people:
        receipt = await find_receipt(tx, command.library_id, command.person_id) or receipt
    job = await get_job(tx, command.library_id, receipt.job_id)
    if not people or job.state not in {JobState.FAILED, JobState.CANCELLED}:
        return job
    begun = await read_checkpoint(tx, receipt.job_id)
    job = await _start_job(tx, deps, command.library_id, begun.get("deleted", {}), caller)
    await hand_over_receipts(tx, people, job.job_id)
    return job


async def _start_job(tx: Transaction, deps: PersonsDeps, library_id: str, deleted: Json, caller: Caller) -> Job:
    """``deleted``: what an earlier job removed, by store. Who it is about stands in the receipts alone."""
    job = NewJob(
        library_id=library_id,
        kind=FORGET_PERSON,
        unit="stage",
        slices=[{"deleted": deleted}],
        created_by=caller.subject,
        total=len(STAGES),
    )
    return await create_job(tx, job, deps.ids, deps.clock)
