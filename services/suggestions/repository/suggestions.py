"""SQL of ``suggestions``.

Rows of several suggestions are locked in order of (face, person) everywhere, so that no two transactions wait for each
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.engine import Row

from services.suggestions.domain.model import Evidence, Suggestion, SuggestionMethod, SuggestionState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members
from shared.db.tables_detection import faces
from shared.db.tables_persons import LIVING, assignments, exclusions, persons
from shared.db.tables_suggestions import suggestions
from shared.errors import NotFound


@dataclass(frozen=True, slots=True)
class SuggestionFilter:
    """Which suggestions to list; None = whatever it is."""

    person_id: UUID | None = None
    cluster_id: str | None = None
    face_id: UUID | None = None
    states: tuple[str, ...] = (SuggestionState.PENDING.value,)
    min_confidence: float = 0.0


async def get_suggestion(tx: Transaction, library_id: str, suggestion_id: UUID) -> Suggestion:
    """One suggestion; raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select_suggestions().where(suggestions.c.library_id == library_id, suggestions.c.suggestion_id == suggestion_id)
    )
    if row is None:
        raise NotFound("suggestion", str(suggestion_id))
    return make_suggestion(row)


async def lock_suggestion(tx: Transaction, library_id: str, suggestion_id: UUID, face_id: UUID) -> Suggestion:
    """One suggestion as it is now, with all suggestions of its face locked; raises :class:`NotFound`."""
    await tx.execute(
        select(suggestions.c.suggestion_id)
        .where(suggestions.c.library_id == library_id, suggestions.c.face_id == face_id)
        .order_by(suggestions.c.person_id)
        .with_for_update(key_share=True)
    )
    return await get_suggestion(tx, library_id, suggestion_id)


async def close_suggestion(
    tx: Transaction, clock: Clock, suggestion_id: UUID, state: SuggestionState, reviewer: str
) -> None:
    """Store an answer; the suggestion is locked."""
    await tx.execute(
        update(suggestions)
        .where(suggestions.c.suggestion_id == suggestion_id)
        .values(state=state.value, reviewed_by=reviewer, closed_at=clock.now(), version=suggestions.c.version + 1)
    )


async def expire_rivals(tx: Transaction, clock: Clock, face_id: UUID, suggestion_id: UUID) -> None:
    """Close the other open questions about a face whose suggestions are locked."""
    await tx.execute(
        update(suggestions)
        .where(
            suggestions.c.face_id == face_id,
            suggestions.c.suggestion_id != suggestion_id,
            suggestions.c.state == SuggestionState.PENDING.value,
        )
        .values(state=SuggestionState.EXPIRED.value, closed_at=clock.now(), version=suggestions.c.version + 1)
    )


async def list_suggestions(
    tx: Transaction, library_id: str, request: PageRequest, where: SuggestionFilter
) -> Page[Suggestion]:
    """Suggestions that pass the filter, surest first. Pending ones that no longer stand are left out."""
    statement = select_suggestions().where(
        suggestions.c.library_id == library_id,
        suggestions.c.state.in_(where.states),
        suggestions.c.confidence >= where.min_confidence,
        or_(suggestions.c.state != SuggestionState.PENDING.value, still_stands()),
    )
    if where.person_id is not None:
        statement = statement.where(suggestions.c.person_id == where.person_id)
    if where.face_id is not None:
        statement = statement.where(suggestions.c.face_id == where.face_id)
    if where.cluster_id is not None:
        statement = statement.where(cluster_members.c.cluster_id == where.cluster_id)
    # Both ways down, so that the index serves the order backwards.
    order = [SortKey(suggestions.c.confidence, descending=True), SortKey(suggestions.c.suggestion_id, descending=True)]
    rows = await tx.rows(keyset(statement, request, order))
    return make_page(rows, request, make_suggestion, lambda row: [row.confidence, row.suggestion_id])


async def count_by_state(tx: Transaction, library_id: str) -> dict[SuggestionState, int]:
    """How many suggestions of a library are in each state; pending ones only if they still stand."""
    rows = await tx.rows(
        select(suggestions.c.state, func.count().label("found"))
        .where(
            suggestions.c.library_id == library_id,
            or_(suggestions.c.state != SuggestionState.PENDING.value, still_stands()),
        )
        .group_by(suggestions.c.state)
    )
    counts = {SuggestionState(row.state): row.found for row in rows}
    return {state: counts.get(state, 0) for state in SuggestionState}


def still_stands() -> ColumnElement[bool]:
    """Whether a pending question can still be answered yes: the face is free, the pair not excluded, both there."""
    excluded = _exists(exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id)
    # The faces that were put aside are few and have an index; a face that is gone has no questions.
    aside = _exists(
        faces.c.face_id == suggestions.c.face_id,
        faces.c.library_id == suggestions.c.library_id,
        faces.c.state != "ACTIVE",
    )
    person_there = _exists(persons.c.person_id == suggestions.c.person_id, LIVING)
    return and_(~_assigned(), ~excluded, ~aside, person_there)


def _assigned() -> ColumnElement[bool]:
    return _exists(assignments.c.face_id == suggestions.c.face_id)


def _exists(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(*conditions).correlate(suggestions)


def select_suggestions() -> Select[Any]:
    """Suggestions with the cluster their face is in."""
    return (
        select(suggestions, cluster_members.c.cluster_id)
        .select_from(suggestions)
        .outerjoin(
            cluster_members,
            # Memberships of faces that were assigned since count for nothing.
            and_(cluster_members.c.face_id == suggestions.c.face_id, ~_assigned()),
        )
    )


def make_suggestion(row: Row[Any]) -> Suggestion:
    """What :func:`select_suggestions` found."""
    return Suggestion(
        suggestion_id=row.suggestion_id,
        library_id=row.library_id,
        face_id=row.face_id,
        asset_id=row.asset_id,
        person_id=row.person_id,
        confidence=row.confidence,
        evidence=Evidence.from_json(row.evidence),
        method=SuggestionMethod(row.method),
        state=SuggestionState(row.state),
        cluster_id=row.cluster_id,
        version=row.version,
        created_at=row.created_at,
        asked_at=row.asked_at,
        closed_at=row.closed_at,
        reviewed_by=row.reviewed_by,
    )
