"""Searches among what people are recognised by: their prototypes and mode centroids."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from shared.faces.modes import ModeRules
from shared.vectors.collections import Collections

PERSON: Final = "person_id"


class PersonIndex:
    """The points of prototypes and mode centroids. Nobody has more than ``most_prototypes``."""

    def __init__(self, client: AsyncQdrantClient, collections: Collections, most_prototypes: int) -> None:
        self._client = client
        self._collections = collections
        self._most_prototypes = most_prototypes

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vector: NDArray[np.float32],
        without: Sequence[Collection[UUID]],
        limit: int,
        *,
        without_face: UUID,
    ) -> set[UUID]:
        """The ``limit`` persons nearest to a unit vector (D,), once for each collection of persons to leave out.

        A person is as near as their nearest prototype or mode centroid, other than the prototype ``without_face``. One call
        for the prototypes and one for the centroids, at the same time; however far the nearest are, they are found.
        """
        face = models.HasIdCondition(has_id=[str(without_face)])
        prototypes = [_filter(library_id, "prototype", True, persons, face) for persons in without]
        modes = [_filter(library_id, "kind", "CLUSTER", persons) for persons in without]
        faces, centroids = self._collections.faces(model_version), self._collections.centroids(model_version)
        async with asyncio.TaskGroup() as group:
            by_face = group.create_task(self._query(faces, vector, prototypes, limit, self._most_prototypes))
            by_mode = group.create_task(self._query(centroids, vector, modes, limit, ModeRules().max_modes))
        return by_face.result() | by_mode.result()

    async def _query(
        self, collection: str, vector: NDArray[np.float32], filters: Sequence[models.Filter], limit: int, each: int
    ) -> set[UUID]:
        # Were every person there with as many points as may be, the nearest so many would still be of ``limit`` persons.
        query = vector.tolist()
        answers = await self._client.query_batch_points(
            collection,
            [
                models.QueryRequest(query=query, filter=condition, limit=limit * each, with_payload=[PERSON])
                for condition in filters
            ],
        )
        found: set[UUID] = set()
        for answer in answers:
            persons = dict.fromkeys((hit.payload or {})[PERSON] for hit in answer.points)
            found.update(UUID(person_id) for person_id in list(persons)[:limit])
        return found


def _filter(
    library_id: str, key: str, value: str | bool, without: Collection[UUID], *but: models.Condition
) -> models.Filter:
    must_not = list(but)
    if without:
        names = sorted(str(person_id) for person_id in without)
        must_not.append(models.FieldCondition(key=PERSON, match=models.MatchAny(any=names)))
    return models.Filter(
        must=[
            models.FieldCondition(key="library_id", match=models.MatchValue(value=library_id)),
            models.FieldCondition(key=key, match=models.MatchValue(value=value)),
        ],
        must_not=must_not or None,
    )
