"""Transactions of jobs that read or write a whole library at once."""

from __future__ import annotations

from sqlalchemy import text

from shared.db.engine import Transaction


async def allow_long_work(tx: Transaction) -> None:
    """Let this transaction wait and work longer than a call may."""
    await tx.execute(text("SET LOCAL statement_timeout = '15min'"))
    await tx.execute(text("SET LOCAL lock_timeout = '60s'"))
