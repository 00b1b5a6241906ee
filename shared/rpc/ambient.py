"""What the call being served, or the job being run, carries along: its request id, whom it is for, how much time is left.

Set by the interceptors, read by servicers and by the channels a servicer calls through. Context variables, because a
call's task and the tasks it starts inherit them and no other call ever sees them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shared.rpc.principal import Principal

REQUEST_ID_KEY = "x-request-id"
ON_BEHALF_KEY = "kith-on-behalf-of"

_request_id: ContextVar[str | None] = ContextVar("kith_request_id", default=None)
_principal: ContextVar[Principal | None] = ContextVar("kith_principal", default=None)
_job_starter: ContextVar[str | None] = ContextVar("kith_job_starter", default=None)
_ends_at: ContextVar[float | None] = ContextVar("kith_ends_at", default=None)


def current_request_id() -> str | None:
    """The id under which this call is logged everywhere (metadata ``x-request-id``), or ``None`` outside a call."""
    return _request_id.get()


def current_principal() -> Principal:
    """Who is calling. Raises ``LookupError`` outside a call that went through the auth interceptor."""
    principal = _principal.get()
    if principal is None:
        raise LookupError("no principal: this code does not run inside an authenticated call")
    return principal


def current_subject() -> str | None:
    """For whom this code runs: who is calling, or who started the job; ``None`` outside of both."""
    principal = _principal.get()
    return _job_starter.get() if principal is None else principal.subject


def time_left() -> float | None:
    """Seconds until the call's deadline, never negative; ``None`` if it has none (outside a call, or a watch)."""
    ends_at = _ends_at.get()
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())


@contextmanager
def carrying_request_id(request_id: str) -> Iterator[None]:
    """Log and call other services under ``request_id`` inside the block. A job uses its own id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


@contextmanager
def acting_as(principal: Principal) -> Iterator[None]:
    """Make ``principal`` the current one inside the block."""
    token = _principal.set(principal)
    try:
        yield
    finally:
        _principal.reset(token)


@contextmanager
def working_for(subject: str) -> Iterator[None]:
    """Call other services in the name of ``subject`` inside the block: of whoever started the job."""
    token = _job_starter.set(subject)
    try:
        yield
    finally:
        _job_starter.reset(token)


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """Let :func:`time_left` count down from ``seconds`` inside the block."""
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)
