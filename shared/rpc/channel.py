"""Channels to other Kith services, and the retry policy every client should have.

- Balancing: ``round_robin`` over all addresses of the target, skipping servers whose health is NOT_SERVING, so a server that
  starts or drains is left alone before it has to refuse.
- Retries: UNAVAILABLE only, at most 5 attempts, after 0.1 s doubling up to 2 s. Safe also for mutations: they carry a
  ``request_id`` and are answered once. Only calls that have not been answered by a byte are retried.
- Deadlines: the time left of the call being served, less 5 % for the way back; else ``default_deadline_s`` for calls with
  one answer; streams have none of their own.
- Metadata: ``x-request-id``, ``traceparent``, ``kith-on-behalf-of`` (whoever calls, or started the job; percent-encoded UTF-8)
  and, if configured, the service token.

A limit of grpc.aio itself: when a server refuses a client stream while the client writes to it, the client may see INTERNAL
("Internal error from Core") instead of the status that was sent (https://github.com/grpc/grpc/issues/36066).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import grpc
import grpc.aio

from shared.config import AuthSettings, RpcSettings
from shared.rpc.ambient import ON_BEHALF_KEY, REQUEST_ID_KEY, current_request_id, current_subject, time_left
from shared.rpc.status import from_rpc_error
from shared.telemetry.tracing import outgoing_trace

SHAVED: Final = 0.95

SERVICE_CONFIG: Final[dict[str, Any]] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def open_channel(target: str, settings: RpcSettings, auth: AuthSettings | None = None) -> grpc.aio.Channel:
    """A channel to ``target`` (any gRPC target, e.g. ``dns:///persons:50071``). It connects with its first call.

    Calls raise ``grpc.aio.AioRpcError``; put them inside :func:`translate_errors` to get Kith's own.
    """
    token = auth.service_token.get_secret_value() if auth is not None and auth.service_token is not None else None
    outgoing = Outgoing(settings.default_deadline_s, token)
    return grpc.aio.insecure_channel(
        target,
        options=channel_options(settings),
        interceptors=(
            _UnaryUnary(outgoing),
            _UnaryStream(outgoing),
            _StreamUnary(outgoing),
            _StreamStream(outgoing),
        ),
    )


def channel_options(settings: RpcSettings) -> tuple[tuple[str, Any], ...]:
    """Channel arguments of a client."""
    return (
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        # A request larger than this buffer could not be sent again; the default (256 KiB) is less than a photo.
        ("grpc.per_rpc_retry_buffer_size", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A restarted server is found again while the retries of a call still run.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )


@asynccontextmanager
async def translate_errors(service: str) -> AsyncIterator[None]:
    """Raise the :class:`KithError` behind a failed call to ``service`` (a word for people, e.g. ``persons``)."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service=service) from error


class Outgoing:
    """What is added to every call on its way out."""

    def __init__(self, default_deadline_s: float, service_token: str | None) -> None:
        self._default_deadline_s = default_deadline_s
        self._service_token = service_token

    def prepare(self, details: grpc.aio.ClientCallDetails, *, may_last: bool) -> grpc.aio.ClientCallDetails:
        """``details`` with deadline and metadata; what the caller has set itself stays, but never past the deadline."""
        limits = [limit for limit in (details.timeout, self._inherited()) if limit is not None]
        timeout = min(limits) if limits else self._default_deadline_s if not may_last else None
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        for key, value in self._metadata().items():
            if metadata.get(key) is None:
                metadata.add(key, value)
        return grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )

    @staticmethod
    def _inherited() -> float | None:
        left = time_left()
        return None if left is None else left * SHAVED

    def _metadata(self) -> dict[str, str]:
        metadata = outgoing_trace()
        request_id = current_request_id()
        if request_id is not None:
            metadata[REQUEST_ID_KEY] = request_id
        subject = current_subject()
        if subject is not None:
            metadata[ON_BEHALF_KEY] = quote(subject, safe="@:/+")
        if self._service_token is not None:
            metadata["authorization"] = f"Bearer {self._service_token}"
        return metadata


# grpc.aio files an interceptor under the first kind it is an instance of, hence one class per kind.
class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._outgoing.prepare(client_call_details, may_last=False), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._outgoing.prepare(client_call_details, may_last=True), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._outgoing.prepare(client_call_details, may_last=True), request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._outgoing.prepare(client_call_details, may_last=True), request_iterator)
