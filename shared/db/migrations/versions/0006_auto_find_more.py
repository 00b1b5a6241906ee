"""What libraries say of looking for faces by itself, and how many accepted questions each person has had since.

Revision: 0006, after 0005. Expand only, and like those before: version N-1 runs beside it while it is applied, every statement
is a transaction of its own, and broken off anywhere it is run again from the beginning. What N-1 stores beside this version is
not counted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_table(
            "discovery_settings",
            sa.Column("library_id", sa.Text(), nullable=False),
            sa.Column("auto_find_more_after", sa.Integer(), nullable=False),
            sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("updated_by", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint("library_id", name="pk_discovery_settings"),
            if_not_exists=True,
        )
        op.create_table(
            "auto_finds",
            sa.Column("person_id", sa.UUID(), nullable=False),
            sa.Column("library_id", sa.Text(), nullable=False),
            sa.Column("accepted", sa.Integer(), nullable=False),
            sa.Column("job_id", sa.UUID()),
            sa.Column("started_at", sa.DateTime(timezone=True)),
            sa.ForeignKeyConstraint(
                ["person_id"], ["persons.person_id"], name="fk_auto_finds_person_id", ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint("person_id", name="pk_auto_finds"),
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_table("auto_finds")
    op.drop_table("discovery_settings")
