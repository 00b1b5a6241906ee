"""SQL that stores what was found on photos. Each function is one statement or two, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, REAL, insert

from services.detection.domain.model import (
    AssetDetection,
    FaceOrigin,
    FaceState,
    KnownFace,
    PhotoFailed,
    PhotoLook,
    PlacedFace,
)
from services.detection.repository.removing import lock_dependents
from services.detection.repository.rows import Types, table_of
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import assignments, exclusions
from shared.faces.boxes import Box

_FACE_ID = Uuid()
_MEASURED = (
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "confidence",
    "quality",
    "quality_size",
    "quality_sharpness",
    "quality_pose",
    "yaw",
    "pitch",
    "roll",
)
_FOUND: Types = {"face_id": _FACE_ID, "asset_id": Text(), "landmarks": Text(), **dict.fromkeys(_MEASURED, REAL())}
_PHOTO: Types = {
    "asset_id": Text(),
    "detection": Text(),
    "failure_reason": Text(),
    "failure_message": Text(),
    "width": Integer(),
    "height": Integer(),
    "orientation": SmallInteger(),
    "difference_hash": BigInteger(),
    "captured_at": TIMESTAMP,
    "captured_precision": Text(),
    "captured_offset": SmallInteger(),
    "face_count": Integer(),
}


@dataclass(frozen=True, slots=True)
class FacesGone:
    """What deleted faces leave to do: ``points`` they had in Qdrant, as (face id, model version), and whom they showed."""

    points: Sequence[tuple[UUID, str]]
    person_ids: Sequence[UUID]


async def lock_known_faces(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> list[KnownFace]:
    """Lock every face of locked photos, in order of id, and read what decides what may become of it."""
    of_photos = (faces.c.library_id == library_id, faces.c.asset_id == func.any(list(asset_ids)))
    await tx.execute(select(faces.c.face_id).where(*of_photos).order_by(faces.c.face_id).with_for_update())
    # Read only now: under READ COMMITTED this statement sees what the writers we waited for have done.
    claimed = exists().where(assignments.c.face_id == faces.c.face_id) | exists().where(
        exclusions.c.face_id == faces.c.face_id
    )
    rows = await tx.rows(select(faces, claimed.label("claimed")).where(*of_photos).order_by(faces.c.face_id))
    return [
        KnownFace(
            face_id=row.face_id,
            asset_id=row.asset_id,
            box=Box(row.box_x, row.box_y, row.box_width, row.box_height),
            state=FaceState(row.state),
            origin=FaceOrigin(row.origin),
            claimed=row.claimed,
        )
        for row in rows
    ]


async def insert_faces(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    placed: Sequence[PlacedFace],
    origin: FaceOrigin = FaceOrigin.DETECTED,
) -> None:
    """Add faces of one origin."""
    if not placed:
        return
    found = table_of("found", _FOUND, [_found_row(face) for face in placed])
    now = literal(clock.now(), TIMESTAMP)
    await tx.execute(
        insert(faces).from_select(
            ["face_id", "asset_id", "landmarks", *_MEASURED, "library_id", "origin", "created_at", "updated_at"],
            select(
                found.c.face_id,
                found.c.asset_id,
                cast(found.c.landmarks, ARRAY(REAL)),
                *(found.c[name] for name in _MEASURED),
                literal(library_id, Text()),
                literal(origin.value, Text()),
                now,
                now,
            ),
        )
    )


async def update_faces(tx: Transaction, clock: Clock, placed: Sequence[PlacedFace]) -> None:
    """Give locked faces the box, landmarks and quality found now."""
    if not placed:
        return
    found = table_of("found", _FOUND, [_found_row(face) for face in placed])
    await tx.execute(
        update(faces)
        .where(faces.c.face_id == found.c.face_id)
        .values(
            landmarks=cast(found.c.landmarks, ARRAY(REAL)),
            updated_at=clock.now(),
            **{name: found.c[name] for name in _MEASURED},
        )
    )


async def write_embeddings(tx: Transaction, library_id: str, model_version: str, placed: Sequence[PlacedFace]) -> None:
    """Add or replace the embeddings of faces under one model."""
    if not placed:
        return
    types: Types = {"face_id": _FACE_ID, "embedding": LargeBinary(), "norm": REAL()}
    made = table_of("made", types, [(face.face_id, face.found.embedding, face.found.norm) for face in placed])
    statement = insert(face_embeddings).from_select(
        ["face_id", "embedding", "norm", "library_id", "model_version"],
        select(
            made.c.face_id,
            made.c.embedding,
            made.c.norm,
            literal(library_id, Text()),
            literal(model_version, Text()),
        ),
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["face_id", "model_version"],
            set_={name: statement.excluded[name] for name in ("embedding", "norm", "imported")},
        )
    )


async def delete_faces(tx: Transaction, face_ids: Sequence[UUID]) -> FacesGone:
    """Remove locked faces, and with them what other services keep of them."""
    if not face_ids:
        return FacesGone([], [])
    person_ids = await lock_dependents(tx, face_ids)
    rows = await tx.rows(
        delete(face_embeddings)
        .where(face_embeddings.c.face_id == func.any(list(face_ids)))
        .returning(face_embeddings.c.face_id, face_embeddings.c.model_version)
    )
    await tx.execute(delete(faces).where(faces.c.face_id == func.any(list(face_ids))))
    return FacesGone([(row.face_id, row.model_version) for row in rows], person_ids)


async def write_photos(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    looks: Sequence[PhotoLook],
    face_counts: Mapping[str, int],
    *,
    detected: bool = True,
) -> None:
    """Write what was learnt of locked photos, or why nothing could be.

    A capture time from EXIF gives way to the caller's. A photo that fails keeps what an earlier look has learnt. Without
    ``detected``, how far detection got stays: nobody has looked for faces.
    """
    seen = table_of("seen", _PHOTO, [_photo_row(look, face_counts) for look in looks])
    failed = seen.c.detection == AssetDetection.FAILED.value
    by_caller = func.coalesce(assets.c.captured_source == "CALLER", False)
    outcome = ("detection", "failure_reason", "failure_message")
    learnt = ("width", "height", "orientation", "difference_hash", "face_count")
    times = ("captured_at", "captured_precision", "captured_offset")
    from_exif = case((seen.c.captured_at.is_not(None), "EXIF"))
    await tx.execute(
        update(assets)
        .where(assets.c.library_id == library_id, assets.c.asset_id == seen.c.asset_id)
        .values(
            updated_at=clock.now(),
            captured_source=case((failed | by_caller, assets.c.captured_source), else_=from_exif),
            **{name: case((failed, assets.c[name]), else_=seen.c[name]) for name in learnt},
            **{name: case((failed | by_caller, assets.c[name]), else_=seen.c[name]) for name in times},
            **({name: seen.c[name] for name in outcome} if detected else {}),
        )
    )


def _found_row(face: PlacedFace) -> tuple[object, ...]:
    found, quality = face.found, face.found.quality
    # An array of arrays would be taken apart to its last number, so landmarks travel as PostgreSQL writes them.
    landmarks = "{" + ",".join(repr(value) for value in found.landmarks) + "}"
    box = (found.box.x, found.box.y, found.box.width, found.box.height)
    parts = (quality.overall, quality.size, quality.sharpness, quality.pose)
    angles = (quality.yaw, quality.pitch, quality.roll)
    return (face.face_id, face.asset_id, landmarks, *box, found.confidence, *parts, *angles)


def _photo_row(look: PhotoLook, face_counts: Mapping[str, int]) -> tuple[object, ...]:
    if isinstance(look, PhotoFailed):
        return (look.asset_id, AssetDetection.FAILED.value, look.reason, look.message, *[None] * 8)
    detection = AssetDetection.FACES if look.faces else AssetDetection.NONE
    return (
        look.asset_id,
        detection.value,
        None,
        None,
        look.width,
        look.height,
        look.orientation,
        _signed(look.difference_hash),
        look.captured.at if look.captured else None,
        look.captured.precision.value if look.captured else None,
        look.captured.utc_offset_minutes if look.captured else None,
        face_counts[look.asset_id],
    )


def _signed(unsigned: int) -> int:
    """The 64-bit integer of the same bits."""
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned
