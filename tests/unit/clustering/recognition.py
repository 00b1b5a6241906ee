"""People and faces to recognise, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.domain.recognising import RecognitionRules
from services.clustering.repository.known import FIRST_DAY, LAST_DAY, FaceBounds, KnownPeople, KnownPerson, Pairs
from services.clustering.repository.unassigned import FaceTable
from shared.faces.calibration import ARCFACE_CALIBRATION, Calibration
from shared.faces.embeddings import Vectors
from shared.faces.eras import ERA_ORDER, Era, PartialDate
from shared.faces.matching import ARCFACE_FLOOR

RULES = RecognitionRules(
    floor=ARCFACE_FLOOR, assign_floor=-1.0, assign_precision=0.995, ask_confidence=0.5, asks_per_person=200
)


def make_person(number: int, *, born: date | None = None, asked_about: bool = True) -> KnownPerson:
    return KnownPerson(UUID(int=number + 1), PartialDate(born) if born else None, asked_about)


def make_known(
    references: Sequence[tuple[Vectors, Vectors]],
    *,
    people: Sequence[KnownPerson] | None = None,
    eras: Sequence[Era | None] | None = None,
    calibration: Calibration = ARCFACE_CALIBRATION,
) -> KnownPeople:
    """Known people from (prototypes, centroids) of each, those with the most references first; ``eras``: of each person's
    prototypes.
    """
    held = np.array([len(shown) + len(modes) for shown, modes in references], dtype=np.int32)
    assert (np.diff(held) <= 0).all()
    layers, ages = [], []
    for layer in range(int(held.max(initial=0))):
        for person, (shown, modes) in enumerate(references):
            if layer < held[person]:
                layers.append(np.concatenate([shown, modes])[layer])
                era = eras[person] if eras is not None and layer < len(shown) else None
                ages.append(ERA_ORDER.index(era) if era is not None else -1)
    sizes = [int((held > layer).sum()) for layer in range(int(held.max(initial=0)))]
    return KnownPeople(
        people=people or [make_person(number) for number in range(len(references))],
        vectors=np.array(layers, dtype=np.float32),
        starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        prototypes=np.array([len(shown) for shown, _ in references], dtype=np.int32),
        references=held,
        eras=np.array(ages, dtype=np.int8),
        thresholds={},
        calibration=calibration,
    )


def make_table(
    vectors: npt.NDArray[np.floating], *, photos: Sequence[int] | None = None, pinned: Sequence[int] = ()
) -> FaceTable:
    """Faces, each in a photo of its own if no ``photos`` are given."""
    count = len(vectors)
    anchors = np.full(count, -1, dtype=np.int32)
    anchors[list(pinned)] = 0
    return FaceTable(
        face_ids=[UUID(int=row + 1) for row in range(count)],
        vectors=vectors,
        assets=np.arange(count) if photos is None else np.array(photos, dtype=np.int64),
        quality=np.full(count, 0.8, dtype=np.float32),
        anchors=anchors,
        dismissed=np.zeros(count, dtype=np.bool_),
    )


def make_pairs(*pairs: tuple[int, int]) -> Pairs:
    rows = np.array(sorted(pairs), dtype=np.int32).reshape(-1, 2)
    return Pairs(rows[:, 0], rows[:, 1])


def make_bounds(
    count: int,
    *,
    taken: Sequence[date | None] | None = None,
    refused: Sequence[tuple[int, int]] = (),
    shown: Sequence[tuple[int, int]] = (),
    doubles: Sequence[int] = (),
    gone: Sequence[int] = (),
) -> FaceBounds:
    """Nothing binds but what is said; ``taken``: the day of each photo."""
    days = taken or [None] * count
    free = np.ones(count, dtype=np.bool_)
    free[list(gone)] = False
    may_double = np.zeros(count, dtype=np.bool_)
    may_double[list(doubles)] = True
    return FaceBounds(
        free=free,
        first=np.array([day.toordinal() if day else FIRST_DAY for day in days], dtype=np.int32),
        last=np.array([day.toordinal() if day else LAST_DAY for day in days], dtype=np.int32),
        doubles=may_double,
        refused=make_pairs(*refused),
        shown=make_pairs(*shown),
    )
