"""The first schema.

Revision: 0001, after nothing. Expand only: version N-1 must run beside it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("vector_versions")))
    op.create_table(
        "assets",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("captured_precision", sa.Text(), nullable=True),
        sa.Column("captured_source", sa.Text(), nullable=True),
        sa.Column("width", sa.Integer(), server_default="0", nullable=False),
        sa.Column("height", sa.Integer(), server_default="0", nullable=False),
        sa.Column("orientation", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("difference_hash", sa.BigInteger(), nullable=True),
        sa.Column("detection", sa.Text(), server_default="NEVER", nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("face_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "captured_precision IN ('SECOND', 'DAY', 'MONTH', 'YEAR')",
            name=op.f("ck_assets_captured_precision"),
        ),
        sa.CheckConstraint(
            "captured_source IN ('CALLER', 'EXIF')",
            name=op.f("ck_assets_captured_source"),
        ),
        sa.CheckConstraint(
            "detection IN ('NEVER', 'FACES', 'NONE', 'FAILED')",
            name=op.f("ck_assets_detection"),
        ),
        sa.PrimaryKeyConstraint("library_id", "asset_id", name=op.f("pk_assets")),
    )
    op.create_index("ix_assets_captured", "assets", ["library_id", "captured_at"], unique=False)
    op.create_index(
        "ix_assets_detection",
        "assets",
        ["library_id", "detection", "asset_id"],
        unique=False,
    )
    op.create_table(
        "changes",
        sa.Column("change_id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("rpc", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), server_default="", nullable=False),
        sa.Column("person_ids", postgresql.ARRAY(sa.UUID()), nullable=False),
        sa.Column("face_ids", postgresql.ARRAY(sa.UUID()), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("undoes", sa.UUID(), nullable=True),
        sa.Column("undone_by", sa.UUID(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["undoes"], ["changes.change_id"], name=op.f("fk_changes_undoes")),
        sa.ForeignKeyConstraint(["undone_by"], ["changes.change_id"], name=op.f("fk_changes_undone_by")),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_changes")),
        sa.UniqueConstraint("sequence", name=op.f("uq_changes_sequence")),
    )
    op.create_index("ix_changes_page", "changes", ["library_id", "change_id"], unique=False)
    op.create_table(
        "cluster_numbers",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("library_id", name=op.f("pk_cluster_numbers")),
    )
    op.create_table(
        "cluster_runs",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("faces", sa.BigInteger(), nullable=False),
        sa.Column("clusters", sa.BigInteger(), nullable=False),
        sa.Column("clustered", sa.BigInteger(), nullable=False),
        sa.Column("noise", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.Column("thresholds", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seconds", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_cluster_runs")),
    )
    op.create_index("ix_cluster_runs_page", "cluster_runs", ["library_id", "run_id"], unique=False)
    op.create_table(
        "detection_sessions",
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("redetect", sa.Boolean(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.Column("faces_added", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("faces_kept", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("faces_gone", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_detection_sessions")),
        sa.UniqueConstraint("job_id", name=op.f("uq_detection_sessions_job_id")),
    )
    op.create_index(
        "ix_detection_sessions_page",
        "detection_sessions",
        ["library_id", "session_id"],
        unique=False,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.UUID(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("library_id", "request_id", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_age", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="QUEUED", nullable=False),
        sa.Column("phase", sa.Text(), server_default="", nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rate_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rate_from_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'RUNNING', 'PAUSED', 'SUCCEEDED', 'FAILED', 'CANCELLED')",
            name=op.f("ck_jobs_state"),
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_live",
        "jobs",
        ["kind"],
        unique=False,
        postgresql_where="state IN ('QUEUED', 'RUNNING')",
    )
    op.create_index("ix_jobs_page", "jobs", ["library_id", "job_id"], unique=False)
    op.create_table(
        "models",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("pack", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "thresholds",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column(
            "calibration",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('ACTIVE', 'SHADOW', 'RETIRED')", name=op.f("ck_models_state")),
        sa.PrimaryKeyConstraint("library_id", "model_version", name=op.f("pk_models")),
    )
    op.create_index(
        "uq_models_active",
        "models",
        ["library_id"],
        unique=True,
        postgresql_where="state = 'ACTIVE'",
    )
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("suggestion_id", sa.UUID(), nullable=False),
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("answer IN ('ACCEPT', 'REJECT')", name=op.f("ck_reviews_answer")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_reviews")),
    )
    op.create_index("ix_reviews_library", "reviews", ["library_id", "created_at"], unique=False)
    op.create_table(
        "vector_outbox",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("point_id", sa.UUID(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_version", sa.BigInteger(), nullable=True),
        sa.Column("dirty", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint("kind IN ('FACE', 'CENTROID')", name=op.f("ck_vector_outbox_kind")),
        sa.PrimaryKeyConstraint("kind", "point_id", "model_version", name=op.f("pk_vector_outbox")),
    )
    op.create_index("ix_vector_outbox_library", "vector_outbox", ["library_id"], unique=False)
    op.create_index("ix_vector_outbox_queue", "vector_outbox", ["queued_at"], unique=False)
    op.create_table(
        "faces",
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("box_x", sa.REAL(), nullable=False),
        sa.Column("box_y", sa.REAL(), nullable=False),
        sa.Column("box_width", sa.REAL(), nullable=False),
        sa.Column("box_height", sa.REAL(), nullable=False),
        sa.Column("landmarks", postgresql.ARRAY(sa.REAL(), dimensions=1), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.Column("quality", sa.REAL(), nullable=False),
        sa.Column("quality_size", sa.REAL(), nullable=False),
        sa.Column("quality_sharpness", sa.REAL(), nullable=False),
        sa.Column("quality_pose", sa.REAL(), nullable=False),
        sa.Column("yaw", sa.REAL(), nullable=False),
        sa.Column("pitch", sa.REAL(), nullable=False),
        sa.Column("roll", sa.REAL(), nullable=False),
        sa.Column("state", sa.Text(), server_default="ACTIVE", nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("origin IN ('DETECTED', 'MANUAL', 'IMPORTED')", name=op.f("ck_faces_origin")),
        sa.CheckConstraint("state IN ('ACTIVE', 'IGNORED', 'NOT_A_FACE')", name=op.f("ck_faces_state")),
        sa.ForeignKeyConstraint(
            ["library_id", "asset_id"],
            ["assets.library_id", "assets.asset_id"],
            name=op.f("fk_faces_library_id_asset_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("face_id", name=op.f("pk_faces")),
    )
    op.create_index("ix_faces_asset", "faces", ["library_id", "asset_id"], unique=False)
    op.create_index("ix_faces_page", "faces", ["library_id", "face_id"], unique=False)
    op.create_table(
        "job_failures",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.job_id"],
            name=op.f("fk_job_failures_job_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "sequence", name=op.f("pk_job_failures")),
    )
    op.create_table(
        "job_slices",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="OPEN", nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "checkpoint",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('OPEN', 'DONE')", name=op.f("ck_job_slices_state")),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.job_id"],
            name=op.f("fk_job_slices_job_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "ordinal", name=op.f("pk_job_slices")),
    )
    op.create_index(
        "ix_job_slices_open",
        "job_slices",
        ["lease_until"],
        unique=False,
        postgresql_where="state = 'OPEN'",
    )
    op.create_table(
        "session_photos",
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="PENDING", nullable=False),
        sa.Column("face_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('PENDING', 'FACES', 'NONE', 'SKIPPED', 'FAILED')",
            name=op.f("ck_session_photos_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["detection_sessions.session_id"],
            name=op.f("fk_session_photos_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "asset_id", name=op.f("pk_session_photos")),
    )
    op.create_index(
        "ix_session_photos_slice",
        "session_photos",
        ["session_id", "slice", "outcome", "asset_id"],
        unique=False,
    )
    op.create_table(
        "clusters",
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="ACTIVE", nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("face_count", sa.Integer(), nullable=False),
        sa.Column("cohesion", sa.REAL(), nullable=False),
        sa.Column("cover_face_id", sa.UUID(), nullable=True),
        sa.Column("first_captured", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_captured", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('ACTIVE', 'DISMISSED')", name=op.f("ck_clusters_state")),
        sa.ForeignKeyConstraint(
            ["cover_face_id"],
            ["faces.face_id"],
            name=op.f("fk_clusters_cover_face_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["cluster_runs.run_id"], name=op.f("fk_clusters_run_id")),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_clusters")),
    )
    op.create_index(
        "ix_clusters_size",
        "clusters",
        ["library_id", "face_count", "cluster_id"],
        unique=False,
    )
    op.create_index("uq_clusters_number", "clusters", ["library_id", "number"], unique=True)
    op.create_table(
        "face_embeddings",
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("norm", sa.REAL(), nullable=False),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["faces.face_id"],
            name=op.f("fk_face_embeddings_face_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("face_id", "model_version", name=op.f("pk_face_embeddings")),
    )
    op.create_index(
        "ix_face_embeddings_library",
        "face_embeddings",
        ["library_id", "model_version", "face_id"],
        unique=False,
    )
    op.create_table(
        "persons",
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="ACTIVE", nullable=False),
        sa.Column("birth_year", sa.SmallInteger(), nullable=True),
        sa.Column("birth_month", sa.SmallInteger(), nullable=True),
        sa.Column("birth_day", sa.SmallInteger(), nullable=True),
        sa.Column("merged_into", sa.UUID(), nullable=True),
        sa.Column("cover_face_id", sa.UUID(), nullable=True),
        sa.Column("cover_by_hand", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("notes", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "external_ids",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("face_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('ACTIVE', 'HIDDEN', 'MERGED')", name=op.f("ck_persons_status")),
        sa.ForeignKeyConstraint(
            ["cover_face_id"],
            ["faces.face_id"],
            name=op.f("fk_persons_cover_face_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["merged_into"], ["persons.person_id"], name=op.f("fk_persons_merged_into")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_persons")),
    )
    op.create_index(
        "ix_persons_face_count",
        "persons",
        ["library_id", "face_count", "person_id"],
        unique=False,
    )
    op.create_index(
        "ix_persons_last_seen",
        "persons",
        ["library_id", "last_seen", "person_id"],
        unique=False,
    )
    op.create_index(
        "ix_persons_name",
        "persons",
        ["library_id", "name_key", "person_id"],
        unique=False,
    )
    op.create_table(
        "assignments",
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("change_id", sa.UUID(), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("source IN ('HUMAN', 'MACHINE')", name=op.f("ck_assignments_source")),
        sa.ForeignKeyConstraint(["change_id"], ["changes.change_id"], name=op.f("fk_assignments_change_id")),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["faces.face_id"],
            name=op.f("fk_assignments_face_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["person_id"], ["persons.person_id"], name=op.f("fk_assignments_person_id")),
        sa.PrimaryKeyConstraint("face_id", name=op.f("pk_assignments")),
    )
    op.create_index("ix_assignments_library", "assignments", ["library_id"], unique=False)
    op.create_index("ix_assignments_person", "assignments", ["person_id", "face_id"], unique=False)
    op.create_table(
        "centroids",
        sa.Column("centroid_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("face_count", sa.Integer(), nullable=False),
        sa.Column("trimmed_count", sa.Integer(), nullable=False),
        sa.Column("members_hash", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('GLOBAL', 'CLUSTER')", name=op.f("ck_centroids_kind")),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
            name=op.f("fk_centroids_person_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("centroid_id", name=op.f("pk_centroids")),
    )
    op.create_index(
        "ix_centroids_page",
        "centroids",
        ["library_id", "person_id", "kind", "mode"],
        unique=False,
    )
    op.create_index(
        "uq_centroids_mode",
        "centroids",
        ["person_id", "model_version", "kind", "mode"],
        unique=True,
    )
    op.create_table(
        "cluster_members",
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cluster_id"],
            ["clusters.cluster_id"],
            name=op.f("fk_cluster_members_cluster_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["faces.face_id"],
            name=op.f("fk_cluster_members_face_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("face_id", name=op.f("pk_cluster_members")),
    )
    op.create_index("ix_cluster_members_library", "cluster_members", ["library_id"], unique=False)
    op.create_index(
        "ix_cluster_members_page",
        "cluster_members",
        ["cluster_id", "confidence", "face_id"],
        unique=False,
    )
    op.create_table(
        "exclusions",
        sa.Column("exclusion_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("change_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["change_id"], ["changes.change_id"], name=op.f("fk_exclusions_change_id")),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["faces.face_id"],
            name=op.f("fk_exclusions_face_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["person_id"], ["persons.person_id"], name=op.f("fk_exclusions_person_id")),
        sa.PrimaryKeyConstraint("exclusion_id", name=op.f("pk_exclusions")),
    )
    op.create_index("ix_exclusions_page", "exclusions", ["library_id", "exclusion_id"], unique=False)
    op.create_index("ix_exclusions_person", "exclusions", ["person_id"], unique=False)
    op.create_index("uq_exclusions_pair", "exclusions", ["face_id", "person_id"], unique=True)
    op.create_table(
        "suggestions",
        sa.Column("suggestion_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="PENDING", nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reviewed_by", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "method IN ('PROTOTYPES', 'CENTROID', 'PROPAGATION')",
            name=op.f("ck_suggestions_method"),
        ),
        sa.CheckConstraint(
            "state IN ('PENDING', 'ACCEPTED', 'REJECTED', 'EXPIRED')",
            name=op.f("ck_suggestions_state"),
        ),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["faces.face_id"],
            name=op.f("fk_suggestions_face_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
            name=op.f("fk_suggestions_person_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("suggestion_id", name=op.f("pk_suggestions")),
    )
    op.create_index(
        "ix_suggestions_page",
        "suggestions",
        ["library_id", "state", "confidence", "suggestion_id"],
        unique=False,
    )
    op.create_index(
        "ix_suggestions_person",
        "suggestions",
        ["person_id", "state", "confidence", "suggestion_id"],
        unique=False,
    )
    op.create_index("uq_suggestions_pair", "suggestions", ["face_id", "person_id"], unique=True)
    op.create_table(
        "prototypes",
        sa.Column("face_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.UUID(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("era", sa.Text(), nullable=True),
        sa.Column("pinned", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("quality", sa.REAL(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "era IN ('INFANT', 'CHILD', 'TEEN', 'YOUNG_ADULT', 'ADULT', 'SENIOR')",
            name=op.f("ck_prototypes_era"),
        ),
        sa.CheckConstraint(
            "role IN ('PRIMARY', 'EXEMPLAR', 'TEMPORAL', 'FALLBACK')",
            name=op.f("ck_prototypes_role"),
        ),
        sa.ForeignKeyConstraint(
            ["face_id"],
            ["assignments.face_id"],
            name=op.f("fk_prototypes_face_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["person_id"], ["persons.person_id"], name=op.f("fk_prototypes_person_id")),
        sa.PrimaryKeyConstraint("face_id", name=op.f("pk_prototypes")),
    )
    op.create_index("ix_prototypes_person", "prototypes", ["person_id"], unique=False)
    # A vector never compresses and must not be moved out of its row: 1,024 bytes at 512-d stay inline.
    op.execute("ALTER TABLE face_embeddings ALTER COLUMN embedding SET STORAGE PLAIN")
    op.execute("ALTER TABLE centroids ALTER COLUMN embedding SET STORAGE PLAIN")


def downgrade() -> None:
    op.drop_index("ix_prototypes_person", table_name="prototypes")
    op.drop_table("prototypes")
    op.drop_index("uq_suggestions_pair", table_name="suggestions")
    op.drop_index("ix_suggestions_person", table_name="suggestions")
    op.drop_index("ix_suggestions_page", table_name="suggestions")
    op.drop_table("suggestions")
    op.drop_index("uq_exclusions_pair", table_name="exclusions")
    op.drop_index("ix_exclusions_person", table_name="exclusions")
    op.drop_index("ix_exclusions_page", table_name="exclusions")
    op.drop_table("exclusions")
    op.drop_index("ix_cluster_members_page", table_name="cluster_members")
    op.drop_index("ix_cluster_members_library", table_name="cluster_members")
    op.drop_table("cluster_members")
    op.drop_index("uq_centroids_mode", table_name="centroids")
    op.drop_index("ix_centroids_page", table_name="centroids")
    op.drop_table("centroids")
    op.drop_index("ix_assignments_person", table_name="assignments")
    op.drop_index("ix_assignments_library", table_name="assignments")
    op.drop_table("assignments")
    op.drop_index("ix_persons_name", table_name="persons")
    op.drop_index("ix_persons_last_seen", table_name="persons")
    op.drop_index("ix_persons_face_count", table_name="persons")
    op.drop_table("persons")
    op.drop_index("ix_face_embeddings_library", table_name="face_embeddings")
    op.drop_table("face_embeddings")
    op.drop_index("uq_clusters_number", table_name="clusters")
    op.drop_index("ix_clusters_size", table_name="clusters")
    op.drop_table("clusters")
    op.drop_index("ix_session_photos_slice", table_name="session_photos")
    op.drop_table("session_photos")
    op.drop_index("ix_job_slices_open", table_name="job_slices", postgresql_where="state = 'OPEN'")
    op.drop_table("job_slices")
    op.drop_table("job_failures")
    op.drop_index("ix_faces_page", table_name="faces")
    op.drop_index("ix_faces_asset", table_name="faces")
    op.drop_table("faces")
    op.drop_index("ix_vector_outbox_queue", table_name="vector_outbox")
    op.drop_index("ix_vector_outbox_library", table_name="vector_outbox")
    op.drop_table("vector_outbox")
    op.drop_index("ix_reviews_library", table_name="reviews")
    op.drop_table("reviews")
    op.drop_index("uq_models_active", table_name="models", postgresql_where="state = 'ACTIVE'")
    op.drop_table("models")
    op.drop_index("ix_jobs_page", table_name="jobs")
    op.drop_index(
        "ix_jobs_live",
        table_name="jobs",
        postgresql_where="state IN ('QUEUED', 'RUNNING')",
    )
    op.drop_table("jobs")
    op.drop_index("ix_idempotency_keys_age", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_detection_sessions_page", table_name="detection_sessions")
    op.drop_table("detection_sessions")
    op.drop_index("ix_cluster_runs_page", table_name="cluster_runs")
    op.drop_table("cluster_runs")
    op.drop_table("cluster_numbers")
    op.drop_index("ix_changes_page", table_name="changes")
    op.drop_table("changes")
    op.drop_index("ix_assets_detection", table_name="assets")
    op.drop_index("ix_assets_captured", table_name="assets")
    op.drop_table("assets")
    op.execute(sa.schema.DropSequence(sa.Sequence("vector_versions")))
