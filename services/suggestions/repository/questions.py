"""Storing the questions a job found, many in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Update, bindparam, case, column, exists, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, REAL, insert
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from services.suggestions.domain.model import Question, SuggestionMethod, SuggestionsDeps, SuggestionState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.tables_detection import faces
from shared.db.tables_persons import LIVING, assignments, exclusions, persons
from shared.db.tables_suggestions import suggestions

Pair = tuple[UUID, UUID]


async def store_questions(
    tx: Transaction,
    deps: SuggestionsDeps,
    library_id: str,
    job_id: UUID,
    method: SuggestionMethod,
    questions: Sequence[Question],
    settle: Sequence[UUID] = (),
) -> set[Pair]:
    """Ask new questions, refresh open ones and ask expired ones again, in two statements, and rejected ones whose exclusion was
    taken back; what was accepted stays as it is.

    A face that was assigned or excluded since it was judged is left out, as is a person merged or deleted since. Returns the
    (face, person) pairs that are open. Open questions about the persons to ``settle`` whose face has a person now, or was said
    not to be them, are closed; those that somebody is answering at this moment are left to them.
    """
    settled = _expire_settled(deps.clock, settle)
    if not questions:
        if settle:
            await tx.execute(settled)
        return set()
    await _hold_pairs(tx, questions)
    given = (
        func.jsonb_to_recordset(bindparam("questions", type_=JSONB))
        .table_valued(
            column("suggestion_id", PG_UUID(as_uuid=True)),
            column("face_id", PG_UUID(as_uuid=True)),
            column("person_id", PG_UUID(as_uuid=True)),
            column("confidence", REAL),
            column("evidence", JSONB),
        )
        .render_derived(name="given", with_types=True)
    )
    taken = exists().where(assignments.c.face_id == given.c.face_id).correlate(given)
    excluded = (
        exists()
        .where(exclusions.c.face_id == given.c.face_id, exclusions.c.person_id == given.c.person_id)
        .correlate(given)
    )
    new = (
        select(
            given.c.suggestion_id,
            faces.c.library_id,
            given.c.face_id,
            faces.c.asset_id,
            given.c.person_id,
            given.c.confidence,
            given.c.evidence,
            literal(method.value, Text),
            literal(job_id, PG_UUID(as_uuid=True)),
            literal(deps.clock.now(), TIMESTAMP),
        )
        .select_from(given)
        .join(faces, faces.c.face_id == given.c.face_id)
        .join(persons, persons.c.person_id == given.c.person_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.state == "ACTIVE",
            LIVING,
            ~taken,
            ~excluded,
        )
        # The order in which rows of this table are locked.
        .order_by(given.c.face_id, given.c.person_id)
    )
    names = [
        "suggestion_id",
        "library_id",
        "face_id",
        "asset_id",
        "person_id",
        "confidence",
        "evidence",
        "method",
        "job_id",
        "created_at",
    ]
    insertion = insert(suggestions).from_select(names, new)
    reopened = suggestions.c.state.in_([SuggestionState.EXPIRED.value, SuggestionState.REJECTED.value])
    statement = insertion.on_conflict_do_update(
        index_elements=["face_id", "person_id"],
        set_={
            "confidence": insertion.excluded.confidence,
            "evidence": insertion.excluded.evidence,
            # An open question stays the find of the job that asked it first.
            "method": case((reopened, insertion.excluded.method), else_=suggestions.c.method),
            "job_id": case((reopened, insertion.excluded.job_id), else_=suggestions.c.job_id),
            "state": SuggestionState.PENDING.value,
            "asked_at": case((reopened, insertion.excluded.created_at), else_=suggestions.c.asked_at),
            "closed_at": None,
            "reviewed_by": "",
            # Asked again it is about its person of today, whoever it was about first.
            "moved_from": case((reopened, null()), else_=suggestions.c.moved_from),
            "dormant": False,
            "version": suggestions.c.version + case((reopened, 1), else_=0),
        },
        # No excluded pair comes here: whoever rejected one has excluded it.
        where=suggestions.c.state != SuggestionState.ACCEPTED.value,
    ).returning(suggestions.c.face_id, suggestions.c.person_id)
    if settle:
        # No pair is both: what is stored is neither taken nor excluded.
        statement = statement.add_cte(settled.cte("settled"))
    rows = await tx.rows(statement, {"questions": [_describe(deps, question) for question in questions]})
    return {(row.face_id, row.person_id) for row in rows}


def _expire_settled(clock: Clock, person_ids: Sequence[UUID]) -> Update:
    settled = (
        select(suggestions.c.suggestion_id)
        .where(
            suggestions.c.person_id == func.any(list(person_ids)),
            suggestions.c.state == SuggestionState.PENDING.value,
            or_(
                exists().where(assignments.c.face_id == suggestions.c.face_id),
                exists().where(
                    exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id
                ),
            ),
        )
        .with_for_update(of=suggestions, skip_locked=True)
    )
    return (
        update(suggestions)
        .where(suggestions.c.suggestion_id.in_(settled))
        .values(state=SuggestionState.EXPIRED.value, closed_at=clock.now(), version=suggestions.c.version + 1)
    )


async def _hold_pairs(tx: Transaction, questions: Sequence[Question]) -> None:
    """Keep faces from being deleted, and persons from being merged or deleted: in that order, each by id, as everybody does."""
    held = (
        select(faces.c.face_id)
        .where(faces.c.face_id == func.any([question.face_id for question in questions]))
        .order_by(faces.c.face_id)
        .with_for_update(read=True, key_share=True)
        .cte("held")
    )
    # To count the faces they must be locked: no person is looked at before.
    all_held = select(func.count()).select_from(held).scalar_subquery() >= 0
    await tx.execute(
        select(persons.c.person_id)
        .where(all_held, persons.c.person_id == func.any([question.person_id for question in questions]))
        .order_by(persons.c.person_id)
        .with_for_update(read=True)
    )


def _describe(deps: SuggestionsDeps, question: Question) -> dict[str, Any]:
    return {
        "suggestion_id": str(deps.ids.new_uuid()),
        "face_id": str(question.face_id),
        "person_id": str(question.person_id),
        "confidence": question.confidence,
        "evidence": question.evidence.to_json(),
    }
