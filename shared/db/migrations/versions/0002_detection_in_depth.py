"""Outcomes counted on the session, photos a detector broke off at, camera clocks, model migrations, imported vectors, covers.

Revision: 0002, after 0001. Expand only: version N-1 must run beside it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OUTCOMES = ("faces", "none", "skipped", "failed")


def upgrade() -> None:
    op.add_column("assets", sa.Column("captured_offset", sa.SmallInteger(), nullable=True))
    for outcome in OUTCOMES:
        op.add_column(
            "detection_sessions",
            sa.Column(f"photos_{outcome}", sa.BigInteger(), server_default="0", nullable=False),
        )
    op.add_column("detection_sessions", sa.Column("retry_of", sa.UUID(), nullable=True))
    op.execute(
        """
        UPDATE detection_sessions SET
            photos_faces = counted.faces, photos_none = counted.none,
            photos_skipped = counted.skipped, photos_failed = counted.failed
        FROM (
            SELECT session_id,
                count(*) FILTER (WHERE outcome = 'FACES') AS faces,
                count(*) FILTER (WHERE outcome = 'NONE') AS none,
                count(*) FILTER (WHERE outcome = 'SKIPPED') AS skipped,
                count(*) FILTER (WHERE outcome = 'FAILED') AS failed
            FROM session_photos GROUP BY session_id
        ) AS counted
        WHERE counted.session_id = detection_sessions.session_id
        """
    )
    op.add_column("session_photos", sa.Column("breaks", sa.SmallInteger(), server_default="0", nullable=False))
    op.drop_constraint("fk_session_photos_session_id", "session_photos")
    op.drop_index("ix_session_photos_slice", "session_photos")
    op.create_index("ix_session_photos_slice", "session_photos", ["session_id", "slice"])
    op.add_column("face_embeddings", sa.Column("imported", sa.Boolean(), server_default="false", nullable=False))
    op.create_index("ix_persons_cover", "persons", ["cover_face_id"])
    op.create_index("ix_clusters_cover", "clusters", ["cover_face_id"])
    op.create_index("ix_faces_aside", "faces", ["library_id", "face_id"], postgresql_where=sa.text("state <> 'ACTIVE'"))
    op.create_table(
        "model_migrations",
        sa.Column("migration_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("from_version", sa.Text(), nullable=False),
        sa.Column("to_version", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cut_over_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("pk_model_migrations")),
        sa.UniqueConstraint(
            "library_id",
            "from_version",
            "to_version",
            name=op.f("uq_model_migrations_library_id_from_version_to_version"),
        ),
    )


def downgrade() -> None:
    op.drop_table("model_migrations")
    op.drop_index("ix_faces_aside", table_name="faces")
    op.drop_index("ix_clusters_cover", table_name="clusters")
    op.drop_index("ix_persons_cover", table_name="persons")
    op.drop_column("face_embeddings", "imported")
    op.drop_index("ix_session_photos_slice", "session_photos")
    op.create_index("ix_session_photos_slice", "session_photos", ["session_id", "slice", "outcome", "asset_id"])
    op.create_foreign_key(
        "fk_session_photos_session_id",
        "session_photos",
        "detection_sessions",
        ["session_id"],
        ["session_id"],
        ondelete="CASCADE",
    )
    op.drop_column("session_photos", "breaks")
    op.drop_column("detection_sessions", "retry_of")
    for outcome in OUTCOMES:
        op.drop_column("detection_sessions", f"photos_{outcome}")
    op.drop_column("assets", "captured_offset")
