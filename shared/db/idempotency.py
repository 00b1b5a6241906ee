"""Replay protection: a mutation with a ``request_id`` happens once and is answered the same way each time.

The answer is stored in the mutation's own transaction, so either both exist or neither. Two calls with one id at the same
moment are put in order by an advisory lock that ends with the transaction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, select

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_shared import idempotency_keys
from shared.errors import InvalidRequest, Reason

RETENTION = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes a call the same call."""

    library_id: str
    request_id: UUID
    request_hash: bytes


def make_request_key(library_id: str, request_id: UUID, rpc: str, request: bytes) -> RequestKey:
    """Key of a call of ``rpc`` with the serialised ``request``."""
    digest = hashlib.sha256(rpc.encode() + b"\0" + request).digest()
    return RequestKey(library_id, request_id, digest)


async def find_answer(tx: Transaction, key: RequestKey, clock: Clock) -> bytes | None:
    """The stored answer to this very call, or None if it has yet to be made.

    Waits for a call with the same id that is under way. Raises :class:`InvalidRequest` with REQUEST_ID_REUSED if the id was
    used for another request.
    """
    lock = int.from_bytes(
        hashlib.sha256(f"{key.library_id}/{key.request_id}".encode()).digest()[:8], "big", signed=True
    )
    await tx.execute(select(func.pg_advisory_xact_lock(lock)))
    row = await tx.one_or_none(
        select(idempotency_keys.c.request_hash, idempotency_keys.c.response).where(
            idempotency_keys.c.library_id == key.library_id,
            idempotency_keys.c.request_id == key.request_id,
            idempotency_keys.c.created_at > clock.now() - RETENTION,
        )
    )
    if row is None:
        return None
    if bytes(row.request_hash) != key.request_hash:
        raise InvalidRequest(
            "request_id was used for another request",
            field="request_id",
            reason=Reason.REQUEST_ID_REUSED,
            metadata={"request_id": str(key.request_id)},
        )
    return bytes(row.response)


async def store_answer(tx: Transaction, key: RequestKey, response: bytes, clock: Clock) -> None:
    """Remember the answer, in the transaction of the work itself. An expired answer under the same id gives way."""
    await tx.execute(
        delete(idempotency_keys).where(
            idempotency_keys.c.library_id == key.library_id, idempotency_keys.c.request_id == key.request_id
        )
    )
    await tx.execute(
        insert(idempotency_keys),
        {
            "library_id": key.library_id,
            "request_id": key.request_id,
            "request_hash": key.request_hash,
            "response": response,
            "created_at": clock.now(),
        },
    )


async def delete_expired_answers(tx: Transaction, clock: Clock) -> int:
    """Forget answers older than the retention; returns how many."""
    result = await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at <= clock.now() - RETENTION))
    return result.rowcount
