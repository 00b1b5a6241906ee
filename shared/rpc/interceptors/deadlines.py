"""Every call ends: the caller's deadline, ours if it has none, never more than the cap, and no start without time.

Streams, of answers (watches, DetectStream) or of requests (ImportFaces), live as long as their caller wants; what else
bounds them is the caller's own deadline, its going away, and draining.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from shared.config import RpcSettings
from shared.errors import DeadlineTooShort
from shared.rpc.ambient import ending_within
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed
from shared.rpc.interceptors.context import CallContext
from shared.telemetry.metrics import Metrics


class DeadlinesInterceptor(CallInterceptor):
    """Cancels the handler when its time is up; the caller gets DEADLINE_EXCEEDED.

    ErrorInfo metadata ``begun`` tells the two apart: ``false``, nothing was done; ``true``, ask before you repeat (or
    repeat with the same ``request_id``).
    """

    def __init__(self, settings: RpcSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    async def around(self, call: Call, proceed: Proceed) -> Any:
        if call.method.is_infrastructure:
            return await proceed(call)
        remaining: float | None = call.context.time_remaining()
        if remaining is not None and remaining < self._settings.min_deadline_s:
            refusal = DeadlineTooShort(
                f"{remaining * 1000:.0f} ms are left and nothing is begun with less than "
                f"{self._settings.min_deadline_s * 1000:.0f} ms",
                metadata={"begun": "false"},
            )
            self._metrics.rpc_refused.labels(refusal.reason.value).inc()
            raise refusal
        limit = self._limit(call, remaining)
        return await proceed(call) if limit is None else await _serve_within(limit, call, proceed)

    def _limit(self, call: Call, remaining: float | None) -> float | None:
        if call.kind.response_streaming or call.kind.request_streaming:
            return remaining
        wanted = self._settings.default_deadline_s if remaining is None else remaining
        return min(wanted, self._settings.max_deadline_s)


async def _serve_within(limit: float, call: Call, proceed: Proceed) -> Any:
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            with ending_within(limit):
                return await proceed(replace(call, context=_DeadlineContext(call.context, limit)))
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineTooShort(f"the call did not end within {limit:g} s", metadata={"begun": "true"}) from None


class _DeadlineContext(CallContext):
    """Tells the handler the deadline that is enforced, not only the caller's."""

    def __init__(self, inner: grpc.aio.ServicerContext[Any, Any], limit: float) -> None:
        super().__init__(inner)
        self._ends_at = time.monotonic() + limit

    def time_remaining(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())
