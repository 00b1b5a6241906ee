"""Libraries of people who look alike in pairs: whoever is refused for a face, the next best is close behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from services.detection.domain.migrating import start_migration
from services.detection.domain.migration import FaceVector
from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.repository.unembedded import add_vectors
from shared.caller import Caller
from shared.db.outbox import PointKind, queue_points
from shared.db.tables_detection import models
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from tests.integration.library import MODEL, SeededFaces, seed_faces

PEOPLE, EACH, DIMENSION = 6, 5, 32
FACES = PEOPLE * EACH
NEXT = "test_next"
THRESHOLDS = {"suggest_floor": 0.3}
CALIBRATION = {"slope": 20.0, "intercept": -8.0}
# Cosine of the two people of each pair.
ALIKE = (0.9, 0.8, 0.65)
# Cosine of a face to its person.
LIKENESS = 0.8
# Who is in a photo together: in every other one those who look alike.
_ORDERS = ((0, 1, 2, 3, 4, 5), (0, 2, 1, 4, 3, 5))


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces in order, two to a photo, and of which of the people each is by nature."""

    seeded: SeededFaces
    people: tuple[int, ...]
    vectors: Mapping[UUID, NDArray[np.float32]]

    def of(self, person: int) -> list[UUID]:
        """The faces of one of the people."""
        return [face_id for face_id, owner in zip(self.seeded.face_ids, self.people, strict=True) if owner == person]


def draw_lookalikes(seed: int = 0) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Unit vectors (30, 32) of six people, and whose each is."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((DIMENSION, PEOPLE)))[0].T
    centres = np.array(
        [
            basis[person] if person % 2 == 0 else _between(basis[person - 1], basis[person], ALIKE[person // 2])
            for person in range(PEOPLE)
        ]
    )
    owners = tuple(person for number in range(EACH) for person in _ORDERS[number % 2])
    drawn = []
    for owner in owners:
        noise = random.standard_normal(DIMENSION)
        noise -= (noise @ centres[owner]) * centres[owner]
        drawn.append(_between(centres[owner], noise / np.linalg.norm(noise), LIKENESS))
    return np.asarray(drawn, dtype=np.float32), owners


def _between(one: NDArray[np.float64], other: NDArray[np.float64], cosine: float) -> NDArray[np.float64]:
    """A unit vector of that cosine to ``one``, of two that are at right angles."""
    return np.asarray(cosine * one + np.sqrt(1 - cosine**2) * other)


async def seed_lookalikes(base: Foundation, library_id: str) -> Faces:
    """A library of them whose model carries a floor and a calibration, nobody named."""
    vectors, owners = draw_lookalikes()
    async with base.database.transaction() as tx:
        await tx.execute(
            insert(models),
            {
                "library_id": library_id,
                "model_version": MODEL,
                "pack": "test",
                "dimension": DIMENSION,
                "state": "ACTIVE",
                "thresholds": THRESHOLDS,
                "calibration": CALIBRATION,
                "created_at": base.clock.now(),
            },
        )
    seeded = await seed_faces(base, vectors, library_id=library_id, faces_per_photo=2, with_collections=False)
    return Faces(seeded, owners, dict(zip(seeded.face_ids, vectors, strict=True)))


async def embed_again(base: Foundation, library_id: str, faces: Faces) -> UUID:
    """Give every face a vector of a second model, as a migration would have: the first turned around. Answers the migration.

    Every cosine is as before, and between the two spaces there is no likeness at all.
    """
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    made = {
        face_id: FaceVector(encode_embedding(vector @ turn), 20.0) for face_id, vector in sorted(faces.vectors.items())
    }
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    pack = PackDescription(NEXT, "next", DIMENSION, THRESHOLDS, CALIBRATION)
    async with base.database.transaction() as tx:
        migration = await start_migration(tx, deps, library_id, pack, Caller("tester", "test"))
        await add_vectors(tx, library_id, NEXT, made)
        await queue_points(tx, base.clock, PointKind.FACE, library_id, [(face_id, NEXT) for face_id in made])
    return migration.migration_id
