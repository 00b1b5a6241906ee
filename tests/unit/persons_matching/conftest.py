"""Generated faces whose people a linear projection can tell apart better, and such where it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from services.persons.matching.request import People, TrainingOptions, TrainingRequest
from shared.faces.embeddings import Vectors, normalise


def make_faces(
    people: int, each: int, *, dimension: int = 32, nuisance: float = 1.6, seed: int = 0
) -> tuple[Vectors, People]:
    """Faces (people * each, dimension) sorted by person.

    Who it is lies in one half of the directions; in the other half one person's faces scatter by ``nuisance``.
    """
    random = np.random.default_rng(seed)
    half = dimension // 2
    person = np.repeat(np.arange(people), each)
    centres = normalise(random.standard_normal((people, half)))
    own = centres[person] + 0.35 * random.standard_normal((len(person), half)) / np.sqrt(half)
    other = nuisance * random.standard_normal((len(person), half)) / np.sqrt(half)
    rotation = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
    return normalise(np.concatenate([own, other], axis=1) @ rotation), person.astype(np.int64)


def never() -> bool:
    """Nobody cancels."""
    return False


@pytest.fixture(scope="session")
def request_60() -> TrainingRequest:
    """60 people with 8 faces each, as they are read: float16."""
    vectors, people = make_faces(60, 8)
    return TrainingRequest(vectors.astype(np.float16), people, TrainingOptions(epochs=4))
