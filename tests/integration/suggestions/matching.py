"""Calls of MatchFace and ExplainSuggestion, and what is compared of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import insert, update

from kith.suggestions.v1 import suggestions_pb2 as pb
from shared.db.outbox import PointKind, queue_faces, queue_points
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import faces as face_table
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.library import MODEL
from tests.integration.suggestions.album import Person, wait_indexed
from tests.integration.suggestions.conftest import Questions


async def match(base: Foundation, questions: Questions, face_id: UUID, **fields: Any) -> list[pb.MatchCandidate]:
    """Who a face may be, once Qdrant shows what PostgreSQL says; what is refused is raised as the error of ours it is."""
    await wait_indexed(base)
    async with translate_errors("suggestions"):
        answer = await questions.suggestions.MatchFace(pb.MatchFaceRequest(face_id=str(face_id), **fields))
    return list(answer.candidates)


async def match_one(base: Foundation, questions: Questions, face_id: UUID, person: Person) -> pb.MatchCandidate:
    """One of them."""
    found = {each.person_id: each for each in await match(base, questions, face_id)}
    return found[str(person.person_id)]


async def explain(base: Foundation, questions: Questions, suggestion_id: str, **fields: Any) -> Any:
    """Why a suggestion was made, and what it would be today."""
    await wait_indexed(base)
    async with translate_errors("suggestions"):
        return await questions.suggestions.ExplainSuggestion(
            pb.ExplainSuggestionRequest(suggestion_id=suggestion_id, **fields)
        )


async def set_state(base: Foundation, face_id: UUID, state: str) -> None:
    """Put a face away, or take it back."""
    async with base.database.transaction() as tx:
        await tx.execute(update(face_table).where(face_table.c.face_id == face_id).values(state=state))
        await queue_faces(tx, base.clock, "default", [face_id])


async def add_mode(base: Foundation, person: Person, vector: NDArray[np.float32]) -> None:
    """A mode centroid, as the clustering service would have computed it."""
    centroid_id = base.ids.new_uuid()
    async with base.database.transaction() as tx:
        await tx.execute(
            insert(centroids),
            {
                "centroid_id": centroid_id,
                "library_id": "default",
                "person_id": person.person_id,
                "model_version": MODEL,
                "kind": "CLUSTER",
                "mode": 0,
                "embedding": encode_embedding(vector),
                "face_count": 2,
                "trimmed_count": 0,
                "members_hash": b"",
                "version": 1,
                "computed_at": base.clock.now(),
            },
        )
        await queue_points(tx, base.clock, PointKind.CENTROID, "default", [(centroid_id, MODEL)])


def assert_alike(found: pb.Evidence, wanted: pb.Evidence) -> None:
    """Equal, but for the last digits of sums in another order."""
    for name in ("score", "margin", "quality", "era_score"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-5), name
    assert [found.HasField(name) for name in ("margin", "era_score")] == [
        wanted.HasField(name) for name in ("margin", "era_score")
    ]
    for name in ("runner_up_person_id", "support", "same_photo"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert _list_exemplars(found.exemplars) == _list_exemplars(wanted.exemplars)
    cosines = [each.cosine for each in wanted.exemplars]
    assert [each.cosine for each in found.exemplars] == pytest.approx(cosines, abs=1e-5)


def _list_exemplars(exemplars: Sequence[pb.ExemplarMatch]) -> list[tuple[str, int, int]]:
    return [(each.face_id, each.era, each.role) for each in exemplars]
