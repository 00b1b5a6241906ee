"""People over gRPC: a client of the persons service."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import grpc.aio

from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from services.clustering.domain.ports import FacesAssigned
from shared.jobs.machine_assignments import RemoteMachineAssignments
from shared.jobs.model import ItemFailure
from shared.rpc.channel import translate_errors

SERVICE = "persons"


class RemotePeople(RemoteMachineAssignments):
    """:class:`~services.clustering.domain.ports.People` on a channel to the persons service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel)
        self._persons = persons_pb2_grpc.PersonServiceStub(channel)
        self._assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)

    async def create_person(self, library_id: str, name: str, request_id: UUID) -> UUID:
        request = persons_pb2.CreatePersonRequest(
            library_id=library_id, person=persons_pb2.Person(name=name), request_id=str(request_id)
        )
        async with translate_errors(SERVICE):
            answer = await self._persons.CreatePerson(request)
        return UUID(answer.person.id)

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> FacesAssigned:
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
            answer = await self._assignments.BatchAssignFaces(request)
        return FacesAssigned(
            [UUID(assignment.face_id) for assignment in answer.assignments],
            [ItemFailure(failure.id, failure.reason, failure.message) for failure in answer.failures],
            UUID(answer.job.id) if answer.HasField("job") else None,
        )
