"""Groupings over gRPC: a client of the clustering service."""

from __future__ import annotations

from uuid import UUID

import grpc.aio

from kith.clustering.v1 import clusters_pb2, clusters_pb2_grpc
from shared.rpc.channel import translate_errors

SERVICE = "clustering"


class RemoteGrouping:
    """:class:`~services.persons.domain.ports.Grouping` on a channel to the clustering service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = clusters_pb2_grpc.ClusterServiceStub(channel)

    async def start(self, library_id: str, request_id: UUID) -> UUID:
        request = clusters_pb2.ClusterFacesRequest(library_id=library_id, request_id=str(request_id))
        async with translate_errors(SERVICE):
            answer = await self._stub.ClusterFaces(request)
        return UUID(answer.job.id)
