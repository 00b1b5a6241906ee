"""Keeping each person's prototypes: chosen anew from the best faces whenever the person's faces change."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.persons.domain.model import PersonsDeps, Prototype
from services.persons.repository.prototypes import (
    PersonFace,
    list_best_faces,
    list_prototypes,
    replace_prototypes,
)
from shared.db.engine import Transaction
from shared.faces.embeddings import decode_embeddings
from shared.faces.eras import find_era
from shared.faces.prototypes import PrototypeCandidate, PrototypeRules, choose_prototypes

# Prototypes are chosen among so many of a person's best faces, so that the cost of one more face does not grow with
# the number of faces a person has.
POOL = 200


async def refresh_prototypes(
    tx: Transaction, deps: PersonsDeps, library_id: str, person_ids: Sequence[UUID]
) -> set[UUID]:
    """Choose the prototypes of these persons anew; returns the faces that became one or ceased to be one.

    Two statements read and at most two write, whatever the number of persons.
    """
    held = await list_prototypes(tx, person_ids)
    pool = await list_best_faces(tx, library_id, person_ids, POOL)
    chosen: list[Prototype] = []
    for person_id in person_ids:
        pinned = {row.face_id: row for row in held if row.person_id == person_id and row.pinned}
        chosen += _choose(deps, person_id, [face for face in pool if face.person_id == person_id], pinned)
    old = {(row.face_id, row.person_id): (row.role, row.era, row.pinned) for row in held}
    new = {(row.face_id, row.person_id): (row.role, row.era, row.pinned) for row in chosen}
    if old != new:
        await replace_prototypes(tx, library_id, person_ids, chosen)
    return {face_id for face_id, _ in old.keys() ^ new.keys()}


def _choose(
    deps: PersonsDeps, person_id: UUID, faces: Sequence[PersonFace], pinned: dict[UUID, Prototype]
) -> list[Prototype]:
    if not faces:
        return []
    vectors = decode_embeddings([face.embedding for face in faces], len(faces[0].embedding) // 2)
    candidates = [
        PrototypeCandidate(
            face_id=str(face.face_id),
            asset_id=face.asset_id,
            quality=face.quality,
            era=find_era(face.birth_date, face.captured),
            pinned=pinned[face.face_id].role if face.face_id in pinned else None,
        )
        for face in faces
    ]
    rules = PrototypeRules(
        max_prototypes=deps.settings.max_prototypes,
        max_per_era=deps.settings.max_prototypes_per_era,
        min_quality=deps.settings.prototype_min_quality,
    )
    return [
        Prototype(
            face_id=faces[choice.index].face_id,
            person_id=person_id,
            role=choice.role,
            era=choice.era,
            pinned=choice.pinned,
            quality=faces[choice.index].quality,
            created_at=deps.clock.now(),
        )
        for choice in choose_prototypes(candidates, vectors, rules)
    ]
