"""Searches among unassigned faces, in Qdrant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import numpy as np

from services.suggestions.domain.ports import FacesWithin, PersonQuery
from shared.vectors.faces import FaceFilter, FaceIndex

# What one answer may hold: 20 MB.
HITS_PER_CALL: Final = 200_000


class IndexedFaceSearch:
    """:class:`~services.suggestions.domain.ports.FaceSearch` and ``FaceCensus`` on the collections of face embeddings."""

    def __init__(self, index: FaceIndex) -> None:
        self._index = index

    async def find_unassigned(
        self, library_id: str, model_version: str, queries: Sequence[PersonQuery], limit: int, min_cosine: float
    ) -> set[UUID]:
        if not queries:
            return set()
        filters = [
            condition for query in queries for condition in [_make_filter(library_id, query)] * len(query.vectors)
        ]
        vectors = np.concatenate([query.vectors for query in queries])
        found: set[UUID] = set()
        step = max(1, HITS_PER_CALL // limit)
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            answers = await self._index.search(model_version, vectors[part], filters[part], limit, min_cosine)
            found |= {hit.face_id for answer in answers for hit in answer}
        return found

    async def find_all_unassigned(
        self, library_id: str, model_version: str, query: PersonQuery, limit: int, min_cosine: float
    ) -> FacesWithin:
        where = _make_filter(library_id, query)
        answers = await self._index.search(model_version, query.vectors, where, limit, min_cosine)
        full = [answer[-1].cosine for answer in answers if len(answer) == limit]
        return FacesWithin({hit.face_id for answer in answers for hit in answer}, max([min_cosine, *full]))


def _make_filter(library_id: str, query: PersonQuery) -> FaceFilter:
    return FaceFilter(
        library_id,
        unassigned=True,
        excluded=query.excluded,
        captured_from=datetime(query.birth_year, 1, 1, tzinfo=UTC) if query.birth_year else None,
    )
