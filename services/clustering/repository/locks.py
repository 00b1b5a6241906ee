"""Advisory locks of this service, each held to the end of its transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import BigInteger, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.engine import Transaction


async def lock_clusters(tx: Transaction, library_id: str) -> None:
    """Let nobody else change the clusters of a library."""
    await tx.execute(select(func.pg_advisory_xact_lock(_lock_number(f"clusters/{library_id}"))))


async def lock_centroids(tx: Transaction, person_ids: Sequence[UUID]) -> None:
    """Let nobody else change the centroids of these persons; in order of id, so that no two calls wait for each other."""
    numbers = [_lock_number(f"centroids/{person_id}") for person_id in sorted(set(person_ids))]
    in_order = func.unnest(cast(numbers, ARRAY(BigInteger))).column_valued("number")
    await tx.execute(select(func.count(func.pg_advisory_xact_lock(in_order))))


async def allow_long_work(tx: Transaction) -> None:
    """Let this transaction wait and work longer than a call may: a job writes a whole library at once."""
    await tx.execute(text("SET LOCAL statement_timeout = '15min'"))
    await tx.execute(text("SET LOCAL lock_timeout = '60s'"))


def _lock_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
