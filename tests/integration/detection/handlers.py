"""Detection work that a test can stop half way, and workers that run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from services.detection.adapters.looker import GrpcLooker
from services.detection.adapters.lookers import ActiveLooker, Fleet, Fleets
from services.detection.domain.model import DetectionDeps, OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from services.detection.domain.ports import PhotoLooker
from services.detection.domain.sessions import JOB_KIND
from services.detection.jobs import DetectAssets
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor
from shared.rpc.channel import open_channel


class HeldLooker:
    """A real looker that hands out ``allowed`` photos and then waits to be released."""

    def __init__(self, inner: ActiveLooker, allowed: int) -> None:
        self._inner = inner
        self._allowed = allowed
        self._open = asyncio.Event()
        self.reached = asyncio.Event()

    def release(self) -> None:
        """Hand out everything from now on."""
        self._open.set()

    async def describe_pack(self, library_id: str) -> PackDescription:
        return await self._inner.describe_pack(library_id)

    async def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides, *, alone: bool = False
    ) -> AsyncGenerator[PhotoLook, None]:
        async with aclosing(self._inner.look_at(library_id, photos, options, alone=alone)) as looks:
            async for look in looks:
                if self._allowed == 0:
                    self.reached.set()
                    await self._open.wait()
                else:
                    self._allowed -= 1
                yield look


def open_looker(base: Foundation, stack: AsyncExitStack, address: str) -> ActiveLooker:
    """What a worker looks with that is configured for the detection server of ``address`` alone."""
    channel = open_channel(address, base.settings.rpc, base.settings.auth)
    stack.push_async_callback(channel.close)
    return ActiveLooker(base.database, Fleets([Fleet(address, GrpcLooker(channel))]))


def build_handler(base: Foundation, looker: PhotoLooker, trial: asyncio.Lock | None = None) -> dict[str, JobHandler]:
    """The detection job over ``looker``; ``trial`` is its lock for photos on trial, if another has to have the same."""
    deps = DetectionDeps(base.clock, base.ids, base.settings.detection)
    return {JOB_KIND: DetectAssets(base.database, deps, looker, trial or asyncio.Lock())}


def build_executor(base: Foundation, looker: PhotoLooker) -> SliceExecutor:
    """Runs slices by hand, without a queue."""
    return SliceExecutor(build_handler(base, looker), base.database, base.clock, base.ids, base.settings.jobs)
