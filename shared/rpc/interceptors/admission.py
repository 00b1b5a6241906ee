"""Overload is refused, not suffered: at most so many calls at once, and none once the server drains."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.errors import KithError, Overloaded, Reason, Unavailable
from shared.rpc.interceptors.call import Call, CallInterceptor, Proceed
from shared.rpc.method import RpcKind
from shared.telemetry.metrics import Metrics

_RETRY_AFTER_S = 0.5


class Admission:
    """The room of one server: who is in, whether the door is open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._drain_began = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._watches: set[asyncio.Timeout] = set()
        self._probes: set[asyncio.Timeout] = set()

    @property
    def in_flight(self) -> int:
        """Calls being served, streams included, health and reflection not."""
        return self._in_flight

    @property
    def draining(self) -> bool:
        """Whether new calls are refused for good."""
        return self._drain_began.is_set()

    def enter(self) -> None:
        """Take a place. Raises :class:`Overloaded`, or :class:`Unavailable` (DRAINING), if there is none."""
        if self.draining:
            raise _draining()
        if self._in_flight >= self._limit:
            raise Overloaded(
                f"this server serves {self._limit} calls at once and all are taken",
                metadata={"limit": str(self._limit)},
                retry_after_s=_RETRY_AFTER_S,
            )
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def drain(self) -> None:
        """Refuse new calls from now on, and end the watches: they are resumable and would never end by themselves."""
        self._drain_began.set()
        _end(self._watches)

    def close(self) -> None:
        """End what health probes and tools still watch; the last thing before the port closes."""
        _end(self._probes)

    async def wait_draining(self) -> None:
        """Until new calls are refused. For two-way streams, which should end when they have answered what they took."""
        await self._drain_began.wait()

    async def wait_idle(self) -> None:
        """Until no call is in flight."""
        await self._idle.wait()

    async def serve_watch(self, call: Call, proceed: Proceed) -> Any:
        """Serve a stream of answers until it ends, or raise :class:`Unavailable` (DRAINING) into it.

        Those of clients end with :meth:`drain`, those of health probes with :meth:`close`.
        """
        group = self._probes if call.method.is_infrastructure else self._watches
        watch = asyncio.timeout(None)
        try:
            async with watch:
                group.add(watch)
                return await proceed(call)
        except TimeoutError:
            if not watch.expired():
                raise
            raise _draining() from None
        finally:
            group.discard(watch)


class AdmissionInterceptor(CallInterceptor):
    """Health and reflection need no place: they must answer exactly when the server is full."""

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self._admission = admission
        self._metrics = metrics

    async def around(self, call: Call, proceed: Proceed) -> Any:
        if call.method.is_infrastructure:
            return await self._serve(call, proceed)
        try:
            self._admission.enter()
        except KithError as refusal:
            self._metrics.rpc_refused.labels(refusal.reason.value).inc()
            raise
        try:
            return await self._serve(call, proceed)
        finally:
            self._admission.leave()

    async def _serve(self, call: Call, proceed: Proceed) -> Any:
        if call.kind is RpcKind.UNARY_STREAM:
            return await self._admission.serve_watch(call, proceed)
        return await proceed(call)


def _end(watches: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for watch in watches:
        watch.reschedule(now)


def _draining() -> Unavailable:
    return Unavailable(
        "this server is stopping; another one will answer",
        reason=Reason.DRAINING,
        retry_after_s=_RETRY_AFTER_S,
    )
