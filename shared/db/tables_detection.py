"""Tables written only by the detection service."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

assets = Table(
    "assets",
    metadata,
    library_column(primary_key=True),
    Column("asset_id", Text, primary_key=True),
    Column("uri", Text, nullable=False),
    Column("captured_at", TIMESTAMP),
    Column("captured_precision", Text),
    # CALLER's word wins over EXIF, also at re-detection.
    Column("captured_source", Text),
    # Minutes from UTC of the camera's clock, where EXIF names it.
    Column("captured_offset", SmallInteger),
    Column("width", Integer, nullable=False, server_default="0"),
    Column("height", Integer, nullable=False, server_default="0"),
    Column("orientation", SmallInteger, nullable=False, server_default="0"),
    # The unsigned 64-bit hash, stored as the signed integer of the same bits.
    Column("difference_hash", BigInteger),
    Column("detection", Text, nullable=False, server_default="NEVER"),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("face_count", Integer, nullable=False, server_default="0"),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    one_of("detection", "NEVER", "FACES", "NONE", "FAILED"),
    one_of("captured_precision", "SECOND", "DAY", "MONTH", "YEAR"),
    one_of("captured_source", "CALLER", "EXIF"),
    Index("ix_assets_detection", "library_id", "detection", "asset_id"),
    Index("ix_assets_captured", "library_id", "captured_at"),
)

models = Table(
    "models",
    metadata,
    library_column(primary_key=True),
    Column("model_version", Text, primary_key=True),
    Column("pack", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("state", Text, nullable=False),
    # The pack's cosines and calibration, so that no other service needs the pack.
    Column("thresholds", JSONB, nullable=False, server_default="{}"),
    Column("calibration", JSONB, nullable=False, server_default="{}"),
    Column("created_at", TIMESTAMP, nullable=False),
    one_of("state", "ACTIVE", "SHADOW", "RETIRED"),
    Index("uq_models_active", "library_id", unique=True, postgresql_where="state = 'ACTIVE'"),
)

faces = Table(
    "faces",
    metadata,
    Column("face_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("asset_id", Text, nullable=False),
    # Pixels of the upright image.
    Column("box_x", REAL, nullable=False),
    Column("box_y", REAL, nullable=False),
    Column("box_width", REAL, nullable=False),
    Column("box_height", REAL, nullable=False),
    # x0, y0 .. x4, y4: eyes, nose, mouth corners, the viewer's left first.
    Column("landmarks", ARRAY(REAL, dimensions=1), nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("quality", REAL, nullable=False),
    Column("quality_size", REAL, nullable=False),
    Column("quality_sharpness", REAL, nullable=False),
    Column("quality_pose", REAL, nullable=False),
    Column("yaw", REAL, nullable=False),
    Column("pitch", REAL, nullable=False),
    Column("roll", REAL, nullable=False),
    Column("state", Text, nullable=False, server_default="ACTIVE"),
    Column("origin", Text, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    ForeignKeyConstraint(["library_id", "asset_id"], ["assets.library_id", "assets.asset_id"], ondelete="CASCADE"),
    one_of("state", "ACTIVE", "IGNORED", "NOT_A_FACE"),
    one_of("origin", "DETECTED", "MANUAL", "IMPORTED"),
    Index("ix_faces_page", "library_id", "face_id"),
    Index("ix_faces_asset", "library_id", "asset_id"),
    # The few among many that were put aside.
    Index("ix_faces_aside", "library_id", "face_id", postgresql_where="state <> 'ACTIVE'"),
)

face_embeddings = Table(
    "face_embeddings",
    metadata,
    Column("face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="CASCADE"), primary_key=True),
    Column("model_version", Text, primary_key=True),
    library_column(),
    # float16, little endian, unit length. STORAGE PLAIN by migration: at 512-d a row stays inline.
    Column("embedding", LargeBinary, nullable=False),
    # Length before it was made a unit vector.
    Column("norm", REAL, nullable=False),
    # Made by another system, and not by the model from the photo.
    Column("imported", Boolean, nullable=False, server_default="false"),
    Index("ix_face_embeddings_library", "library_id", "model_version", "face_id"),
)

detection_sessions = Table(
    "detection_sessions",
    metadata,
    Column("session_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("job_id", UUID(as_uuid=True), nullable=False, unique=True),
    Column("redetect", Boolean, nullable=False),
    Column("options", JSONB, nullable=False),
    Column("photos", BigInteger, nullable=False),
    Column("faces_added", BigInteger, nullable=False, server_default="0"),
    Column("faces_kept", BigInteger, nullable=False, server_default="0"),
    Column("faces_gone", BigInteger, nullable=False, server_default="0"),
    # Photos by outcome; the rest of `photos` is PENDING.
    Column("photos_faces", BigInteger, nullable=False, server_default="0"),
    Column("photos_none", BigInteger, nullable=False, server_default="0"),
    Column("photos_skipped", BigInteger, nullable=False, server_default="0"),
    Column("photos_failed", BigInteger, nullable=False, server_default="0"),
    # The session whose failed photos this one looks at again.
    Column("retry_of", UUID(as_uuid=True)),
    Column("created_at", TIMESTAMP, nullable=False),
    Index("ix_detection_sessions_page", "library_id", "session_id"),
)

session_photos = Table(
    "session_photos",
    metadata,
    # No foreign key: a session of a million photos is written in one statement, of which its check would be a third.
    Column("session_id", UUID(as_uuid=True), primary_key=True),
    Column("asset_id", Text, primary_key=True),
    Column("slice", Integer, nullable=False),
    Column("outcome", Text, nullable=False, server_default="PENDING"),
    Column("face_count", Integer, nullable=False, server_default="0"),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    # How often a detector broke off while it had this photo in hand.
    Column("breaks", SmallInteger, nullable=False, server_default="0"),
    one_of("outcome", "PENDING", "FACES", "NONE", "SKIPPED", "FAILED"),
    Index("ix_session_photos_slice", "session_id", "slice"),
)

model_migrations = Table(
    "model_migrations",
    metadata,
    Column("migration_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("from_version", Text, nullable=False),
    Column("to_version", Text, nullable=False),
    # The latest job that embeds; the report is of its end.
    Column("job_id", UUID(as_uuid=True), nullable=False),
    Column("report", JSONB),
    Column("cut_over_at", TIMESTAMP),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", TIMESTAMP, nullable=False),
    UniqueConstraint("library_id", "from_version", "to_version"),
)

__all__ = [
    "assets",
    "detection_sessions",
    "face_embeddings",
    "faces",
    "model_migrations",
    "models",
    "session_photos",
]
