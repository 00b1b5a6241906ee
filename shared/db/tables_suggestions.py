"""Tables written only by the suggestions service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text, text
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
    # When a question that had expired was asked again; NULL = created_at.
    Column("asked_at", TIMESTAMP),
    Column("reviewed_by", Text, nullable=False, server_default=""),
    # Whom it was first about, if that person has become part of its person since: un-merging takes it back.
    Column("moved_from", UUID(as_uuid=True)),
    # EXPIRED since its person went, or what it rested on: opened again should they come back.
    Column("dormant", Boolean, nullable=False, server_default="false"),
    one_of("method", "PROTOTYPES", "CENTROID", "PROPAGATION"),
    one_of("state", "PENDING", "ACCEPTED", "REJECTED", "EXPIRED"),
    # One row per pair, for ever.
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
    # The change it made, as many share one; NULL = the one with its own id, or none.
    Column("change_id", UUID(as_uuid=True)),
    one_of("answer", "ACCEPT", "REJECT"),
    Index("ix_reviews_library", "library_id", "created_at"),
    Index("ix_reviews_model", "library_id", text("(evidence ->> 'model_version')"), "created_at"),
)

# Questions somebody is looking at, and till when nobody else is given them. One that is over, or whose question is answered,
# counts for nothing.
review_leases = Table(
    "review_leases",
    metadata,
    Column(
        "suggestion_id",
        UUID(as_uuid=True),
        ForeignKey("suggestions.suggestion_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    library_column(),
    Column("reviewer", Text, nullable=False),
    Column("leased_until", TIMESTAMP, nullable=False),
)

# What a library's answers make of its model pack's calibration; without a row the pack's holds.
calibrations = Table(
    "calibrations",
    metadata,
    library_column(primary_key=True),
    Column("model_version", Text, primary_key=True),
    # As Calibration.to_json has it.
    Column("parameters", JSONB, nullable=False),
    # How many answers it was fitted on, and when the last one known then was given.
    Column("answers", Integer, nullable=False),
    Column("answered_until", TIMESTAMP, nullable=False),
    Column("fitted_at", TIMESTAMP, nullable=False),
)

# What a library has said of looking for faces by itself; without a row the server's settings hold.
discovery_settings = Table(
    "discovery_settings",
    metadata,
    library_column(primary_key=True),
    # 0 = never.
    Column("auto_find_more_after", Integer, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    Column("updated_by", Text, nullable=False),
)

# Questions about a person that were accepted since more were last looked for by itself, and the job that did; a hint, and
# no account: a merge moves nothing.
auto_finds = Table(
    "auto_finds",
    metadata,
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id", ondelete="CASCADE"), primary_key=True),
    library_column(),
    Column("accepted", Integer, nullable=False),
    # NULL, as is the time, before the first.
    Column("job_id", UUID(as_uuid=True)),
    Column("started_at", TIMESTAMP),
)

__all__ = ["auto_finds", "calibrations", "discovery_settings", "review_leases", "reviews", "suggestions"]
