"""Whether a transaction waits for another: tests of locks let the one go on once the other has come to where it must stop."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from shared.foundation import Foundation

# Joined for the database: transaction ids, for which most wait, are locks of the whole server.
_WAITS: Final = text(
    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE datname = current_database() AND NOT granted "
    "AND (CAST(:kind AS text) IS NULL OR locktype = :kind) "
    "AND (CAST(:table AS text) IS NULL OR relation = to_regclass(:table)))"
)


async def somebody_waits(base: Foundation, *, kind: str | None = None, table: str | None = None) -> bool:
    """Whether anybody in the test's own database waits for a lock; of this ``pg_locks.locktype`` or on this table, if told."""
    async with base.database.transaction() as tx:
        return bool(await tx.scalar(_WAITS, {"kind": kind, "table": table}))
