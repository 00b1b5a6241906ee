"""Locks of PostgreSQL by name (advisory locks): where there is no row to lock, or too many.

A name is ``<what>/<library or id>``. By its number versions that run side by side keep out of each other's way: names stay.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import func, select

from shared.db.engine import Transaction


def lock_number(name: str) -> int:
    """The number PostgreSQL knows a name by: the first 64 bits of its SHA-256, signed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


async def lock_until_end(tx: Transaction, name: str) -> None:
    """Wait for a name, and hold it until the transaction ends."""
    await tx.execute(select(func.pg_advisory_xact_lock(lock_number(name))))
