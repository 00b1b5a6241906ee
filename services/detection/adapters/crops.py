"""Sweeping the crops of every detection server: each has its own memory, so each is asked, and not one of them by turns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from kith.detection.v1 import faces_pb2, faces_pb2_grpc
from services.detection.domain.ports import CropsSwept
from shared.config import Settings
from shared.errors import Reason, Unavailable
from shared.rpc.channel import open_channel, translate_errors

_SERVICE: Final = "detection"
_DNS: Final = "dns:///"


class RemoteCrops:
    """:class:`~services.detection.domain.ports.KeptCrops` of all servers behind the configured addresses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def sweep(self, library_id: str) -> CropsSwept:
        services = self._settings.services
        targets = [target for target in (services.detection, services.detection_next) if target is not None]
        servers = {server for target in targets for server in await find_servers(target)}
        swept = await asyncio.gather(*(self._sweep_one(server, library_id) for server in sorted(servers)))
        return CropsSwept(sum(each.dropped_count for each in swept), sum(each.left_count for each in swept))

    async def _sweep_one(self, server: str, library_id: str) -> faces_pb2.SweepCropsResponse:
        async with open_channel(server, self._settings.rpc, self._settings.auth) as channel, translate_errors(_SERVICE):
            stub = faces_pb2_grpc.FaceServiceStub(channel)
            return await stub.SweepCrops(faces_pb2.SweepCropsRequest(library_id=library_id))


async def find_servers(target: str) -> Sequence[str]:
    """The addresses of all servers a gRPC target stands for: ``dns:///name:port`` and ``name:port`` are looked up.

    Raises :class:`Unavailable` if the name stands for none.
    """
    name, _, port = target.removeprefix(_DNS).rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        message = "the address of the detection service stands for no server now; try again"
        raise Unavailable(message, reason=Reason.SERVICE_UNAVAILABLE, metadata={"service": _SERVICE}) from error
    hosts = {(family, address[0]) for family, _, _, _, address in found}
    return sorted(f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}" for family, host in hosts)
