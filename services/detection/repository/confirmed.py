"""SQL of the sample a shadow report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Text, cast, func, select

from services.detection.domain.model import FaceState
from services.detection.domain.shadow_report import MAX_FACES, MAX_FACES_PER_PERSON, ConfirmedFaces
from shared.db.engine import Transaction
from shared.db.tables_detection import face_embeddings, faces, models
from shared.db.tables_persons import assignments
from shared.faces.embeddings import Vectors, decode_embeddings


@dataclass(frozen=True, slots=True)
class ConfirmedRows:
    """The sample as stored, in order of person and face: bytes of both models, and the number of the person of each."""

    people: list[int]
    old: list[bytes]
    new: list[bytes]

    def decode(self) -> ConfirmedFaces:
        """As arrays."""
        return ConfirmedFaces(np.array(self.people, dtype=np.int64), _stack(self.old), _stack(self.new))


async def read_confirmed(tx: Transaction, library_id: str, old: str, new: str) -> ConfirmedRows:
    """Active faces that people have assigned and that have a vector of both models; at most 4,000, and 20 of a person.

    Persons, and faces of a person, are taken in the order of a hash of their ids: a sample that favours none and comes out the
    same each time.
    """
    before, after = face_embeddings.alias("before"), face_embeddings.alias("after")
    drawn = func.md5(cast(assignments.c.face_id, Text))
    place = func.row_number().over(partition_by=assignments.c.person_id, order_by=drawn)
    found = (
        select(assignments.c.person_id, assignments.c.face_id, place.label("place"))
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .join(before, (before.c.face_id == faces.c.face_id) & (before.c.model_version == old))
        .join(after, (after.c.face_id == faces.c.face_id) & (after.c.model_version == new))
        .where(
            assignments.c.library_id == library_id,
            assignments.c.source == "HUMAN",
            faces.c.state == FaceState.ACTIVE.value,
        )
        .subquery("found")
    )
    order = (func.md5(cast(found.c.person_id, Text)), found.c.person_id, found.c.place)
    chosen = select(found).where(found.c.place <= MAX_FACES_PER_PERSON).order_by(*order).limit(MAX_FACES)
    taken = chosen.subquery("taken")
    # The vectors come last, so that only those of the sample are sorted along.
    rows = await tx.rows(
        select(taken.c.person_id, before.c.embedding.label("old"), after.c.embedding.label("new"))
        .join(before, (before.c.face_id == taken.c.face_id) & (before.c.model_version == old))
        .join(after, (after.c.face_id == taken.c.face_id) & (after.c.model_version == new))
        .order_by(func.md5(cast(taken.c.person_id, Text)), taken.c.person_id, taken.c.place)
    )
    numbers: dict[object, int] = {}
    return ConfirmedRows(
        people=[numbers.setdefault(row.person_id, len(numbers)) for row in rows],
        old=[bytes(row.old) for row in rows],
        new=[bytes(row.new) for row in rows],
    )


async def read_thresholds(tx: Transaction, library_id: str) -> dict[str, Mapping[str, float]]:
    """The thresholds of each of a library's models, by version."""
    rows = await tx.rows(select(models.c.model_version, models.c.thresholds).where(models.c.library_id == library_id))
    return {row.model_version: row.thresholds for row in rows}


def _stack(stored: list[bytes]) -> Vectors:
    return decode_embeddings(stored, len(stored[0]) // 2) if stored else np.empty((0, 0), dtype=np.float32)
