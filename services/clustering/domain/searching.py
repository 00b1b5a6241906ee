"""Finding a person's unassigned faces by the person's centroids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np

from services.clustering.domain.averaging import compute_stale, store_computed
from services.clustering.domain.model import ActiveModel, Centroid, ClusteringDeps
from services.clustering.domain.ports import NearFace, UnassignedFaces
from services.clustering.repository.candidates import (
    Candidate,
    list_excluded_faces,
    read_birth_date,
    read_candidates,
)
from services.clustering.repository.centroids import list_centroids_of, require_persons
from services.clustering.repository.unassigned import find_active_model
from shared.db.engine import Database
from shared.errors import PreconditionFailed, Reason
from shared.faces.eras import is_before_birth
from shared.faces.matching import ARCFACE_FLOOR
from shared.faces.near_duplicates import group_photos, key_faces

MAX_FOUND = 1000

# Named in the search, the latest first; the others are left out of what it found.
EXCLUDED_IN_QUERY = 1000


@dataclass(frozen=True, slots=True)
class SearchByCentroid:
    """Whose faces to find; ``min_cosine`` None = the pack's floor for suggestions."""

    library_id: str
    person_id: UUID
    limit: int
    min_cosine: float | None
    min_quality: float


@dataclass(frozen=True, slots=True)
class CentroidMatch:
    """A face, its best cosine over the person's centroids, and the centroid that gave it."""

    face_id: UUID
    asset_id: str
    cosine: float
    centroid_id: UUID


async def search_by_centroid(
    database: Database, deps: ClusteringDeps, index: UnassignedFaces, command: SearchByCentroid
) -> list[CentroidMatch]:
    """Unassigned faces most like a person, best first; of near-duplicate photos the best face only.

    No face that is excluded, or of a photo taken before the person was born. Computes stale centroids first. A fixed number of
    statements. Raises :class:`NotFound`, or :class:`PreconditionFailed` with FACE_NOT_ASSIGNED if the person has no faces, or
    is merged or deleted.
    """
    async with database.transaction() as tx:
        await require_persons(tx, command.library_id, [command.person_id])
        model = await find_active_model(tx, command.library_id)
    if model is None:
        raise _no_faces(command.person_id)
    computation = await compute_stale(database, model, [command.person_id])
    if computation.settles:
        async with database.transaction() as tx:
            await store_computed(tx, deps, command.library_id, model, computation)
    async with database.snapshot() as tx:
        centroids = await list_centroids_of(tx, command.library_id, model, [command.person_id])
        excluded = await list_excluded_faces(tx, command.person_id, EXCLUDED_IN_QUERY)
        born = await read_birth_date(tx, command.person_id)
    if not centroids:
        raise _no_faces(command.person_id)
    answers = await index.find_nearest(
        command.library_id,
        model.model_version,
        np.stack([centroid.vector for centroid in centroids]),
        # Near-duplicates fall out afterwards.
        limit=min(MAX_FOUND, 2 * command.limit),
        min_cosine=_floor(command, model),
        min_quality=command.min_quality,
        excluded=excluded,
        # To the year, as a photo may be; the rest is decided with its own precision.
        captured_from=datetime(born.earliest.year, 1, 1, tzinfo=UTC) if born else None,
    )
    matches = _merge(centroids, answers)
    async with database.transaction() as tx:
        found = await read_candidates(tx, command.library_id, command.person_id, [match.face_id for match in matches])
    known = {face_id: face for face_id, face in found.items() if not is_before_birth(born, face.captured)}
    return _collapse(deps, matches, known)[: command.limit]


def _floor(command: SearchByCentroid, model: ActiveModel) -> float:
    if command.min_cosine is not None:
        return command.min_cosine
    return model.thresholds.get("suggest_floor", ARCFACE_FLOOR)


def _merge(centroids: Sequence[Centroid], answers: Sequence[Sequence[NearFace]]) -> list[CentroidMatch]:
    """Each face once, with its best cosine, best first."""
    best: dict[UUID, CentroidMatch] = {}
    for centroid, answer in zip(centroids, answers, strict=True):
        for face in answer:
            if face.face_id not in best or face.cosine > best[face.face_id].cosine:
                best[face.face_id] = CentroidMatch(face.face_id, face.asset_id, face.cosine, centroid.centroid_id)
    return sorted(best.values(), key=lambda match: (-match.cosine, match.face_id))


def _collapse(
    deps: ClusteringDeps, matches: Sequence[CentroidMatch], known: Mapping[UUID, Candidate]
) -> list[CentroidMatch]:
    """Leave out faces that are not to be found any more, and all but the best of each face seen in near-duplicates."""
    rules = deps.suggestions
    leaders = group_photos(
        list({candidate.photo.asset_id: candidate.photo for candidate in known.values()}.values()),
        max_bits=rules.near_duplicate_bits,
        max_seconds=rules.near_duplicate_s,
    )
    keys = key_faces([candidate.place for candidate in known.values()], leaders)
    seen = set()
    kept: list[CentroidMatch] = []
    for match in matches:
        if match.face_id not in known or keys[str(match.face_id)] in seen:
            continue
        seen.add(keys[str(match.face_id)])
        kept.append(match)
    return kept


def _no_faces(person_id: UUID) -> PreconditionFailed:
    return PreconditionFailed(
        f"person '{person_id}' has no faces to search by",
        reason=Reason.FACE_NOT_ASSIGNED,
        metadata={"person_id": str(person_id)},
    )
