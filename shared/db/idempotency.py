"""Replay protection: a mutation with a ``request_id`` happens once and is answered the same way each time.

The row is made, and the answer stored in it, in the mutation's own transaction, so either all of it exists or nothing. Two
calls with one id at the same moment are put in order by the row's key.

Of an answer about a person who was forgotten the row stays without the answer: else a retry would make the person anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.clock import Clock
from shared.db.engine import Reader, Transaction
from shared.db.query import Query
from shared.db.tables_shared import idempotency_keys
from shared.errors import AnswerForgotten, InvalidRequest, Reason

RETENTION = timedelta(hours=24)

FORGOTTEN = b"\0"
"""In the place of an answer that was about somebody forgotten. No message is written so: numbers of fields are above 0. Nothing
at all would be a message without fields."""


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


async def find_answer(reader: Reader, key: RequestKey, clock: Clock) -> bytes | None:
    """The stored answer to this very call, or None if there is none yet.

    Raises :class:`InvalidRequest` with REQUEST_ID_REUSED if the id was used for another request, and
    :class:`AnswerForgotten` if the answer was about a person who was forgotten since.
    """
    row = await reader.one_or_none(
        _FIND,
        {"library_id": key.library_id, "request_id": key.request_id, "expired": clock.now() - RETENTION},
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
    response = bytes(row.response)
    if response == FORGOTTEN:
        raise AnswerForgotten
    return response


async def claim_request(tx: Transaction, key: RequestKey, clock: Clock) -> bytes | None:
    """Make this call the one that is answered under its id, or tell the answer it was given before.

    Waits for a call with the same id that is under way. None: the work is to be done, and :func:`store_answer` to follow in
    the same transaction. Raises as :func:`find_answer`.
    """
    now = clock.now()
    claimed = await tx.rows(
        _CLAIM,
        {
            "library_id": key.library_id,
            "request_id": key.request_id,
            "request_hash": key.request_hash,
            "now": now,
            "expired": now - RETENTION,
        },
    )
    return None if claimed else await find_answer(tx, key, clock)


async def store_answer(tx: Transaction, key: RequestKey, response: bytes) -> None:
    """Remember the answer to a claimed call, in the transaction of the work itself."""
    await tx.rows(_STORE, {"library_id": key.library_id, "request_id": key.request_id, "response": response})


async def delete_expired_answers(tx: Transaction, clock: Clock) -> int:
    """Forget answers older than the retention; returns how many."""
    result = await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at <= clock.now() - RETENTION))
    return result.rowcount


async def forget_answers_about(tx: Transaction, library_id: str, ids: Collection[UUID]) -> int:
    """Forget the answers that hold one of these ids, whatever calls they were given to; returns how many.

    That there was a call is remembered as long as before, so that a retry of it does nothing.
    """
    result = await tx.execute(update(idempotency_keys).where(*_holding(library_id, ids)).values(response=FORGOTTEN))
    return result.rowcount


async def count_answers_about(tx: Transaction, library_id: str, ids: Collection[UUID]) -> int:
    """How many answers hold one of these ids."""
    found: int = await tx.scalar(select(func.count()).where(*_holding(library_id, ids)))
    return found


def _holding(library_id: str, ids: Collection[UUID]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    # Ids are texts in every message, so their bytes are found as they are, wherever they stand.
    held = [func.position(literal(str(each).encode()).op("IN")(idempotency_keys.c.response)) > 0 for each in ids]
    return idempotency_keys.c.library_id == library_id, or_(*held)


_FIND = Query(
    select(idempotency_keys.c.request_hash, idempotency_keys.c.response).where(
        idempotency_keys.c.library_id == bindparam("library_id"),
        idempotency_keys.c.request_id == bindparam("request_id"),
        idempotency_keys.c.created_at > bindparam("expired"),
    )
)

# Whoever inserts the row second waits for the first transaction to end, and then finds its answer, or takes its place. An
# expired answer under the same id gives way.
_CLAIM = Query(
    insert(idempotency_keys)
    .values(
        library_id=bindparam("library_id"),
        request_id=bindparam("request_id"),
        request_hash=bindparam("request_hash"),
        response=b"",
        created_at=bindparam("now"),
    )
    .on_conflict_do_update(
        index_elements=["library_id", "request_id"],
        set_={"request_hash": bindparam("request_hash"), "response": b"", "created_at": bindparam("now")},
        where=idempotency_keys.c.created_at <= bindparam("expired"),
    )
    .returning(idempotency_keys.c.request_id)
)

_STORE = Query(
    update(idempotency_keys)
    .where(
        idempotency_keys.c.library_id == bindparam("library_id"),
        idempotency_keys.c.request_id == bindparam("request_id"),
    )
    .values(response=bindparam("response"))
)
