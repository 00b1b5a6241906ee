"""SQL of many answers at once: as many statements for five hundred as for one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, case, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from services.suggestions.domain.model import Suggestion, SuggestionsDeps, SuggestionState
from services.suggestions.repository.reviews import PairStanding, make_standing, with_standing
from services.suggestions.repository.suggestions import make_suggestion, select_suggestions
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.tables_suggestions import reviews, suggestions


@dataclass(frozen=True, slots=True)
class AskedPair:
    """A suggestion, and what the persons service holds of its pair."""

    suggestion: Suggestion
    standing: PairStanding


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer to keep: ACCEPTED or REJECTED, and the change it made; None if nothing had to change."""

    suggestion: Suggestion
    state: SuggestionState
    change_id: UUID | None


async def get_asked_pairs(tx: Transaction, library_id: str, suggestion_ids: Collection[UUID]) -> dict[UUID, AskedPair]:
    """Those of these suggestions that are there, by id."""
    rows = await tx.rows(
        with_standing(select_suggestions()).where(
            suggestions.c.library_id == library_id, suggestions.c.suggestion_id == func.any(list(suggestion_ids))
        )
    )
    return {row.suggestion_id: AskedPair(make_suggestion(row), make_standing(row)) for row in rows}


async def lock_asked_faces(tx: Transaction, library_id: str, suggestion_ids: Collection[UUID]) -> None:
    """Lock these suggestions and all others about their faces."""
    named = select(suggestions.c.face_id).where(suggestions.c.suggestion_id == func.any(list(suggestion_ids)))
    await tx.execute(
        select(suggestions.c.suggestion_id)
        .where(suggestions.c.library_id == library_id, suggestions.c.face_id.in_(named))
        .order_by(suggestions.c.face_id, suggestions.c.person_id)
        .with_for_update(key_share=True)
    )


async def close_answered(tx: Transaction, clock: Clock, given: Sequence[GivenAnswer], reviewer: str) -> None:
    """Store answers to locked suggestions, and close the other open questions about the faces that were accepted."""
    accepted = [each.suggestion for each in given if each.state is SuggestionState.ACCEPTED]
    rejected = [each.suggestion.suggestion_id for each in given if each.state is SuggestionState.REJECTED]
    yes = suggestions.c.suggestion_id == func.any([each.suggestion_id for each in accepted])
    no = suggestions.c.suggestion_id == func.any(rejected)
    rival = and_(
        suggestions.c.face_id == func.any([each.face_id for each in accepted]),
        suggestions.c.state == SuggestionState.PENDING.value,
    )
    await tx.execute(
        update(suggestions)
        .where(or_(yes, no, rival))
        .values(
            state=case(
                (yes, SuggestionState.ACCEPTED.value),
                (no, SuggestionState.REJECTED.value),
                else_=SuggestionState.EXPIRED.value,
            ),
            reviewed_by=case((or_(yes, no), reviewer), else_=suggestions.c.reviewed_by),
            closed_at=clock.now(),
            version=suggestions.c.version + 1,
        )
    )


async def insert_reviews(tx: Transaction, deps: SuggestionsDeps, given: Sequence[GivenAnswer], reviewer: str) -> None:
    """Keep answers with the evidence they were given on, which is still on the rows of the suggestions."""
    arrays = func.unnest(
        bindparam("review_ids", type_=ARRAY(Uuid())),
        bindparam("suggestion_ids", type_=ARRAY(Uuid())),
        bindparam("answers", type_=ARRAY(Text())),
        bindparam("change_ids", type_=ARRAY(Uuid())),
    )
    rows = arrays.table_valued("review_id", "suggestion_id", "answer", "change_id").render_derived(name="given")
    kept = select(
        rows.c.review_id,
        suggestions.c.library_id,
        suggestions.c.suggestion_id,
        suggestions.c.face_id,
        suggestions.c.person_id,
        rows.c.answer,
        suggestions.c.confidence,
        suggestions.c.evidence,
        literal(reviewer, Text),
        literal(deps.clock.now(), TIMESTAMP),
        rows.c.change_id,
    ).join_from(suggestions, rows, suggestions.c.suggestion_id == rows.c.suggestion_id)
    names = [
        "review_id",
        "library_id",
        "suggestion_id",
        "face_id",
        "person_id",
        "answer",
        "confidence",
        "evidence",
        "reviewer",
        "created_at",
        "change_id",
    ]
    await tx.execute(
        insert(reviews).from_select(names, kept),
        {
            "review_ids": [deps.ids.new_uuid() for _ in given],
            "suggestion_ids": [each.suggestion.suggestion_id for each in given],
            "answers": ["ACCEPT" if each.state is SuggestionState.ACCEPTED else "REJECT" for each in given],
            "change_ids": [each.change_id for each in given],
        },
    )
