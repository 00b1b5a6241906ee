"""Steps of a migration that runs beside the version before: none both locks a table against it and takes long."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def create_index(name: str, definition: str, *, kind: str = "INDEX") -> None:
    """Build an index beside readers and writers; anew, if building it was broken off before."""
    bind = op.get_bind()
    # It waits for transactions that are older, and nobody waits for it meanwhile.
    timeout = bind.scalar(sa.text("SHOW lock_timeout"))
    op.execute("SET lock_timeout = 0")
    spoilt = sa.text("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")
    if bind.scalar(spoilt, {"name": name}):
        op.execute(f"DROP INDEX CONCURRENTLY {name}")
    op.execute(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {definition}")
    op.execute(f"SET lock_timeout = '{timeout}'")


def run_together(*statements: str) -> None:
    op.execute(f"DO $$ BEGIN {'; '.join(statements)}; END $$")
