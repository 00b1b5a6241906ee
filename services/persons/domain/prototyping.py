"""Keeping each person's prototypes: chosen anew from the best faces whenever the person's faces change."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.persons.domain.model import PersonsDeps, Prototype
from services.persons.repository.prototypes import (
    PersonFace,
    list_best_faces,
    list_owners,
    list_prototypes,
    replace_prototypes,
)
from shared.config import PersonSettings
from shared.db.engine import Transaction
from shared.faces.embeddings import decode_embeddings
from shared.faces.near_duplicates import group_photos, key_faces
from shared.faces.prototypes import PrototypeCandidate, PrototypeRules, choose_prototypes, measure_merit


async def refresh_prototypes(
    tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Sequence[UUID]
) -> set[UUID]:
    """Choose the prototypes of these persons anew; returns the faces that became one or ceased to be one.

    Who is merged or deleted has none. Three or four statements read and at most two write, whatever the number of persons.
    """
    owners = await list_owners(tx, person_ids)
    held = await list_prototypes(tx, person_ids)
    living = [owner for owner in owners if owner.living]
    pool = await list_best_faces(tx, library_id, living) if living else []
    chosen: list[Prototype] = []
    for owner in living:
        chosen += _choose(deps, [face for face in pool if face.person_id == owner.person_id])
    old = {(row.face_id, row.person_id): (row.role, row.era, row.pinned) for row in held}
    new = {(row.face_id, row.person_id): (row.role, row.era, row.pinned) for row in chosen}
    if old != new:
        await replace_prototypes(tx, library_id, person_ids, chosen)
    return {face_id for face_id, _ in old.keys() ^ new.keys()}


def _choose(deps: PersonsDeps, faces: Sequence[PersonFace]) -> list[Prototype]:
    if not faces:
        return []
    vectors = decode_embeddings([face.embedding for face in faces], len(faces[0].embedding) // 2)
    rules = PrototypeRules(
        max_prototypes=deps.settings.max_prototypes,
        max_per_era=deps.settings.max_prototypes_per_era,
        min_quality=deps.settings.prototype_min_quality,
    )
    return [
        Prototype(
            face_id=faces[chosen.index].face_id,
            person_id=faces[chosen.index].person_id,
            role=chosen.role,
            era=chosen.era,
            pinned=chosen.pinned,
            quality=faces[chosen.index].quality,
            created_at=deps.clock.now(),
            choice=faces[chosen.index].choice,
        )
        for chosen in choose_prototypes(_make_candidates(faces, deps.settings), vectors, rules)
    ]


def _make_candidates(faces: Sequence[PersonFace], settings: PersonSettings) -> list[PrototypeCandidate]:
    photos = {face.asset_id: face.stamp for face in faces}
    leaders = group_photos(
        list(photos.values()), max_bits=settings.near_duplicate_bits, max_seconds=settings.near_duplicate_s
    )
    keys = key_faces([face.place for face in faces], leaders)
    return [
        PrototypeCandidate(
            face_id=str(face.face_id),
            asset_id=face.asset_id,
            quality=face.quality,
            merit=measure_merit(face.quality, face.size, face.yaw, face.pitch),
            near_duplicate_key=keys[str(face.face_id)],
            era=face.era,
            choice=face.choice,
        )
        for face in faces
    ]
