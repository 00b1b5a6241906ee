"""SQL of ``reviews``, and what an answer has to know of the persons service's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, insert, select
from sqlalchemy.engine import Row

from services.suggestions.domain.model import Suggestion, SuggestionsDeps
from shared.db.engine import Transaction
from shared.db.tables_persons import assignments, changes, exclusions
from shared.db.tables_suggestions import reviews, suggestions


@dataclass(frozen=True, slots=True)
class PairStanding:
    """What the persons service holds of a suggestion's pair.

    ``assigned_to``: whose the face is. ``assigned_by`` and ``excluded_by``: request ids of the calls that assigned the
    face, or excluded it from the suggestion's person; empty if nobody did, or without one. ``assigning`` and ``excluding``:
    their entries in the ledger.
    """

    assigned_to: UUID | None
    assigned_by: str
    excluded_by: str
    assigning: UUID | None = None
    excluding: UUID | None = None


async def get_pair_standing(tx: Transaction, suggestion: Suggestion) -> PairStanding:
    """How the pair of a suggestion stands, in one statement."""
    row = await tx.one_or_none(
        with_standing(select().select_from(suggestions)).where(suggestions.c.suggestion_id == suggestion.suggestion_id)
    )
    return PairStanding(None, "", "") if row is None else make_standing(row)


def with_standing(statement: Select[Any]) -> Select[Any]:
    """A statement over ``suggestions`` that also tells how each pair stands; :func:`make_standing` reads it."""
    assigning, excluding = changes.alias("assigning"), changes.alias("excluding")
    return (
        statement.add_columns(
            assignments.c.person_id.label("assigned_to"),
            assignments.c.change_id.label("assigning"),
            assigning.c.request_id.label("assigned_by"),
            exclusions.c.change_id.label("excluding"),
            excluding.c.request_id.label("excluded_by"),
        )
        .outerjoin(assignments, assignments.c.face_id == suggestions.c.face_id)
        .outerjoin(assigning, assigning.c.change_id == assignments.c.change_id)
        .outerjoin(
            exclusions,
            and_(exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id),
        )
        .outerjoin(excluding, excluding.c.change_id == exclusions.c.change_id)
    )


def make_standing(row: Row[Any]) -> PairStanding:
    """What :func:`with_standing` found."""
    return PairStanding(row.assigned_to, row.assigned_by or "", row.excluded_by or "", row.assigning, row.excluding)


async def insert_review(
    tx: Transaction, deps: SuggestionsDeps, suggestion: Suggestion, answer: str, reviewer: str, change_id: str
) -> None:
    """Keep an answer with the evidence it was given on; ``answer`` is ACCEPT or REJECT.

    The review takes the id of the change it made, as those that were given before many could share a change did.
    """
    await tx.execute(
        insert(reviews),
        {
            "review_id": UUID(change_id) if change_id else deps.ids.new_uuid(),
            "library_id": suggestion.library_id,
            "suggestion_id": suggestion.suggestion_id,
            "face_id": suggestion.face_id,
            "person_id": suggestion.person_id,
            "answer": answer,
            "confidence": suggestion.confidence,
            "evidence": suggestion.evidence.to_json(),
            "reviewer": reviewer,
            "created_at": deps.clock.now(),
        },
    )


async def find_change(tx: Transaction, suggestion: Suggestion) -> str:
    """The change that an answered suggestion made; empty if it changed nothing."""
    # By the moment of the answer first: that is what the index is on.
    found = await tx.scalar(
        select(changes.c.change_id)
        .join(reviews, func.coalesce(reviews.c.change_id, reviews.c.review_id) == changes.c.change_id)
        .where(
            reviews.c.library_id == suggestion.library_id,
            reviews.c.created_at >= suggestion.closed_at,
            reviews.c.suggestion_id == suggestion.suggestion_id,
        )
        .order_by(reviews.c.created_at.desc())
        .limit(1)
    )
    return str(found) if found is not None else ""
