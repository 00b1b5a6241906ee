"""The load: clients that call one method, one call after the other, with bytes made beforehand.

They neither make nor read messages, so that what a client costs is the same whether a service answers or the echo does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from bench.rate import Turn, make_turn

CONNECT_S = 30.0


@dataclass(frozen=True, slots=True)
class Calls:
    """What is called: ``method`` as gRPC writes it, and the requests, one after the other.

    With ``once`` each request is sent once, as a second one would be answered from memory; else they come round again.
    """

    method: str
    requests: Sequence[bytes]
    once: bool = False


class Clients:
    """So many callers, each with a connection of its own and one call under way."""

    def __init__(self, target: str, calls: Calls, clients: int) -> None:
        self._calls = calls
        self._at = 0
        self._runner = asyncio.Runner()
        self._channels = self._runner.run(_open_channels(target, clients))

    def take_turn(self, seconds: float) -> Turn:
        return self._runner.run(self._call(seconds))

    async def _call(self, seconds: float) -> Turn:
        taken: list[float] = []
        begun = time.monotonic()

        async def call(channel: grpc.aio.Channel) -> None:
            method: Any = channel.unary_unary(self._calls.method)
            while (now := time.monotonic()) < begun + seconds:
                await method(self._next_request())
                taken.append(time.monotonic() - now)

        await asyncio.gather(*(call(channel) for channel in self._channels))
        return make_turn(taken, time.monotonic() - begun)

    def _next_request(self) -> bytes:
        if self._calls.once and self._at >= len(self._calls.requests):
            raise RuntimeError(f"{self._calls.method}: all {self._at} requests were sent")
        request = self._calls.requests[self._at % len(self._calls.requests)]
        self._at += 1
        return request


async def _open_channels(target: str, count: int) -> list[grpc.aio.Channel]:
    # Channels to one address would share one connection otherwise.
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(count)]
    async with asyncio.timeout(CONNECT_S):
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
    return channels
