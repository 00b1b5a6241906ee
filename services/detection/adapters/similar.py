"""Searches among the faces of a library, in Qdrant."""

from __future__ import annotations

from uuid import UUID

import numpy as np

from services.detection.domain.ports import NearFace
from shared.faces.embeddings import Vectors
from shared.vectors.faces import FaceFilter, FaceIndex


class IndexedFaceSearch:
    """:class:`~services.detection.domain.ports.FaceSearch` on the collections of face embeddings."""

    def __init__(self, index: FaceIndex) -> None:
        self._index = index

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vector: Vectors,
        *,
        limit: int,
        min_cosine: float,
        unassigned: bool,
        person_id: UUID | None,
        excluded: UUID | None,
    ) -> list[NearFace]:
        where = FaceFilter(
            library_id,
            unassigned=unassigned,
            person_id=person_id,
            excluded=() if excluded is None else (excluded,),
        )
        (answer,) = await self._index.search(model_version, np.stack([vector]), where, limit, min_cosine)
        return [NearFace(hit.face_id, hit.cosine) for hit in answer]
