"""Tables written only by the persons service."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Index, Integer, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

persons = Table(
    "persons",
    metadata,
    Column("person_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("name", Text, nullable=False),
    # NFKC and case folded: what names are compared and sorted by.
    Column("name_key", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="ACTIVE"),
    Column("birth_year", SmallInteger),
    Column("birth_month", SmallInteger),
    Column("birth_day", SmallInteger),
    Column("merged_into", UUID(as_uuid=True), ForeignKey("persons.person_id")),
    Column("cover_face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="SET NULL")),
    Column("cover_by_hand", Boolean, nullable=False, server_default="false"),
    Column("notes", Text, nullable=False, server_default=""),
    Column("external_ids", JSONB, nullable=False, server_default="{}"),
    # Derived from the assignments, in the transaction that changes them.
    Column("face_count", Integer, nullable=False, server_default="0"),
    Column("first_seen", TIMESTAMP),
    Column("last_seen", TIMESTAMP),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("updated_at", TIMESTAMP, nullable=False),
    Column("deleted_at", TIMESTAMP),
    one_of("status", "ACTIVE", "HIDDEN", "MERGED"),
    Index("ix_persons_name", "library_id", "name_key", "person_id"),
    Index("ix_persons_face_count", "library_id", "face_count", "person_id"),
    Index("ix_persons_last_seen", "library_id", "last_seen", "person_id"),
    # For the foreign key: without it every face that is deleted costs a scan.
    Index("ix_persons_cover", "cover_face_id"),
)

changes = Table(
    "changes",
    metadata,
    Column("change_id", UUID(as_uuid=True), primary_key=True),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, unique=True),
    library_column(),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("rpc", Text, nullable=False),
    Column("request_id", Text, nullable=False, server_default=""),
    Column("person_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("face_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("before", JSONB, nullable=False),
    Column("after", JSONB, nullable=False),
    Column("undoes", UUID(as_uuid=True), ForeignKey("changes.change_id")),
    Column("undone_by", UUID(as_uuid=True), ForeignKey("changes.change_id")),
    Column("created_at", TIMESTAMP, nullable=False),
    Index("ix_changes_page", "library_id", "change_id"),
)

assignments = Table(
    "assignments",
    metadata,
    # The key is the face: a face has one person.
    Column("face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="CASCADE"), primary_key=True),
    library_column(),
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("change_id", UUID(as_uuid=True), ForeignKey("changes.change_id"), nullable=False),
    Column("assigned_at", TIMESTAMP, nullable=False),
    one_of("source", "HUMAN", "MACHINE"),
    Index("ix_assignments_person", "person_id", "face_id"),
    Index("ix_assignments_library", "library_id"),
)

exclusions = Table(
    "exclusions",
    metadata,
    Column("exclusion_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="CASCADE"), nullable=False),
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id"), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("change_id", UUID(as_uuid=True), ForeignKey("changes.change_id"), nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Index("uq_exclusions_pair", "face_id", "person_id", unique=True),
    Index("ix_exclusions_page", "library_id", "exclusion_id"),
    Index("ix_exclusions_person", "person_id"),
)

prototypes = Table(
    "prototypes",
    metadata,
    # A face is a prototype of the one person it is assigned to, so losing the assignment ends it.
    Column("face_id", UUID(as_uuid=True), ForeignKey("assignments.face_id", ondelete="CASCADE"), primary_key=True),
    library_column(),
    Column("person_id", UUID(as_uuid=True), ForeignKey("persons.person_id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("era", Text),
    Column("pinned", Boolean, nullable=False, server_default="false"),
    Column("quality", REAL, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    one_of("role", "PRIMARY", "EXEMPLAR", "TEMPORAL", "FALLBACK"),
    one_of("era", "INFANT", "CHILD", "TEEN", "YOUNG_ADULT", "ADULT", "SENIOR"),
    Index("ix_prototypes_person", "person_id"),
)

__all__ = ["assignments", "changes", "exclusions", "persons", "prototypes"]
