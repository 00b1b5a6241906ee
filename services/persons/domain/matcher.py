"""Matchers, in the domain's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.persons.matching.request import People, Separability, TrainedMatcher
from shared.faces.projection import Strangers


@dataclass(frozen=True, slots=True)
class MatcherReport:
    """What a matcher was trained and measured on, how, and what came out."""

    before: Separability
    after: Separability
    better: bool
    persons: int
    faces: int
    tuning_persons: int
    held_out_persons: int
    held_out_faces: int
    gain_low: float
    eer_noise: float
    strangers_before: Strangers
    strangers_after: Strangers
    shrinkage: float | None
    epoch: int
    seconds: float

    @classmethod
    def of(cls, trained: TrainedMatcher) -> MatcherReport:
        """Everything about a trained matcher but its matrix."""
        verdict = trained.verdict
        return cls(
            before=verdict.before,
            after=verdict.after,
            better=verdict.better,
            persons=trained.persons,
            faces=trained.faces,
            tuning_persons=trained.tuning_persons,
            held_out_persons=trained.held_out_persons,
            held_out_faces=trained.held_out_faces,
            gain_low=verdict.gain_low,
            eer_noise=verdict.eer_noise,
            strangers_before=verdict.strangers_before,
            strangers_after=verdict.strangers_after,
            shrinkage=trained.shrinkage,
            epoch=trained.epoch,
            seconds=round(trained.seconds, 3),
        )

    def describe(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> MatcherReport:
        """From what :meth:`describe` made."""
        figures = {name: Separability(**stored[name]) for name in ("before", "after")}
        strangers = {name: Strangers(**stored[name]) for name in ("strangers_before", "strangers_after")}
        return cls(**{**stored, **figures, **strangers})


@dataclass(frozen=True, slots=True)
class Matcher:
    """One row of ``matchers`` without its projection."""

    matcher_id: UUID
    library_id: str
    model_version: str
    input_dimension: int
    dimension: int
    active: bool
    report: MatcherReport
    created_at: datetime
    activated_at: datetime | None


@dataclass(frozen=True, slots=True)
class LibraryModel:
    """The embedding space a library works in."""

    model_version: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Persons with faces confirmed by a human, and those faces; ``persons`` have at least as many as are needed of each."""

    persons: int
    faces: int
    short_persons: int


@dataclass(frozen=True, slots=True)
class NamedPerson:
    """A person by name, with the faces there are to learn from."""

    name: str
    faces: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainingFaces:
    """Confirmed faces sorted by person: ``vectors`` (N, D) float16 as stored, ``people`` (N,) numbers of persons."""

    vectors: npt.NDArray[np.float16]
    people: People
    person_ids: Sequence[UUID]
