"""Assignments over gRPC: a client of the persons service."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import grpc.aio

from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc
from shared.jobs.model import ItemFailure
from shared.rpc.channel import translate_errors

SERVICE = "persons"


class RemoteAssignments:
    """:class:`~services.suggestions.domain.ports.Assignments` on a channel to the persons service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = assignments_pb2_grpc.AssignmentServiceStub(channel)

    async def assign_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        request = assignments_pb2.AssignFaceRequest(
            library_id=library_id,
            face_id=str(face_id),
            person_id=str(person_id),
            source=assignments_pb2.ASSIGNMENT_SOURCE_HUMAN,
            reason=reason,
            request_id=str(request_id),
        )
        async with translate_errors(SERVICE):
            answer = await self._stub.AssignFace(request)
        return answer.change_id

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> list[ItemFailure]:
        request = assignments_pb2.BatchAssignFacesRequest(
            library_id=library_id,
            face_ids=[str(face_id) for face_id in face_ids],
            person_id=str(person_id),
            source=assignments_pb2.ASSIGNMENT_SOURCE_HUMAN,
            partial=True,
            reason=reason,
            request_id=str(request_id),
        )
        async with translate_errors(SERVICE):
            answer = await self._stub.BatchAssignFaces(request)
        return [ItemFailure(failure.id, failure.reason, failure.message) for failure in answer.failures]

    async def exclude_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        request = assignments_pb2.ExcludeFaceRequest(
            library_id=library_id,
            face_id=str(face_id),
            person_id=str(person_id),
            reason=reason,
            request_id=str(request_id),
        )
        async with translate_errors(SERVICE):
            answer = await self._stub.ExcludeFace(request)
        return answer.change_id
