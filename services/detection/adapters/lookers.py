"""The detection services as the worker chooses among them: each may run another model, and a library is looked at by its own.

They are asked each time, all at once, which costs a call or two for some hundred photos: so a library that is cut over is
looked at by its new servers with the very next slice, and nothing has to be restarted. The first that runs the model is taken,
so servers of another model hold nobody up, away, full or hanging.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

from services.detection.adapters.looker import GrpcLooker
from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from services.detection.repository.models import find_active_version
from shared.config import Settings
from shared.db.engine import Database
from shared.errors import Overloaded, PreconditionFailed, Reason, Unavailable
from shared.rpc.channel import open_channel

_THIS_SERVER: Final = "this server"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Detection servers behind one address."""

    address: str
    looker: GrpcLooker


class Fleets:
    """:class:`ModelFleets` over the configured addresses, the first of which looks at libraries that have no model yet."""

    def __init__(self, fleets: Sequence[Fleet], own: PackDescription | None = None) -> None:
        """``own``: what this process itself runs, if it is a detection server."""
        self._fleets = tuple(fleets)
        self._own = own

    async def find_looker(self, library_id: str, model_version: str | None) -> GrpcLooker:
        """The servers that run this model; without one, those that look at a library first."""
        if model_version is None:
            return self._fleets[0].looker
        return (await self._find(library_id, model_version))[0]

    async def describe_model(self, library_id: str, model_version: str) -> PackDescription:
        if self._own is not None and self._own.model_version == model_version:
            return self._own
        return (await self._find(library_id, model_version))[1]

    async def find_measurer(self, library_id: str, model_version: str) -> GrpcLooker:
        return (await self._find(library_id, model_version))[0]

    async def _find(self, library_id: str, model_version: str) -> tuple[GrpcLooker, PackDescription]:
        running = {} if self._own is None else {_THIS_SERVER: self._own.model_version}
        away: Unavailable | Overloaded | None = None
        asked = {asyncio.create_task(fleet.looker.describe_pack(library_id)): fleet for fleet in self._fleets}
        waiting = set(asked)
        try:
            while waiting:
                answered, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in answered:
                    try:
                        pack = task.result()
                    except (Unavailable, Overloaded) as error:
                        away = error
                        continue
                    if pack.model_version == model_version:
                        return asked[task].looker, pack
        finally:
            await _end(asked)
        if away is not None:
            raise away
        running |= {fleet.address: task.result().model_version for task, fleet in asked.items()}
        raise _nobody_runs(model_version, running)


class ActiveLooker:
    """:class:`PhotoLooker` by the servers that run a library's active model; for one without, by the first."""

    def __init__(self, database: Database, fleets: Fleets) -> None:
        self._database = database
        self._fleets = fleets

    async def describe_pack(self, library_id: str) -> PackDescription:
        return await (await self._choose(library_id)).describe_pack(library_id)

    async def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides, *, alone: bool = False
    ) -> AsyncGenerator[PhotoLook, None]:
        looker = await self._choose(library_id)
        async with aclosing(looker.look_at(library_id, photos, options, alone=alone)) as looks:
            async for look in looks:
                yield look

    async def _choose(self, library_id: str) -> GrpcLooker:
        async with self._database.transaction() as tx:
            version = await find_active_version(tx, library_id)
        return await self._fleets.find_looker(library_id, version)


def open_fleets(settings: Settings, stack: AsyncExitStack, own: PackDescription | None = None) -> Fleets:
    """Channels to the configured detection services, which end with ``stack``."""
    addresses = (settings.services.detection, settings.services.detection_next)
    fleets: list[Fleet] = []
    for address in dict.fromkeys(address for address in addresses if address is not None):
        channel = open_channel(address, settings.rpc, settings.auth)
        stack.push_async_callback(channel.close)
        fleets.append(Fleet(address, GrpcLooker(channel)))
    return Fleets(fleets, own)


async def _end(tasks: Collection[asyncio.Task[PackDescription]]) -> None:
    """Cancel those that have not ended, and wait until they have."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _nobody_runs(model_version: str, running: dict[str, str]) -> PreconditionFailed:
    where = ", ".join(f"{address} runs '{version}'" for address, version in running.items())
    return PreconditionFailed(
        f"no detection service runs the model '{model_version}': {where}",
        reason=Reason.MODEL_MISMATCH,
        metadata={"expected": model_version, "actual": ", ".join(running.values())},
    )
