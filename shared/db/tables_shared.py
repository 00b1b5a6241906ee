"""Tables that belong to whoever's transaction it is, written only through ``shared``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from shared.db.metadata import TIMESTAMP, library_column, metadata, one_of

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="QUEUED"),
    Column("phase", Text, nullable=False, server_default=""),
    Column("spec", JSONB, nullable=False),
    Column("unit", Text, nullable=False),
    Column("total", BigInteger, nullable=False, server_default="0"),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("skipped", BigInteger, nullable=False, server_default="0"),
    Column("result", JSONB),
    Column("error_reason", Text),
    Column("error_message", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Column("started_at", TIMESTAMP),
    Column("ended_at", TIMESTAMP),
    # Since when, and from how many done, the rate is counted: set when work begins and after a pause.
    Column("rate_from", TIMESTAMP),
    Column("rate_from_done", BigInteger, nullable=False, server_default="0"),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    Column("version", BigInteger, nullable=False, server_default="1"),
    one_of("state", "QUEUED", "RUNNING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"),
    Index("ix_jobs_page", "library_id", "job_id"),
    Index("ix_jobs_live", "kind", postgresql_where="state IN ('QUEUED', 'RUNNING')"),
)

job_slices = Table(
    "job_slices",
    metadata,
    Column("job_id", UUID(as_uuid=True), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("state", Text, nullable=False, server_default="OPEN"),
    Column("spec", JSONB, nullable=False),
    Column("checkpoint", JSONB, nullable=False, server_default="{}"),
    Column("result", JSONB),
    # Taken this often since it last got on.
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Taken this often in all: names one turn of the slice in the queue.
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("lease_token", UUID(as_uuid=True)),
    Column("lease_until", TIMESTAMP),
    Column("not_before", TIMESTAMP),
    one_of("state", "OPEN", "DONE"),
    Index("ix_job_slices_open", "lease_until", postgresql_where="state = 'OPEN'"),
)

job_failures = Table(
    "job_failures",
    metadata,
    Column("job_id", UUID(as_uuid=True), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, Identity(always=True), primary_key=True),
    Column("item_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    library_column(primary_key=True),
    Column("request_id", UUID(as_uuid=True), primary_key=True),
    # SHA-256 of the RPC's name and the request's bytes.
    Column("request_hash", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("created_at", TIMESTAMP, nullable=False),
    Index("ix_idempotency_keys_age", "created_at"),
)

# Order of claims of the outbox, and so of writes to one point in Qdrant.
vector_versions = Sequence("vector_versions", metadata=metadata)

vector_outbox = Table(
    "vector_outbox",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("point_id", UUID(as_uuid=True), primary_key=True),
    Column("model_version", Text, primary_key=True),
    library_column(),
    Column("queued_at", TIMESTAMP, nullable=False),
    # While a relay works on it: until when, and with which version.
    Column("claimed_until", TIMESTAMP),
    Column("claim_version", BigInteger),
    # The truth changed again while a relay was at it.
    Column("dirty", Boolean, nullable=False, server_default="false"),
    one_of("kind", "FACE", "CENTROID"),
    Index("ix_vector_outbox_queue", "queued_at"),
    Index("ix_vector_outbox_library", "library_id"),
)

# Persons whose summary and prototypes have to be brought up to their faces; taken by the persons workers.
people_to_settle = Table(
    "people_to_settle",
    metadata,
    # No foreign key: it would lock the person, whom the writer need not know.
    Column("person_id", UUID(as_uuid=True), primary_key=True),
    library_column(),
    Column("queued_at", TIMESTAMP, nullable=False),
    Index("ix_people_to_settle_queue", "queued_at"),
)

__all__ = [
    "idempotency_keys",
    "job_failures",
    "job_slices",
    "jobs",
    "people_to_settle",
    "vector_outbox",
    "vector_versions",
]
