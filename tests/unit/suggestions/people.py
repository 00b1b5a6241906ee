"""People and candidate faces made by hand, on a few axes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import numpy as np

from services.suggestions.domain.judging import Candidates
from services.suggestions.domain.people import KnownPeople, MatchRules
from services.suggestions.repository.known import KnownCentroid, KnownPerson, KnownPrototype, PhotoFace
from shared.faces.calibration import Calibration
from shared.faces.embeddings import Vectors, encode_embedding, normalise
from shared.faces.eras import Era, PartialDate, find_era

DIMENSION = 8
ANNA, BERT, CLEO = (UUID(int=number) for number in (1, 2, 3))
RULES = MatchRules(0.3, 0.5, Calibration(slope=20.0, intercept=-8.0), "m")


def axis(number: int, towards: int | None = None, share: float = 0.0) -> Vectors:
    """The unit vector of an axis, turned ``share`` (of its squared length) towards another."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    vector[number] = np.sqrt(1 - share)
    if towards is not None:
        vector[towards] = np.sqrt(share)
    return normalise(vector)


def photo_face(
    number: int,
    *,
    asset_id: str | None = None,
    quality: float = 0.8,
    captured: PartialDate | None = None,
    second: int | None = None,
    difference_hash: int | None = None,
    box: tuple[float, float, float, float] = (0.0, 0.0, 50.0, 50.0),
) -> PhotoFace:
    """Face ``number``, in a photo of its own unless told otherwise, at a second of one day."""
    return PhotoFace(
        face_id=UUID(int=1000 + number),
        asset_id=asset_id or f"photo-{number}",
        quality=quality,
        captured=captured,
        taken=None if second is None else datetime(2020, 1, 1, 12, 0, second, tzinfo=UTC),
        difference_hash=difference_hash,
        box=box,
        width=100,
        height=100,
    )


def prototype(person_id: UUID, face: PhotoFace, vector: Vectors, born: PartialDate | None = None) -> KnownPrototype:
    """A prototype, of the era its dates tell."""
    era: Era | None = find_era(born, face.captured)
    return KnownPrototype(person_id, face, era, encode_embedding(vector))


def know(
    persons: Sequence[KnownPerson], prototypes: Sequence[KnownPrototype], centroids: Sequence[KnownCentroid] = ()
) -> KnownPeople:
    """These people."""
    return KnownPeople(persons, prototypes, centroids, DIMENSION)


def candidates(*pairs: tuple[PhotoFace, Vectors]) -> Candidates:
    """Faces with their vectors."""
    return Candidates([face for face, _ in pairs], np.stack([vector for _, vector in pairs]))
