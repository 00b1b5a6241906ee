"""Searches by centroid over gRPC: a client of the clustering service."""

from __future__ import annotations

from uuid import UUID

import grpc.aio

from kith.clustering.v1 import centroids_pb2, centroids_pb2_grpc
from shared.errors import PreconditionFailed, Reason
from shared.rpc.channel import translate_errors

SERVICE = "clustering"
MAX_LIMIT = 500


class RemoteCentroidSearch:
    """:class:`~services.suggestions.domain.ports.CentroidSearch` on a channel to the clustering service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = centroids_pb2_grpc.CentroidServiceStub(channel)

    async def find_unassigned(self, library_id: str, person_id: UUID, limit: int, min_cosine: float) -> set[UUID]:
        request = centroids_pb2.SearchByCentroidRequest(
            library_id=library_id, person_id=str(person_id), limit=min(limit, MAX_LIMIT), min_cosine=min_cosine
        )
        try:
            async with translate_errors(SERVICE):
                answer = await self._stub.SearchByCentroid(request)
        except PreconditionFailed as error:
            if error.reason is Reason.FACE_NOT_ASSIGNED:
                return set()
            raise
        return {UUID(match.face_id) for match in answer.matches}
