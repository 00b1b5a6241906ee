"""Which failures of the stores below are the caller's business, and as what.

Only what a caller can act on is translated: somebody else holds the row (send it again), a store is away (come back), the
time is up. Everything else is a fault of this house and stays unknown here, so it ends as INTERNAL with a request id.
Messages are fixed sentences: a driver's own text may hold a DSN, SQL or a path.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import grpc.aio
import redis.exceptions
import sqlalchemy.exc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from shared.errors import Contention, DeadlineTooShort, KithError, Overloaded, Unavailable
from shared.rpc.status import details_of, from_status

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOCKED = frozenset({"55P03", "40001", "40P01"})
_QUERY_CANCELED = "57014"
_AWAY_CLASSES = ("08", "53", "57P")

_RETRY_LOCK_S = 0.1
_RETRY_STORE_S = 1.0


def to_kith_error(error: BaseException) -> KithError | None:
    """``error`` as one a caller may see, or ``None`` if it is a fault of this house.

    Of a group (``asyncio.TaskGroup``) the first translatable member speaks for all.
    """
    for leaf in _leaves(error):
        translated = leaf if isinstance(leaf, KithError) else _translate(leaf)
        if translated is not None:
            return translated
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _translate(error: BaseException) -> KithError | None:
    if isinstance(error, grpc.aio.AioRpcError):
        return _from_rpc(error)
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if error.connection_invalidated:
            return _away("database")
        return _from_sqlstate(getattr(error.orig, "sqlstate", None))
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return _away("database")
    if isinstance(error, UnexpectedResponse):
        return _from_http(error.status_code)
    if isinstance(error, ResourceExhaustedResponse):
        return Overloaded("the vector store refused a call", retry_after_s=error.retry_after_s)
    if isinstance(error, ResponseHandlingException):
        return _away("vector store")
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return _away("queue")
    if isinstance(error, TimeoutError | ConnectionError) or _is_failed_connect(error):
        return _away("store")
    # asyncpg's own exceptions, from the connections that do not go through SQLAlchemy (LISTEN, COPY).
    sqlstate = getattr(error, "sqlstate", None)
    return _from_sqlstate(sqlstate) if isinstance(sqlstate, str) else None


def _from_sqlstate(sqlstate: str | None) -> KithError | None:
    if sqlstate is None:
        return None
    if sqlstate in _LOCKED:
        return Contention("another call holds what this one needs; send it again", retry_after_s=_RETRY_LOCK_S)
    if sqlstate == _QUERY_CANCELED:
        return DeadlineTooShort("the database did not finish in time", metadata={"begun": "true"})
    if sqlstate.startswith(_AWAY_CLASSES):
        return _away("database")
    return None


def _from_http(status: int | None) -> KithError | None:
    if status == 429:
        return Overloaded("the vector store refused a call", retry_after_s=_RETRY_STORE_S)
    return _away("vector store") if status is None or status >= 500 else None


def _from_rpc(error: grpc.aio.AioRpcError) -> KithError | None:
    """Calls to Kith services bring their own error; without one it was Qdrant, whose client speaks gRPC too."""
    status = details_of(error)
    typed = from_status(status) if status is not None else None
    if typed is not None:
        return typed
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
            return _away("vector store")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded("the vector store refused a call", retry_after_s=_RETRY_STORE_S)
        case _:
            return None


def _is_failed_connect(error: BaseException) -> bool:
    """asyncio raises a bare OSError when a host has several addresses and none answers."""
    return isinstance(error, OSError) and error.errno is None and "Connect call failed" in str(error)


def _away(store: str) -> Unavailable:
    return Unavailable(
        f"the {store} does not answer; try again", metadata={"store": store}, retry_after_s=_RETRY_STORE_S
    )
