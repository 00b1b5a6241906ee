"""Reading back what Qdrant holds of persons."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import grpc.aio
from qdrant_client import AsyncQdrantClient, models

from shared.db.outbox import PointKind
from shared.vectors.collections import Collections


class IndexedPoints:
    """:class:`~services.persons.domain.ports.PersonPoints` on the collections of faces and centroids."""

    def __init__(self, client: AsyncQdrantClient, collections: Collections) -> None:
        self._client = client
        self._collections = collections

    def name_collection(self, kind: PointKind, model_version: str) -> str:
        return self._collections.named(kind, model_version)

    async def count(self, kind: PointKind, library_id: str, model_version: str, person_ids: Sequence[UUID]) -> int:
        of_library = models.FieldCondition(key="library_id", match=models.MatchValue(value=library_id))
        theirs = models.FieldCondition(key="person_id", match=models.MatchAny(any=[str(name) for name in person_ids]))
        where = models.Filter(must=[of_library, theirs])
        try:
            found = await self._client.count(self.name_collection(kind, model_version), count_filter=where, exact=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            # Qdrant was lost, collection and all, or the model's were taken down.
            return 0
        return found.count
