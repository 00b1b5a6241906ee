"""What a suggestion is, in the domain's own types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.clock import Clock
from shared.config import SuggestionSettings
from shared.faces.eras import Era
from shared.faces.prototypes import PrototypeRole
from shared.ids import IdFactory


@dataclass(frozen=True, slots=True)
class SuggestionsDeps:
    """What the use cases need besides a transaction."""

    clock: Clock
    ids: IdFactory
    settings: SuggestionSettings


class SuggestionState(StrEnum):
    """Where a question stands. An EXPIRED one may be asked again, and a REJECTED one once its exclusion is taken back."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class SuggestionMethod(StrEnum):
    """How the face was found."""

    PROTOTYPES = "PROTOTYPES"
    CENTROID = "CENTROID"
    PROPAGATION = "PROPAGATION"


@dataclass(frozen=True, slots=True)
class ExemplarMatch:
    """A prototype that looks like the face; ``cosine`` -1..1. ``era`` is None where it is unknown, ``role`` and ``era`` in what
    was stored before they were kept.
    """

    face_id: UUID
    cosine: float
    era: Era | None = None
    role: PrototypeRole | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"face_id": str(self.face_id), "cosine": self.cosine, "era": self.era, "role": self.role}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ExemplarMatch:
        """As it was stored by :meth:`to_json`."""
        era, role = stored.get("era"), stored.get("role")
        return cls(
            UUID(stored["face_id"]), stored["cosine"], Era(era) if era else None, PrototypeRole(role) if role else None
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a suggestion.

    ``score``: best cosine over the person's prototypes and mode centroids. ``margin``: ahead of the best other person by
    so much; None if there is no other. ``support``: prototypes above the floor. ``exemplars``: best first. ``quality``
    of the face, 0..1. ``era_score``: of the face's era against the best exemplar's; None if either is unknown.
    ``same_photo``: the person has another face in this photo already. ``model_version``: the embedding space of the
    cosines; empty in what was stored before it was kept.
    """

    score: float
    margin: float | None
    runner_up_person_id: UUID | None
    support: int
    exemplars: tuple[ExemplarMatch, ...]
    quality: float
    era_score: float | None
    same_photo: bool = False
    model_version: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "score": self.score,
            "margin": self.margin,
            "runner_up_person_id": str(self.runner_up_person_id) if self.runner_up_person_id else None,
            "support": self.support,
            "exemplars": [each.to_json() for each in self.exemplars],
            "quality": self.quality,
            "era_score": self.era_score,
            "same_photo": self.same_photo,
            "model_version": self.model_version,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Evidence:
        """As it was stored by :meth:`to_json`."""
        runner_up = stored["runner_up_person_id"]
        return cls(
            score=stored["score"],
            margin=stored["margin"],
            runner_up_person_id=UUID(runner_up) if runner_up else None,
            support=stored["support"],
            exemplars=tuple(ExemplarMatch.from_json(each) for each in stored["exemplars"]),
            quality=stored["quality"],
            era_score=stored["era_score"],
            same_photo=stored["same_photo"],
            model_version=stored.get("model_version", ""),
        )


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One row of ``suggestions``, with the cluster its face is in now. ``asked_at``: when it was asked again, None if never."""

    suggestion_id: UUID
    library_id: str
    face_id: UUID
    asset_id: str
    person_id: UUID
    confidence: float
    evidence: Evidence
    method: SuggestionMethod
    state: SuggestionState
    cluster_id: str | None
    version: int
    created_at: datetime
    asked_at: datetime | None
    closed_at: datetime | None
    reviewed_by: str

    @property
    def etag(self) -> str:
        """Changes with the state: a question asked again with fresher evidence is the same question."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Question:
    """A suggestion to store."""

    face_id: UUID
    asset_id: str
    person_id: UUID
    confidence: float
    evidence: Evidence
