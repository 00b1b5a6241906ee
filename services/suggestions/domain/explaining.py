"""Why a suggestion was made, and what the same pair comes to today."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.suggestions.domain.matching import PersonMatch, match_pair
from services.suggestions.domain.model import Suggestion, SuggestionsDeps
from services.suggestions.domain.ports import PersonSearch
from services.suggestions.repository.suggestions import get_suggestion
from shared.db.engine import Database


@dataclass(frozen=True, slots=True)
class Explanation:
    """A suggestion with the evidence it was made on, and its pair as it would be judged now."""

    suggestion: Suggestion
    today: PersonMatch


async def explain_suggestion(
    database: Database, deps: SuggestionsDeps, search: PersonSearch, library_id: str, suggestion_id: UUID
) -> Explanation:
    """One suggestion, then and now; nothing is stored.

    Raises :class:`NotFound`, and :class:`PreconditionFailed` with MODEL_MISMATCH for a face without an embedding of the
    library's active model.
    """
    async with database.snapshot() as tx:
        suggestion = await get_suggestion(tx, library_id, suggestion_id)
    today = await match_pair(database, deps, search, library_id, suggestion.face_id, suggestion.person_id)
    return Explanation(suggestion, today)
