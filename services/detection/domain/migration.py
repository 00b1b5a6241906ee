"""A library's models, and its way from one to the next, in the domain's own types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from services.detection.domain.shadow_report import ShadowReport
from shared.faces.boxes import Box
from shared.jobs.model import Job

MAX_GIVEN: Final = 500
"""Faces that a detection server takes with one photo."""


class ModelState(StrEnum):
    """What a model is to its library."""

    ACTIVE = "ACTIVE"
    SHADOW = "SHADOW"
    RETIRED = "RETIRED"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One row of ``models``, and how many faces have a vector of it."""

    model_version: str
    pack: str
    dimension: int
    state: ModelState
    face_count: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Migration:
    """One row of ``model_migrations``. ``report`` is None until its job has ended; ``cut_over_at`` unless it was cut over."""

    migration_id: UUID
    library_id: str
    from_version: str
    to_version: str
    job: Job
    report: ShadowReport | None
    cut_over_at: datetime | None
    version: int
    created_at: datetime

    @property
    def etag(self) -> str:
        """Changes with a new job, its report, a cut-over and a roll-back; not with progress."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Faces of a library, and those of them that have a vector of one model."""

    faces: int
    embedded: int

    @property
    def missing(self) -> int:
        """Faces without one."""
        return self.faces - self.embedded


@dataclass(frozen=True, slots=True)
class PhotoRange:
    """Photos from ``first`` to ``last``, both inclusive, in order of id; ``faces`` of them had no vector."""

    first: str
    last: str
    faces: int


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A stored face to embed. ``landmarks`` (x0, y0 .. x4, y4) is None where nobody saw them: they are to be found."""

    face_id: UUID
    box: Box
    landmarks: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class PhotoFaces:
    """A photo, and those of its faces that are to be embedded: at most :data:`MAX_GIVEN`."""

    asset_id: str
    uri: str
    faces: Sequence[PlacedBox]


@dataclass(frozen=True, slots=True)
class FaceVector:
    """An embedding in stored form (float16, unit length), and its length before that."""

    embedding: bytes
    norm: float


@dataclass(frozen=True, slots=True)
class PhotoMeasured:
    """Vectors by face, of one model."""

    photo: PhotoFaces
    model_version: str
    vectors: Mapping[UUID, FaceVector]


@dataclass(frozen=True, slots=True)
class PhotoUnmeasured:
    """A photo whose faces could not be embedded, and why."""

    photo: PhotoFaces
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PhotoByFace:
    """A photo whose faces were asked for one by one, since one of them made the request for all a wrong one.

    ``answers`` has one for each of its faces, whose ``photo`` holds that face alone.
    """

    photo: PhotoFaces
    answers: Sequence[PhotoMeasured | PhotoUnmeasured]


PhotoMeasure = PhotoMeasured | PhotoUnmeasured | PhotoByFace


@dataclass(frozen=True, slots=True)
class EmbeddingPlace:
    """How far a slice is: every photo up to ``after`` is done, and of those behind it the ``failed`` ones.

    What has a vector needs no place: it is not read again. ``breaks`` are photos a detector broke off at, as sessions count
    them (``domain/breaking.py``): once with others in hand, and each time they were alone.
    """

    after: str = ""
    failed: tuple[str, ...] = ()
    breaks: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """As the slice keeps it."""
        return {"after": self.after, "failed": list(self.failed), "breaks": dict(self.breaks)}

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """From what :meth:`describe` made, or from nothing."""
        return cls(stored.get("after", ""), tuple(stored.get("failed", ())), stored.get("breaks", {}))

    def behind(self, asset_id: str) -> Self:
        """The same, once every photo up to this one is done."""
        # After a break photos further on may have been done, and have failed, before those that had to wait.
        return replace(self, after=asset_id, failed=self.failed if self.breaks else ())

    def with_failed(self, asset_ids: Iterable[str]) -> Self:
        """The same, with more photos that failed."""
        return replace(self, failed=(*self.failed, *asset_ids))

    def with_breaks(self, asset_ids: Iterable[str], *, alone: bool) -> Self:
        """The same, after a detector broke off with these in hand; ``alone``: with this one, which is suspected already."""
        noted = {
            name: self.breaks.get(name, 0) + 1 if alone else max(1, self.breaks.get(name, 0)) for name in asset_ids
        }
        return replace(self, breaks={**self.breaks, **noted})
