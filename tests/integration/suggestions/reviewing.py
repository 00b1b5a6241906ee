"""Answers and what became of them, as tests of reviewing need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.caller import Caller
from shared.db.tables_persons import assignments, changes, exclusions
from shared.db.tables_suggestions import reviews
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.suggestions.conftest import Questions

YES, NO = pb.REVIEW_ANSWER_ACCEPT, pb.REVIEW_ANSWER_REJECT
PENDING = pb.SUGGESTION_STATE_PENDING
ACCEPTED, REJECTED, EXPIRED = (
    pb.SUGGESTION_STATE_ACCEPTED,
    pb.SUGGESTION_STATE_REJECTED,
    pb.SUGGESTION_STATE_EXPIRED,
)

# Of answers that a test takes through the steps by itself.
CALLER = Caller("tester", "kith.suggestions.v1.BatchReviewSuggestions")


def review(suggestion_id: str, answer: int, etag: str = "1") -> pb.SuggestionReview:
    """An answer; ``etag`` of a question nothing has happened to."""
    return pb.SuggestionReview(suggestion_id=suggestion_id, etag=etag, answer=answer)  # type: ignore[arg-type]


async def send(questions: Questions, *given: pb.SuggestionReview, **fields: Any) -> pb.BatchReviewSuggestionsResponse:
    """Answer many at once."""
    request = pb.BatchReviewSuggestionsRequest(reviews=given, **fields)
    async with translate_errors("suggestions"):
        return await questions.suggestions.BatchReviewSuggestions(request)


async def owners(base: Foundation) -> dict[UUID, UUID]:
    """Whose each face is."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(assignments.c.face_id, assignments.c.person_id))
    return {row.face_id: row.person_id for row in rows}


async def excluded(base: Foundation) -> set[tuple[UUID, UUID]]:
    """Pairs that are excluded."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(exclusions.c.face_id, exclusions.c.person_id))
    return {(row.face_id, row.person_id) for row in rows}


async def ledger(base: Foundation) -> list[tuple[str, int]]:
    """What was done to faces, and to how many."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(changes.c.kind, changes.c.face_count).order_by(changes.c.sequence))
    return [(row.kind, row.face_count) for row in rows if row.kind.startswith("FACE")]


async def answers(base: Foundation) -> list[Mapping[str, Any]]:
    """The answers that were kept."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(reviews).order_by(reviews.c.created_at, reviews.c.review_id))
    return [row._mapping for row in rows]
