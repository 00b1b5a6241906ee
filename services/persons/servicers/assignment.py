"""AssignmentService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.persons.v1 import assignments_pb2 as pb
from kith.persons.v1 import assignments_pb2_grpc
from services.persons.convert import from_source, to_assignment, to_failure
from services.persons.domain.assigning import (
    AssignFaces,
    ExcludeFace,
    UnassignFace,
    assign_faces,
    exclude_face,
    unassign_face,
)
from services.persons.domain.model import PersonsDeps, Source
from services.persons.repository.exclusions import get_exclusion
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import InvalidRequest, NotImplementedYet
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_timestamp
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH = 500
MAX_REASON = 500


class AssignmentServicer(assignments_pb2_grpc.AssignmentServiceServicer):
    """Whose face a face is."""

    def __init__(self, mutations: Mutations, deps: PersonsDeps) -> None:
        self._mutations = mutations
        self._deps = deps

    async def AssignFace(self, request: pb.AssignFaceRequest, context: Context) -> pb.AssignFaceResponse:
        source = from_source(request.source)
        command = AssignFaces(
            library_id=parse_library_id(request.library_id),
            face_ids=[parse_uuid(request.face_id, "face_id")],
            person_id=parse_uuid(request.person_id, "person_id"),
            source=source,
            confidence=_confidence(source, request.confidence),
            etag=request.etag,
            reason=_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.AssignFaceResponse:
            made = await assign_faces(tx, self._deps, command, caller)
            return pb.AssignFaceResponse(
                assignment=to_assignment(made.assignments[0]), change_id=str(made.change_id or "")
            )

        return await self._mutations.run(request, pb.AssignFaceResponse, work)

    async def UnassignFace(self, request: pb.UnassignFaceRequest, context: Context) -> pb.UnassignFaceResponse:
        command = UnassignFace(
            library_id=parse_library_id(request.library_id),
            face_id=parse_uuid(request.face_id, "face_id"),
            etag=request.etag,
            exclude=request.exclude,
            reason=_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.UnassignFaceResponse:
            made = await unassign_face(tx, self._deps, command, caller)
            return pb.UnassignFaceResponse(person_id=str(made.person_id), change_id=str(made.change_id))

        return await self._mutations.run(request, pb.UnassignFaceResponse, work)

    async def BatchAssignFaces(
        self, request: pb.BatchAssignFacesRequest, context: Context
    ) -> pb.BatchAssignFacesResponse:
        if len(request.face_ids) > MAX_BATCH:
            raise NotImplementedYet(f"BatchAssignFaces of more than {MAX_BATCH} faces is not built yet")
        face_ids = [parse_uuid(face_id, f"face_ids[{index}]") for index, face_id in enumerate(request.face_ids)]
        if not face_ids:
            raise InvalidRequest("face_ids must not be empty", field="face_ids")
        if len(set(face_ids)) != len(face_ids):
            raise InvalidRequest("face_ids must hold each face once", field="face_ids")
        source = from_source(request.source)
        command = AssignFaces(
            library_id=parse_library_id(request.library_id),
            face_ids=face_ids,
            person_id=parse_uuid(request.person_id, "person_id"),
            source=source,
            confidence=_confidence(source, request.confidence),
            partial=request.partial,
            reason=_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.BatchAssignFacesResponse:
            made = await assign_faces(tx, self._deps, command, caller)
            return pb.BatchAssignFacesResponse(
                assignments=[to_assignment(assignment) for assignment in made.assignments],
                failures=[to_failure(failure) for failure in made.failures],
                change_id=str(made.change_id or ""),
            )

        return await self._mutations.run(request, pb.BatchAssignFacesResponse, work)

    async def ExcludeFace(self, request: pb.ExcludeFaceRequest, context: Context) -> pb.ExcludeFaceResponse:
        command = ExcludeFace(
            library_id=parse_library_id(request.library_id),
            face_id=parse_uuid(request.face_id, "face_id"),
            person_id=parse_uuid(request.person_id, "person_id"),
            reason=_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.ExcludeFaceResponse:
            made = await exclude_face(tx, self._deps, command, caller)
            row = await get_exclusion(tx, command.library_id, made.exclusion_id)
            return pb.ExcludeFaceResponse(
                exclusion=pb.Exclusion(
                    id=str(row.exclusion_id),
                    library_id=row.library_id,
                    face_id=str(row.face_id),
                    person_id=str(row.person_id),
                    created_by=row.created_by,
                    create_time=to_timestamp(row.created_at),
                ),
                change_id=str(made.change_id or ""),
            )

        return await self._mutations.run(request, pb.ExcludeFaceResponse, work)


def _confidence(source: Source, confidence: float) -> float:
    if source is Source.HUMAN:
        return 1.0
    if not 0.0 <= confidence <= 1.0:
        raise InvalidRequest("confidence must be 0..1", field="confidence")
    return confidence


def _reason(reason: str) -> str:
    if len(reason) > MAX_REASON:
        raise InvalidRequest(f"reason must have at most {MAX_REASON} characters", field="reason")
    return reason
