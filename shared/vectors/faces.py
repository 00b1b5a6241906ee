"""Searches among face embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from shared.vectors.collections import Collections


@dataclass(frozen=True, slots=True)
class FaceFilter:
    """Which faces may be found. ``excluded`` faces are left out by id; with ``captured_from`` so are photos known to be
    older.
    """

    library_id: str
    unassigned: bool = False
    person_id: UUID | None = None
    min_quality: float = 0.0
    states: tuple[str, ...] = ("ACTIVE",)
    excluded: tuple[UUID, ...] = ()
    captured_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class FaceHit:
    """A face that was found; ``cosine`` -1..1."""

    face_id: UUID
    asset_id: str
    cosine: float


class FaceIndex:
    """The collections of face embeddings."""

    def __init__(self, client: AsyncQdrantClient, collections: Collections) -> None:
        self._client = client
        self._collections = collections

    async def search(
        self,
        model_version: str,
        vectors: NDArray[np.float32],
        where: FaceFilter | Sequence[FaceFilter],
        limit: int,
        min_cosine: float,
    ) -> list[list[FaceHit]]:
        """The ``limit`` nearest faces of each query, best first, in one call.

        ``vectors``: float32, (queries, dimension), unit length; ``where`` is one filter for all, or one for each.
        Answers one list per query.
        """
        if not len(vectors):
            return []
        conditions = (
            [_filter(where)] * len(vectors) if isinstance(where, FaceFilter) else [_filter(each) for each in where]
        )
        answers = await self._client.query_batch_points(
            self._collections.faces(model_version),
            [
                models.QueryRequest(
                    query=vector.tolist(),
                    filter=condition,
                    limit=limit,
                    score_threshold=min_cosine,
                    with_payload=["asset_id"],
                )
                for vector, condition in zip(vectors, conditions, strict=True)
            ],
        )
        return [
            [FaceHit(UUID(str(hit.id)), (hit.payload or {})["asset_id"], hit.score) for hit in answer.points]
            for answer in answers
        ]


def _filter(where: FaceFilter) -> models.Filter:
    def matches(key: str, value: str | bool) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))

    must: list[models.Condition] = [matches("library_id", where.library_id)]
    if where.states:
        must.append(models.FieldCondition(key="state", match=models.MatchAny(any=list(where.states))))
    if where.unassigned:
        must.append(matches("assigned", False))
    if where.person_id is not None:
        must.append(matches("person_id", str(where.person_id)))
    if where.min_quality > 0:
        must.append(models.FieldCondition(key="quality", range=models.Range(gte=where.min_quality)))
    if where.captured_from is not None:
        later = models.FieldCondition(key="captured_at", range=models.DatetimeRange(gte=where.captured_from))
        unknown = models.IsEmptyCondition(is_empty=models.PayloadField(key="captured_at"))
        must.append(models.Filter(should=[later, unknown]))
    must_not: list[models.Condition] = []
    if where.excluded:
        must_not.append(models.HasIdCondition(has_id=[str(face_id) for face_id in where.excluded]))
    return models.Filter(must=must, must_not=must_not or None)


def merge_hits(answers: Sequence[Sequence[FaceHit]]) -> list[FaceHit]:
    """Each face once, with its best cosine, best first."""
    best: dict[UUID, FaceHit] = {}
    for answer in answers:
        for hit in answer:
            if hit.face_id not in best or hit.cosine > best[hit.face_id].cosine:
                best[hit.face_id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.cosine, hit.face_id))
