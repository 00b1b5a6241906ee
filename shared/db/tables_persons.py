"""Tables written only by the persons service."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    Table,
    Text,
    and_,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

persons = Table(
    "persons",
    metadata,
    Column("person_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("name", Text, nullable=False),
    # NFKC and case folded: what names are compared and sorted by, in the order of code points whatever the server's locale.
    Column("name_key", Text(collation="C"), nullable=False),
    # The trigrams of the key, each once: what names alike are found by.
    Column("name_trigrams", ARRAY(Text), nullable=False, server_default="{}"),
    Column("status", Text, nullable=False, server_default="ACTIVE"),
    Column("birth_year", SmallInteger),
    Column("birth_month", SmallInteger),
    Column("birth_day", SmallInteger),
    Column("merged_into", UUID(as_uuid=True), ForeignKey("persons.person_id")),
    Column("cover_face_id", UUID(as_uuid=True), ForeignKey("faces.face_id", ondelete="SET NULL")),
    # Chosen by hand, and shown for as long as it is the person's. No foreign key: it is a wish.
    Column("chosen_cover", UUID(as_uuid=True)),
    # Not read any more; version N-1 writes it, so a later migration drops it.
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
    # Those never seen have a place in it, so that it holds the order of a page.
    Index("ix_persons_last_seen", "library_id", text("coalesce(last_seen, '-infinity')"), "person_id"),
    Index("ix_persons_name_trigrams", "name_trigrams", postgresql_using="gin"),
    # Who became part of whom: chains are followed in both directions.
    Index("ix_persons_merged_into", "merged_into", postgresql_where="merged_into IS NOT NULL"),
    # For the foreign key: without it every face that is deleted costs a scan.
    Index("ix_persons_cover", "cover_face_id"),
)

LIVING = and_(persons.c.status != "MERGED", persons.c.deleted_at.is_(None))
"""Of persons who are neither part of another nor deleted."""

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
    # The first of the faces it touched, to be shown; change_faces and change_exclusions have them all.
    Column("face_ids", ARRAY(UUID(as_uuid=True)), nullable=False),
    Column("face_count", Integer, nullable=False, server_default="0"),
    # {persons: {id: {field: value}}, doubles: {asset_id: allowed}}: the fields that changed, and no others.
    Column("before", JSONB, nullable=False),
    Column("after", JSONB, nullable=False),
    Column("undoes", UUID(as_uuid=True), ForeignKey("changes.change_id")),
    Column("undone_by", UUID(as_uuid=True), ForeignKey("changes.change_id")),
    Column("created_at", TIMESTAMP, nullable=False),
    # Given after the commit, one after the other: whoever has read up to a position has missed nothing before it.
    Column("position", BigInteger),
    Index("ix_changes_page", "library_id", "change_id"),
    Index("ix_changes_person", "person_ids", postgresql_using="gin"),
    # Partial, so that it is no key: numbering a change then waits for nobody who refers to it, and nobody for that.
    Index("uq_changes_position", "library_id", "position", unique=True, postgresql_where="position IS NOT NULL"),
    Index("ix_changes_new", "library_id", "sequence", postgresql_where="position IS NULL"),
)

# What a change did to faces, one row per face, written in one statement however many there are. No foreign key to the
# faces: the ledger outlives them.
change_faces = Table(
    "change_faces",
    metadata,
    Column("change_id", UUID(as_uuid=True), ForeignKey("changes.change_id", ondelete="CASCADE"), primary_key=True),
    Column("face_id", UUID(as_uuid=True), primary_key=True),
    Column("before_person", UUID(as_uuid=True)),
    Column("before_source", Text),
    Column("before_confidence", REAL),
    Column("before_choice", Text),
    Column("before_assigned_at", TIMESTAMP),
    Column("after_person", UUID(as_uuid=True)),
    Column("after_source", Text),
    Column("after_confidence", REAL),
    Column("after_choice", Text),
    Index("ix_change_faces_face", "face_id"),
)

# Exclusions a change made or took back; enough of them to make them again.
change_exclusions = Table(
    "change_exclusions",
    metadata,
    Column("change_id", UUID(as_uuid=True), ForeignKey("changes.change_id", ondelete="CASCADE"), primary_key=True),
    Column("face_id", UUID(as_uuid=True), primary_key=True),
    Column("person_id", UUID(as_uuid=True), primary_key=True),
    Column("exclusion_id", UUID(as_uuid=True), nullable=False),
    Column("made", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Index("ix_change_exclusions_face", "face_id"),
)

# Never used twice, so that an etag of an assignment that is gone fits no later one.
assignment_versions = Sequence("assignment_versions", metadata=metadata)

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
    # A human's word on the face as a prototype: to be the one of its era, to be one, or never to be one.
    Column("choice", Text),
    one_of("source", "HUMAN", "MACHINE"),
    one_of("choice", "PINNED", "CHOSEN", "REFUSED"),
    Index("ix_assignments_person", "person_id", "face_id"),
    Index("ix_assignments_library", "library_id"),
)

# Photos in which one person may have two faces: collages and mirrors. It binds machines only.
allowed_doubles = Table(
    "allowed_doubles",
    metadata,
    library_column(primary_key=True),
    Column("asset_id", Text, primary_key=True),
    Column("created_by", Text, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    ForeignKeyConstraint(["library_id", "asset_id"], ["assets.library_id", "assets.asset_id"], ondelete="CASCADE"),
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

# A projection learnt on a library's confirmed faces; at most one of them is active.
matchers = Table(
    "matchers",
    metadata,
    Column("matcher_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("model_version", Text, nullable=False),
    Column("job_id", UUID(as_uuid=True), nullable=False),
    Column("active", Boolean, nullable=False, server_default="false"),
    # Dimension of the model's space and of the matcher's.
    Column("input_dimension", Integer, nullable=False),
    Column("dimension", Integer, nullable=False),
    # (input_dimension, dimension) float32, little endian, row by row.
    Column("projection", LargeBinary, nullable=False),
    # Separability on persons held out, before and after; what it was trained on and how.
    Column("report", JSONB, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("activated_at", TIMESTAMP),
    Index("ix_matchers_page", "library_id", "matcher_id"),
    Index("uq_matchers_active", "library_id", unique=True, postgresql_where="active"),
)

# What was removed of a person who was forgotten: nothing of them but the id.
receipts = Table(
    "receipts",
    metadata,
    Column("person_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("job_id", UUID(as_uuid=True), nullable=False),
    Column("delete_faces", Boolean, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    # [{store, deleted, verified_at}] once every store was read back.
    Column("stores", JSONB),
    Column("completed_at", TIMESTAMP),
    Index("ix_receipts_library", "library_id"),
)

__all__ = [
    "LIVING",
    "allowed_doubles",
    "assignment_versions",
    "assignments",
    "change_exclusions",
    "change_faces",
    "changes",
    "exclusions",
    "matchers",
    "persons",
    "prototypes",
    "receipts",
]
