"""Who is calling, for whom, may they do this, in this library.

The library is the request's own ``library_id`` (empty: ``default``), on a stream that of every message; where a stream has
one answer, it is of one library, and its later messages may leave that empty. Requests without that field belong to no
library.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog

from shared.errors import KithError, PermissionDenied, Reason
from shared.ids import parse_library_id
from shared.rpc.ambient import ON_BEHALF_KEY, acting_as
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed
from shared.rpc.interceptors.context import CallContext
from shared.rpc.method import RpcKind
from shared.rpc.principal import Authenticator, Principal, act_for, verb_of
from shared.telemetry.metrics import Metrics


class AuthInterceptor(CallInterceptor):
    """Health and reflection need no token."""

    def __init__(self, authenticator: Authenticator, metrics: Metrics) -> None:
        self._authenticator = authenticator
        self._metrics = metrics

    async def around(self, call: Call, proceed: Proceed) -> Any:
        if call.method.is_infrastructure:
            return await proceed(call)
        try:
            principal = await self._admit(call)
        except KithError as refusal:
            self._metrics.rpc_refused.labels(refusal.reason.value).inc()
            raise
        structlog.contextvars.bind_contextvars(subject=principal.subject)
        if principal.through:
            structlog.contextvars.bind_contextvars(through=principal.through)
        if call.kind.request_streaming:
            call = replace(
                call, context=_LibraryContext(call.context, principal, one_library=call.kind is RpcKind.STREAM_UNARY)
            )
        with acting_as(principal):
            return await proceed(call)

    async def _admit(self, call: Call) -> Principal:
        principal = await self._authenticator.authenticate(bearer_token(call.metadata.get("authorization")))
        verb = verb_of(call.method)
        if not principal.may(verb):
            raise PermissionDenied(
                f"this token may not {verb.value}",
                reason=Reason.VERB_FORBIDDEN,
                metadata={"verb": verb.value},
            )
        if call.request is not None:
            check_library(call.request, principal)
        subject = call.metadata.get(ON_BEHALF_KEY)
        return principal if subject is None else act_for(principal, unquote(subject))


class _LibraryContext(CallContext):
    """Checks every message of a client stream."""

    def __init__(self, inner: grpc.aio.ServicerContext[Any, Any], principal: Principal, *, one_library: bool) -> None:
        super().__init__(inner)
        self._principal = principal
        self._one_library = one_library
        self._begun = False

    async def read(self) -> Any:
        message = await self._inner.read()
        if message is not grpc.aio.EOF and not (self._repeats and not getattr(message, "library_id", "")):
            check_library(message, self._principal)
        self._begun = True
        return message

    @property
    def _repeats(self) -> bool:
        """Whether an empty library means the one named first."""
        return self._one_library and self._begun


def bearer_token(authorization: str | None) -> str | None:
    """The token of ``Bearer <token>`` (RFC 6750; the scheme's case does not matter), or ``None``."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def check_library(request: Any, principal: Principal) -> None:
    """Raises :class:`PermissionDenied` if ``request`` names a library that is not the caller's.

    Raises :class:`InvalidRequest` if what it names cannot be a library.
    """
    named = getattr(request, "library_id", None)
    if named is None:
        return
    library_id = parse_library_id(named)
    structlog.contextvars.bind_contextvars(library_id=library_id)
    if not principal.may_use(library_id):
        raise PermissionDenied(
            f"this token may not use library '{library_id}'",
            reason=Reason.LIBRARY_FORBIDDEN,
            metadata={"library_id": library_id},
        )
