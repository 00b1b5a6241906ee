"""A machine's assignments over gRPC: a client of the persons service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import grpc.aio

from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc
from shared.rpc.channel import translate_errors

_SERVICE: Final = "persons"


class RemoteMachineAssignments:
    """:class:`~shared.jobs.handing_over.MachineAssignments` on a channel to the persons service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = assignments_pb2_grpc.AssignmentServiceStub(channel)

    async def assign_recognised(
        self, library_id: str, confidences: Mapping[UUID, float], person_id: UUID, reason: str, request_id: UUID
    ) -> list[UUID]:
        request = assignments_pb2.BatchAssignFacesRequest(
            library_id=library_id,
            face_ids=[str(face_id) for face_id in confidences],
            person_id=str(person_id),
            source=assignments_pb2.ASSIGNMENT_SOURCE_MACHINE,
            # For a server of the version before, which knows one for all.
            confidence=min(confidences.values()),
            confidences=confidences.values(),
            partial=True,
            reason=reason,
            request_id=str(request_id),
        )
        async with translate_errors(_SERVICE):
            answer = await self._stub.BatchAssignFaces(request)
        return [UUID(assignment.face_id) for assignment in answer.assignments]
