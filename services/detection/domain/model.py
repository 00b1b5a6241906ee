"""Photos, faces and sessions, in the domain's own types. All coordinates are pixels of the upright photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared.clock import Clock
from shared.config import DetectionSettings
from shared.faces.boxes import Box
from shared.ids import IdFactory
from shared.imaging.capture import TimePrecision
from shared.jobs.model import ItemFailure, Job


@dataclass(frozen=True, slots=True)
class DetectionDeps:
    """What the use cases need besides a transaction."""

    clock: Clock
    ids: IdFactory
    settings: DetectionSettings


class AssetDetection(StrEnum):
    """How far detection got with a photo."""

    NEVER = "NEVER"
    FACES = "FACES"
    NONE = "NONE"
    FAILED = "FAILED"


class FaceState(StrEnum):
    """What a person said about a face."""

    ACTIVE = "ACTIVE"
    IGNORED = "IGNORED"
    NOT_A_FACE = "NOT_A_FACE"


class FaceOrigin(StrEnum):
    """Who found a face."""

    DETECTED = "DETECTED"
    MANUAL = "MANUAL"
    IMPORTED = "IMPORTED"


class PhotoOutcome(StrEnum):
    """What became of one photo of a session."""

    PENDING = "PENDING"
    FACES = "FACES"
    NONE = "NONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Captured:
    """When a photo was taken: UTC; with a coarser precision the start of that day, month or year.

    ``utc_offset_minutes`` is that of the camera's clock, None if nobody told it.
    """

    at: datetime
    precision: TimePrecision
    utc_offset_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """From ``start`` inclusive to ``end`` exclusive; None is open."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Asset:
    """One row of ``assets``. ``difference_hash`` is unsigned; sizes and hash are 0 until detection has read it."""

    asset_id: str
    library_id: str
    uri: str
    captured: Captured | None
    width: int
    height: int
    orientation: int
    difference_hash: int
    detection: AssetDetection
    failure: ItemFailure | None
    face_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewAsset:
    """A photo to register."""

    asset_id: str
    uri: str
    captured: Captured | None


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """The stored parts of quality: 0..1, and the angles in degrees."""

    overall: float
    size: float
    sharpness: float
    pose: float
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Face:
    """A stored face with what others know of it. ``landmarks``: x0, y0 .. x4, y4.

    ``cluster_id`` is None while the face has a person or is not ACTIVE. ``model_version`` is empty if the library's active
    model has not embedded it.
    """

    face_id: UUID
    library_id: str
    asset_id: str
    box: Box
    landmarks: tuple[float, ...]
    confidence: float
    quality: QualityFigures
    state: FaceState
    origin: FaceOrigin
    model_version: str
    person_id: UUID | None
    cluster_id: str | None
    captured: Captured | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FaceStats:
    """Counts of a library."""

    assets: int
    assets_detected: int
    faces: int
    active: int
    ignored: int
    not_a_face: int
    assigned: int
    clustered: int
    unknown: int


@dataclass(frozen=True, slots=True)
class OptionOverrides:
    """How to look, where the caller deviates from the configured values; None = as configured."""

    min_confidence: float | None = None
    min_face_px: float | None = None
    min_quality: float | None = None
    max_faces: int | None = None
    second_pass: bool | None = None


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face a detection server found. ``embedding`` is in stored form (float16, unit length)."""

    box: Box
    landmarks: tuple[float, ...]
    confidence: float
    quality: QualityFigures
    embedding: bytes
    norm: float


@dataclass(frozen=True, slots=True)
class KnownFace:
    """A stored face. ``claimed``: somebody assigned it, or said whose it is not."""

    face_id: UUID
    asset_id: str
    box: Box
    state: FaceState
    origin: FaceOrigin
    claimed: bool

    @property
    def may_go(self) -> bool:
        """Whether nothing but a detector ever had to do with it."""
        return self.origin is FaceOrigin.DETECTED and self.state is FaceState.ACTIVE and not self.claimed


@dataclass(frozen=True, slots=True)
class PlacedFace:
    """A found face and the row it belongs to."""

    face_id: UUID
    asset_id: str
    found: FoundFace


@dataclass(frozen=True, slots=True)
class PhotoFound:
    """A photo that could be looked at. ``difference_hash`` is unsigned."""

    asset_id: str
    faces: tuple[FoundFace, ...]
    width: int
    height: int
    orientation: int
    captured: Captured | None
    difference_hash: int
    model_version: str


@dataclass(frozen=True, slots=True)
class PhotoFailed:
    """A photo that could not, and why."""

    asset_id: str
    reason: str
    message: str


PhotoLook = PhotoFound | PhotoFailed


@dataclass(frozen=True, slots=True)
class PendingPhoto:
    """A photo of a session that is still to be looked at; ``uri`` is None if the asset is gone.

    ``breaks`` is not 0 if a detector broke off while it had the photo in hand; see ``domain/breaking.py``.
    """

    asset_id: str
    uri: str | None
    breaks: int = 0


@dataclass(frozen=True, slots=True)
class PackDescription:
    """The model a detection server runs, as the library has to know it."""

    model_version: str
    pack: str
    dimension: int
    thresholds: Mapping[str, float]
    calibration: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to create. ``retry_of`` is the session whose failed photos it looks at again."""

    session_id: UUID
    library_id: str
    job_id: UUID
    redetect: bool
    options: Mapping[str, float]
    retry_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One row of ``detection_sessions``, its job, and how many photos had which outcome."""

    session_id: UUID
    library_id: str
    job: Job
    redetect: bool
    options: Mapping[str, float]
    retry_of: UUID | None
    photos: int
    outcomes: Mapping[PhotoOutcome, int]
    faces_added: int
    faces_kept: int
    faces_gone: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SessionPhoto:
    """One photo of a session."""

    asset_id: str
    outcome: PhotoOutcome
    face_count: int
    failure: ItemFailure | None
