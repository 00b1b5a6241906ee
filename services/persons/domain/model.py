"""People, assignments, prototypes and changes, in the domain's own types."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.clock import Clock
from shared.config import PersonSettings
from shared.faces.boxes import Box
from shared.faces.eras import Era, PartialDate
from shared.faces.prototypes import Choice, PrototypeRole
from shared.ids import IdFactory


@dataclass(frozen=True, slots=True)
class PersonsDeps:
    """What the use cases need besides a transaction."""

    clock: Clock
    ids: IdFactory
    settings: PersonSettings


class PersonStatus(StrEnum):
    """Whether a person is listed, hidden, or part of another."""

    ACTIVE = "ACTIVE"
    HIDDEN = "HIDDEN"
    MERGED = "MERGED"


class PersonOrder(StrEnum):
    """How persons are listed."""

    NAME = "NAME"
    FACE_COUNT = "FACE_COUNT"
    LAST_SEEN = "LAST_SEEN"
    LIKENESS = "LIKENESS"


class Source(StrEnum):
    """Who assigned a face. A machine never overwrites a human."""

    HUMAN = "HUMAN"
    MACHINE = "MACHINE"


class ChangeKind(StrEnum):
    """What a change of the ledger did."""

    PERSON_CREATED = "PERSON_CREATED"
    PERSON_UPDATED = "PERSON_UPDATED"
    PERSON_DELETED = "PERSON_DELETED"
    PERSON_UNDELETED = "PERSON_UNDELETED"
    PERSONS_MERGED = "PERSONS_MERGED"
    PERSON_FORGOTTEN = "PERSON_FORGOTTEN"
    FACES_ASSIGNED = "FACES_ASSIGNED"
    FACES_UNASSIGNED = "FACES_UNASSIGNED"
    FACE_EXCLUDED = "FACE_EXCLUDED"
    EXCLUSION_DELETED = "EXCLUSION_DELETED"
    PROTOTYPES_CHANGED = "PROTOTYPES_CHANGED"
    DOUBLES_ALLOWED = "DOUBLES_ALLOWED"
    MATCHER_ACTIVATED = "MATCHER_ACTIVATED"
    UNDONE = "UNDONE"


@dataclass(frozen=True, slots=True)
class Person:
    """One row of ``persons``."""

    person_id: UUID
    library_id: str
    name: str
    status: PersonStatus
    birth_date: PartialDate | None
    merged_into: UUID | None
    cover_face_id: UUID | None
    chosen_cover: UUID | None
    notes: str
    external_ids: dict[str, str]
    face_count: int
    first_seen: datetime | None
    last_seen: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @property
    def etag(self) -> str:
        """Changes with what a human may edit, not with the faces."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Hold:
    """A person's hold on a face. ``assigned_at`` None = from now on."""

    person_id: UUID
    source: Source
    confidence: float
    choice: Choice | None = None
    assigned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What a face is to have: ``hold`` None = nobody."""

    face_id: UUID
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A face's person."""

    face_id: UUID
    person_id: UUID
    source: Source
    confidence: float
    version: int
    assigned_at: datetime
    choice: Choice | None = None

    @property
    def etag(self) -> str:
        """Changes with every write of the assignment, and never comes back."""
        return str(self.version)

    @property
    def hold(self) -> Hold:
        """As what a move would give, or give back."""
        return Hold(self.person_id, self.source, self.confidence, self.choice, self.assigned_at)


@dataclass(frozen=True, slots=True)
class FaceStanding:
    """What decides whether a face may be given to a person."""

    face_id: UUID
    state: str
    excluded: bool
    assignment: Assignment | None


@dataclass(frozen=True, slots=True)
class Prototype:
    """An exemplar face of a person, and a human's word on it."""

    face_id: UUID
    person_id: UUID
    role: PrototypeRole
    era: Era | None
    pinned: bool
    quality: float
    created_at: datetime
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class EraCoverage:
    """How a person is known in one era; ``era`` None = of unknown date. ``pinned``: one of the prototypes is."""

    era: Era | None
    faces: int
    prototypes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the ledger.

    ``before`` and ``after``: {persons: {id: {field: value}}, doubles: {asset_id: allowed}, matcher: id}, of what changed
    only. What it does to faces and exclusions is entered by the functions that do it.
    """

    kind: ChangeKind
    person_ids: Collection[UUID] = ()
    face_ids: Sequence[UUID] = ()
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    undoes: UUID | None = None


class PeopleKind(StrEnum):
    """What a row of the people page is; in the order of the page."""

    PERSON = "PERSON"
    CLUSTER = "CLUSTER"
    NOISE = "NOISE"
    IGNORED = "IGNORED"


@dataclass(frozen=True, slots=True)
class PeopleEntry:
    """One row of the people page."""

    kind: PeopleKind
    entry_id: str
    display_name: str
    face_count: int
    cover_face_id: UUID | None
    first_seen: datetime | None
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """A face in a photo: pixels of the upright image."""

    face_id: UUID
    box: Box


@dataclass(frozen=True, slots=True)
class PersonPhoto:
    """A photo of a person and their faces in it; ``captured_at`` in UTC, to ``precision``; both None if unknown."""

    asset_id: str
    captured_at: datetime | None
    precision: str | None
    utc_offset_minutes: int | None
    faces: Sequence[PhotoFace]
