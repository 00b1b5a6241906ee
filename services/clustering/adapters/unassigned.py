"""Searches among unassigned faces, in Qdrant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.clustering.domain.ports import NearFace
from shared.faces.embeddings import Vectors
from shared.vectors.faces import FaceFilter, FaceIndex


class IndexedFaces:
    """:class:`~services.clustering.domain.ports.UnassignedFaces` over the index of face embeddings."""

    def __init__(self, index: FaceIndex) -> None:
        self._index = index

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vectors: Vectors,
        *,
        limit: int,
        min_cosine: float,
        min_quality: float,
        excluded: Sequence[UUID],
        captured_from: datetime | None,
    ) -> list[list[NearFace]]:
        where = FaceFilter(
            library_id,
            unassigned=True,
            min_quality=min_quality,
            excluded=tuple(excluded),
            captured_from=captured_from,
        )
        answers = await self._index.search(model_version, vectors, where, limit, min_cosine)
        return [[NearFace(hit.face_id, hit.asset_id, hit.cosine) for hit in answer] for answer in answers]
