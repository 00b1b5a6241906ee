"""What a training is asked and what it answers; plain values that travel to another process and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from shared.errors import KithError
from shared.faces.embeddings import Vectors
from shared.faces.projection import Strangers

People = npt.NDArray[np.int64]


class Phase(StrEnum):
    """What a training is doing, in this order."""

    TRAIN = "TRAIN"
    MEASURE = "MEASURE"


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` epochs; a training that stops early jumps to the end."""

    phase: Phase
    done: int
    total: int


Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]


class TrainingCancelled(KithError):
    """The caller's flag was seen between two batches; nothing was kept."""

    def __init__(self) -> None:
        super().__init__("the training was cancelled")

    def __reduce__(self) -> tuple[type[TrainingCancelled], tuple[()]]:
        return TrainingCancelled, ()


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to learn. The same options and faces give the same matcher on the same machine.

    ``measured_faces``: faces held out at most, and of one person at most ``measured_per_person``, so that nobody's pairs
    outweigh everybody else's. A batch has up to ``batch_people`` persons with up to ``faces_each`` faces of each.
    ``pull`` holds the matrix to where it started; ``averaging`` is the share an average of the matrices keeps per step.
    """

    seed: int = 0
    epochs: int = 12
    patience: int = 3
    batch_people: int = 64
    faces_each: int = 4
    hardest: int = 5
    margin: float = 0.1
    sharpness: float = 20.0
    rate: float = 3e-4
    pull: float = 1e-2
    averaging: float = 0.98
    measured_faces: int = 4000
    measured_per_person: int = 20
    threads: int = 2


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Faces to learn from: ``vectors`` (N, D) of any float type and about unit length, ``people`` (N,) says whose each is."""

    vectors: npt.NDArray[np.floating]
    people: People
    options: TrainingOptions = field(default_factory=TrainingOptions)


@dataclass(frozen=True, slots=True)
class Separability:
    """How well persons are told apart: equal error rate, and true accepts at a false accept rate of one in a thousand."""

    eer: float
    tar_at_far_1e3: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Before and after on the held-out persons; how much of the gain may be luck is said in ``judging.py``."""

    before: Separability
    after: Separability
    gain_low: float
    eer_noise: float
    better: bool
    strangers_before: Strangers
    strangers_after: Strangers


@dataclass(frozen=True, slots=True)
class TrainedMatcher:
    """``matrix`` (D, d) float32. ``shrinkage`` None: the start was the model's own space. ``epoch`` 0: the start was kept."""

    matrix: Vectors
    verdict: Verdict
    persons: int
    faces: int
    tuning_persons: int
    held_out_persons: int
    held_out_faces: int
    shrinkage: float | None
    epoch: int
    seconds: float
