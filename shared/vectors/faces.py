"""Searches among face embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import grpc
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from shared.vectors.collections import Collections

# How widely an HNSW index is searched for the neighbours of a graph; Qdrant's own default is 100. Exact searches ignore it.
ALIKE_EF = 128


@dataclass(frozen=True, slots=True)
class FaceFilter:
    """Which faces may be found. ``excluded`` faces are left out by id; with ``captured_from`` so are photos known to be
    older, with ``captured_before`` those known to be as late.
    """

    library_id: str
    unassigned: bool = False
    person_id: UUID | None = None
    min_quality: float = 0.0
    states: tuple[str, ...] = ("ACTIVE",)
    excluded: tuple[UUID, ...] = ()
    captured_from: datetime | None = None
    captured_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class FaceHit:
    """A face that was found; ``cosine`` -1..1."""

    face_id: UUID
    asset_id: str
    cosine: float


@dataclass(frozen=True, slots=True)
class AlikeFaces:
    """What is near one face, nearest first: ``face_ids`` (H,) as 16 bytes each (S16), ``cosines`` (H,) float32. Arrays, because
    a graph is made of millions of them.
    """

    face_ids: NDArray[np.bytes_]
    cosines: NDArray[np.float32]

    @classmethod
    def none(cls) -> AlikeFaces:
        """Nothing."""
        return cls(np.empty(0, dtype="S16"), np.empty(0, dtype=np.float32))


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

    async def find_alike(
        self, model_version: str, face_ids: Sequence[UUID], where: FaceFilter, limit: int, min_cosine: float
    ) -> list[AlikeFaces]:
        """The ``limit`` nearest faces of each of these faces, never the face itself, in one call that sends no vectors.

        Raises ``AioRpcError`` NOT_FOUND if one of them has no point: :meth:`find_present` tells which.
        """
        if not face_ids:
            return []
        params = models.SearchParams(hnsw_ef=max(ALIKE_EF, 2 * limit))
        condition = _filter(where)
        answers = await self._client.query_batch_points(
            self._collections.faces(model_version),
            [
                models.QueryRequest(
                    query=str(face_id),
                    filter=condition,
                    params=params,
                    limit=limit,
                    score_threshold=min_cosine,
                    with_payload=False,
                )
                for face_id in face_ids
            ],
        )
        return [
            AlikeFaces(
                pack_ids(str(hit.id) for hit in answer.points),
                np.array([hit.score for hit in answer.points], dtype=np.float32),
            )
            for answer in answers
        ]

    async def find_present(self, model_version: str, face_ids: Sequence[UUID], where: FaceFilter) -> set[UUID]:
        """Those of at most 10,000 faces that a search with ``where`` could find: their points are there, with such payloads.
        Without a collection that is none.
        """
        try:
            points, _ = await self._client.scroll(
                self._collections.faces(model_version),
                _filter(where, among=face_ids),
                max(1, len(face_ids)),
                with_payload=False,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            # Qdrant was lost, collection and all.
            return set()
        return {UUID(str(point.id)) for point in points}


def pack_ids(face_ids: Iterable[str]) -> NDArray[np.bytes_]:
    """Ids as bytes, (N,) S16."""
    return np.frombuffer(bytes.fromhex("".join(face_ids).replace("-", "")), dtype="S16")


def _filter(where: FaceFilter, among: Sequence[UUID] | None = None) -> models.Filter:
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
    if where.captured_from is not None or where.captured_before is not None:
        then = models.DatetimeRange(gte=where.captured_from, lt=where.captured_before)
        then_taken = models.FieldCondition(key="captured_at", range=then)
        unknown = models.IsEmptyCondition(is_empty=models.PayloadField(key="captured_at"))
        must.append(models.Filter(should=[then_taken, unknown]))
    if among is not None:
        must.append(models.HasIdCondition(has_id=[str(face_id) for face_id in among]))
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
