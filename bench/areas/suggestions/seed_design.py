"""The design this one replaces, on the same stores: each prototype, each vector, each hit and each suggestion by itself.

A sample of the person's faces stands for them. For each: its vector is read from Qdrant, and the faces nearest to it are
searched, whoever has them. A face is as likely the person as its greatest cosine. Of each face at or above a fixed 0.7 its row
and its assignment are read from PostgreSQL, and one that nobody has becomes a suggestion by a statement of its own. There is
no rival, no near-duplicate and no memory of a no. Where it leaves something open it is given the better of it: one transaction
for all it writes, hits of several prototypes read once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from qdrant_client import models
from sqlalchemy import text

from bench.areas.suggestions.library import MODEL
from shared.foundation import Foundation

PROTOTYPES_SAMPLED: Final = 50
HITS_EACH: Final = 1000
THRESHOLD: Final = 0.7
SURE: Final = 0.85
"""From which it assigned by itself."""

_READ_FACES: Final = text("SELECT face_id FROM assignments WHERE person_id = :person_id ORDER BY face_id")
_READ_FACE: Final = text(
    "SELECT f.face_id, f.asset_id, f.quality, a.person_id FROM faces f LEFT JOIN assignments a USING (face_id)"
    " WHERE f.face_id = :face_id AND f.library_id = :library_id AND f.state = 'ACTIVE'"
)
_NO_TABLE: Final = text("DROP TABLE IF EXISTS seed_suggestions")
_TABLE: Final = text(
    "CREATE TABLE seed_suggestions (face_id uuid, person_id uuid, confidence real, state text,"
    " created_at timestamptz DEFAULT now(), PRIMARY KEY (face_id, person_id))"
)
_WRITE: Final = text(
    "INSERT INTO seed_suggestions (face_id, person_id, confidence, state)"
    " VALUES (:face_id, :person_id, :confidence, 'PENDING') ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class SeedRun:
    """What one person's run found, (face, person, cosine), and what it took; ``searching``: seconds of it in Qdrant."""

    found: Sequence[tuple[UUID, UUID, float]]
    seconds: float
    searching: float
    qdrant_calls: int
    statements: int


async def prepare_seed(base: Foundation) -> None:
    """Make its table, empty."""
    async with base.database.transaction() as tx:
        await tx.execute(_NO_TABLE)
        await tx.execute(_TABLE)


async def find_more_as_seed(
    base: Foundation,
    library_id: str,
    person_id: UUID,
    random: np.random.Generator,
    sampled: int = PROTOTYPES_SAMPLED,
) -> SeedRun:
    """Look for more faces of a person, with so many of theirs."""
    collection = base.collections.faces(MODEL)
    here = models.Filter(must=[models.FieldCondition(key="library_id", match=models.MatchValue(value=library_id))])
    begun = time.perf_counter()
    best: dict[UUID, float] = {}
    found: list[tuple[UUID, UUID, float]] = []
    calls = statements = 0
    searching = 0.0
    async with base.database.transaction() as tx:
        known = [row.face_id for row in await tx.rows(_READ_FACES, {"person_id": person_id})]
        statements += 1
    sample = random.choice(len(known), min(sampled, len(known)), replace=False)
    for face_id in (known[at] for at in sample):
        asked = time.perf_counter()
        record = (await base.qdrant.retrieve(collection, [str(face_id)], with_vectors=True))[0]
        answer = await base.qdrant.query_points(
            collection,
            query=record.vector,  # type: ignore[arg-type]
            query_filter=here,
            limit=HITS_EACH,
            score_threshold=THRESHOLD,
            with_payload=False,
        )
        calls += 2
        searching += time.perf_counter() - asked
        for hit in answer.points:
            hit_id = UUID(str(hit.id))
            best[hit_id] = max(best.get(hit_id, 0.0), hit.score)
    async with base.database.transaction() as tx:
        for face_id, score in best.items():
            face = await tx.one_or_none(_READ_FACE, {"face_id": face_id, "library_id": library_id})
            statements += 1
            if face is None or face.person_id is not None:
                continue
            await tx.execute(_WRITE, {"face_id": face_id, "person_id": person_id, "confidence": score})
            statements += 1
            found.append((face_id, person_id, score))
    return SeedRun(found, time.perf_counter() - begun, searching, calls, statements)
