"""When a question was last asked, which change an answer made, who has which questions in hand, and curves fitted on answers.

Revision: 0005, after 0004. Expand only, and like those before: version N-1 runs beside it while it is applied, every statement
is a transaction of its own, and broken off anywhere it is run again from the beginning.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.db.migrations.beside import create_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE suggestions ADD COLUMN IF NOT EXISTS asked_at timestamptz")
        op.execute("ALTER TABLE reviews ADD COLUMN IF NOT EXISTS change_id uuid")
        create_index("ix_reviews_model", "reviews (library_id, (evidence ->> 'model_version'), created_at)")
        _create_tables()


def _create_tables() -> None:
    op.create_table(
        "review_leases",
        sa.Column("suggestion_id", sa.UUID(), nullable=False),
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["suggestion_id"],
            ["suggestions.suggestion_id"],
            name="fk_review_leases_suggestion_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("suggestion_id", name="pk_review_leases"),
        if_not_exists=True,
    )
    op.create_table(
        "calibrations",
        sa.Column("library_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column("answered_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("library_id", "model_version", name="pk_calibrations"),
        if_not_exists=True,
    )


def downgrade() -> None:
    op.drop_table("calibrations")
    op.drop_table("review_leases")
    op.drop_column("reviews", "change_id")
    op.drop_index("ix_reviews_model", "reviews")
    op.drop_column("suggestions", "asked_at")
