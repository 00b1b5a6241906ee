"""Questions put straight into the table, for tests of what happens to them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from services.suggestions.domain.model import Evidence, Question, SuggestionMethod, SuggestionsDeps
from services.suggestions.repository.questions import store_questions
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import Person


async def ask(
    base: Foundation, faces: SeededFaces, pairs: Sequence[tuple[int, Person, float]], *, library_id: str = "default"
) -> list[str]:
    """Ask about (face number, person, confidence); returns the suggestions' ids in that order."""
    deps = SuggestionsDeps(base.clock, base.ids, base.settings.suggestions)
    evidence = Evidence(0.6, None, None, 1, (), 0.8, None)
    questions = [
        Question(faces.face_ids[row], faces.asset_ids[row], person.person_id, confidence, evidence)
        for row, person, confidence in pairs
    ]
    async with base.database.transaction() as tx:
        await store_questions(tx, deps, library_id, base.ids.new_uuid(), SuggestionMethod.PROTOTYPES, questions)
        rows = await tx.rows(select(suggestions.c.suggestion_id, suggestions.c.face_id, suggestions.c.person_id))
    ids: dict[tuple[UUID, UUID], str] = {(row.face_id, row.person_id): str(row.suggestion_id) for row in rows}
    return [ids[faces.face_ids[row], person.person_id] for row, person, _ in pairs]


async def expire_settled(base: Foundation, *people: Person) -> None:
    """Close the open questions about these people that are settled, as a job that finds nothing more does."""
    deps = SuggestionsDeps(base.clock, base.ids, base.settings.suggestions)
    settle = [person.person_id for person in people]
    async with base.database.transaction() as tx:
        await store_questions(tx, deps, "default", base.ids.new_uuid(), SuggestionMethod.PROTOTYPES, [], settle)
