"""Tables written only by the suggestions service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, REAL, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

suggestions = Table(
    "suggestions",
    metadata,
    Column("suggestion_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="CASCADE"), nullable=False),
    Column("asset_id", Text, nullable=False),
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id", ondelete="CASCADE"), nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("method", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="PENDING"),
    Column("job_id", UUID(as_uuid=True)),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("closed_at", TIMESTAMP),
    Column("reviewed_by", Text, nullable=False, server_default=""),
    # Whom it was first about, if that person has become part of its person since: un-merging takes it back.
    Column("moved_from", UUID(as_uuid=True)),
    # EXPIRED since its person went, or what it rested on: opened again should they come back.
    Column("dormant", Boolean, nullable=False, server_default="false"),
    one_of("method", "PROTOTYPES", "CENTROID", "PROPAGATION"),
    one_of("state", "PENDING", "ACCEPTED", "REJECTED", "EXPIRED"),
    # One row per pair, for ever: a rejected pair cannot be asked again.
    Index("uq_suggestions_pair", "face_id", "person_id", unique=True),
    Index("ix_suggestions_page", "library_id", "state", "confidence", "suggestion_id"),
    Index("ix_suggestions_person", "person_id", "state", "confidence", "suggestion_id"),
    Index("ix_suggestions_moved", "moved_from", postgresql_where="moved_from IS NOT NULL"),
)

# Every answer with the evidence it was given on: what calibration learns from.
reviews = Table(
    "reviews",
    metadata,
    Column("review_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("suggestion_id", UUID(as_uuid=True), nullable=False),
    Column("face_id", UUID(as_uuid=True), nullable=False),
    Column("person_id", UUID(as_uuid=True), nullable=False),
    Column("answer", Text, nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    one_of("answer", "ACCEPT", "REJECT"),
    Index("ix_reviews_library", "library_id", "created_at"),
)

__all__ = ["reviews", "suggestions"]
