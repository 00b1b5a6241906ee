"""Detection sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from kith.detection.v1 import sessions_pb2 as pb
from services.detection.convert.looks import from_options
from services.detection.convert.times import from_range
from services.detection.domain.model import AssetDetection, PhotoOutcome, Session, SessionPhoto
from services.detection.domain.sessions import AssetFilter, CreateSession
from shared.errors import FieldViolation, InvalidRequest
from shared.ids import MAX_ASSET_ID, parse_asset_id, parse_library_id
from shared.jobs.convert import to_failure, to_job, to_timestamp
from shared.rpc.enums import from_enum

MAX_IDS: Final = 10_000


def to_session(session: Session, now: datetime) -> pb.DetectionSession:
    """A session as a message; ``now`` is what the job's rate is counted at."""

    def photos(outcome: PhotoOutcome) -> int:
        return session.outcomes.get(outcome, 0)

    return pb.DetectionSession(
        id=str(session.session_id),
        library_id=session.library_id,
        job=to_job(session.job, now),
        redetect=session.redetect,
        photos=session.photos,
        photos_pending=photos(PhotoOutcome.PENDING),
        photos_with_faces=photos(PhotoOutcome.FACES),
        photos_without_faces=photos(PhotoOutcome.NONE),
        photos_skipped=photos(PhotoOutcome.SKIPPED),
        photos_failed=photos(PhotoOutcome.FAILED),
        faces_added=session.faces_added,
        faces_kept=session.faces_kept,
        faces_gone=session.faces_gone,
        create_time=to_timestamp(session.created_at),
        retry_of=str(session.retry_of or ""),
    )


def to_session_photo(photo: SessionPhoto) -> pb.SessionPhoto:
    """A photo of a session as a message."""
    return pb.SessionPhoto(
        asset_id=photo.asset_id,
        outcome=pb.PhotoOutcome.Value(f"PHOTO_OUTCOME_{photo.outcome.value}"),
        face_count=photo.face_count,
        failure=to_failure(photo.failure) if photo.failure else None,
    )


def from_outcome(value: pb.PhotoOutcome.ValueType, field: str) -> PhotoOutcome:
    """An outcome in the domain's words."""
    return from_enum(pb.PhotoOutcome.Name, value, PhotoOutcome, "PHOTO_OUTCOME_", field)


def from_create_request(request: pb.CreateDetectionSessionRequest) -> CreateSession:
    """A session to create. Raises :class:`InvalidRequest` naming what is wrong."""
    kind = request.WhichOneof("photos")
    if kind is None:
        raise InvalidRequest("assets or filter is required", field="photos")
    return CreateSession(
        library_id=parse_library_id(request.library_id),
        photos=_from_ids(request.assets) if kind == "assets" else _from_filter(request.filter),
        redetect=request.redetect,
        options=from_options(request.options),
    )


def _from_ids(assets: pb.AssetIds) -> list[str]:
    if not 1 <= len(assets.ids) <= MAX_IDS:
        raise InvalidRequest(f"assets.ids must hold 1..{MAX_IDS} ids", field="assets.ids")
    ids = [parse_asset_id(asset_id, f"assets.ids[{index}]") for index, asset_id in enumerate(assets.ids)]
    first: dict[str, int] = {}
    violations = [
        FieldViolation(f"assets.ids[{index}]", f"'{asset_id}' is assets.ids[{first[asset_id]}] already")
        for index, asset_id in enumerate(ids)
        if first.setdefault(asset_id, index) != index
    ]
    if violations:
        raise InvalidRequest("assets.ids must hold each id once", violations=violations)
    return ids


def _from_filter(message: pb.AssetFilter) -> AssetFilter:
    wanted = ((message.never_detected, AssetDetection.NEVER), (message.failed, AssetDetection.FAILED))
    return AssetFilter(
        detections=tuple(state for asked, state in wanted if asked),
        captured=from_range(message.captured, "filter.captured"),
        id_prefix=_parse_prefix(message.id_prefix, "filter.id_prefix"),
    )


def _parse_prefix(value: str, field: str) -> str:
    if len(value) > MAX_ASSET_ID or not value.isprintable():
        raise InvalidRequest(f"{field} must be at most {MAX_ASSET_ID} printable characters", field=field)
    return value
