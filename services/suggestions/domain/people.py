"""Everybody a face may be, with what they are recognised by, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import numpy as np

from services.suggestions.repository.known import (
    ActiveModel,
    KnownCentroid,
    KnownPerson,
    KnownPrototype,
    PhotoFace,
    read_known,
)
from shared.config import SuggestionSettings
from shared.db.engine import Transaction
from shared.faces.calibration import Calibration, read_calibration
from shared.faces.embeddings import Vectors, decode_embeddings
from shared.faces.matching import ARCFACE_FLOOR, References
from shared.faces.near_duplicates import FaceKey, group_photos, key_faces


@dataclass(frozen=True, slots=True)
class MatchRules:
    """From what cosine on a face is a candidate, or may be assigned by a machine; how its evidence becomes a probability, and
    in whose space.
    """

    floor: float
    assign_floor: float
    calibration: Calibration
    model_version: str


def make_rules(model: ActiveModel, settings: SuggestionSettings) -> MatchRules:
    """The settings' floor, else the pack's, else ArcFace's; the pack's floor of assignments, if it has one; the library's
    calibration, else the pack's, else ArcFace's.

    Raises ``ValueError`` for a stored calibration that is none.
    """
    floor = settings.floor
    if floor is None:
        floor = float(model.thresholds.get("suggest_floor", ARCFACE_FLOOR))
    assign_floor = float(model.thresholds.get("assign_floor", -1.0))
    return MatchRules(floor, assign_floor, read_calibration(model.calibration), model.model_version)


class KnownPeople:
    """The people of a library. Person number p is ``persons[p]``; reference row r < len(prototypes) is ``prototypes[r]``,
    the rows after them are mode centroids.
    """

    def __init__(
        self,
        persons: Sequence[KnownPerson],
        prototypes: Sequence[KnownPrototype],
        centroids: Sequence[KnownCentroid],
        dimension: int,
    ) -> None:
        self.persons = tuple(persons)
        self.numbers = {person.person_id: number for number, person in enumerate(self.persons)}
        self.prototypes = tuple(each for each in prototypes if each.person_id in self.numbers)
        modes = [each for each in centroids if each.person_id in self.numbers]
        rows: list[KnownPrototype | KnownCentroid] = [*self.prototypes, *modes]
        owners = [self.numbers[each.person_id] for each in rows]
        self.references = References(
            vectors=decode_embeddings([each.embedding for each in rows], dimension),
            owners=np.array(owners, dtype=np.int64),
            exemplars=np.arange(len(owners)) < len(self.prototypes),
            persons=len(self.persons),
        )

    def prototype_rows(self, person_id: UUID) -> list[int]:
        """The reference rows of a person's prototypes, best first; none for somebody unknown."""
        return self._rows.get(person_id, [])

    @cached_property
    def _rows(self) -> dict[UUID, list[int]]:
        rows: dict[UUID, list[int]] = {}
        for row, prototype in enumerate(self.prototypes):
            rows.setdefault(prototype.person_id, []).append(row)
        return rows


async def read_people(
    tx: Transaction, library_id: str, model: ActiveModel, given: Sequence[KnownPrototype] = ()
) -> KnownPeople:
    """Everybody of a library, in one statement; ``given`` faces count as prototypes, whether or not they are."""
    known = await read_known(tx, library_id, model.model_version)
    chosen = {prototype.face.face_id for prototype in known.prototypes}
    more = [each for each in given if each.face.face_id not in chosen]
    return KnownPeople(known.persons, [*known.prototypes, *more], known.centroids, model.dimension)


def choose_query_prototypes(people: KnownPeople, person_id: UUID, settings: SuggestionSettings) -> Vectors:
    """Which of a person's prototypes to search with: (Q, D), Q at most ``settings.query_prototypes``.

    One after the other, that of the greatest quality times distance (1 - cosine) to those chosen before; of near-duplicate
    faces only the first. Deterministic: ties go to the better face.
    """
    rows = people.prototype_rows(person_id)
    vectors = people.references.vectors[rows]
    shown = [people.prototypes[row].face for row in rows]
    keys = key_near_duplicates(shown, settings)
    quality = np.array([max(face.quality, 0.01) for face in shown])
    distance = np.ones(len(rows))
    chosen: list[int] = []
    used: set[FaceKey] = set()
    free = np.ones(len(rows), dtype=np.bool_)
    while free.any() and len(chosen) < settings.query_prototypes:
        best = int(np.argmax(np.where(free, quality * distance, -1.0)))
        free[best] = False
        key = keys[shown[best].face_id]
        if key in used:
            continue
        used.add(key)
        chosen.append(best)
        distance = np.minimum(distance, np.clip(1.0 - vectors @ vectors[best], 0.0, 1.0))
    return vectors[chosen]


def key_near_duplicates(faces: Sequence[PhotoFace], settings: SuggestionSettings) -> dict[UUID, FaceKey]:
    """A key for each face, equal for the same face in near-duplicate photos."""
    photos = {face.asset_id: face.stamp for face in faces}
    leaders = group_photos(
        list(photos.values()), max_bits=settings.near_duplicate_bits, max_seconds=settings.near_duplicate_s
    )
    keys = key_faces([face.place for face in faces], leaders)
    return {face.face_id: keys[str(face.face_id)] for face in faces}
