"""AssignmentService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc

from kith.persons.v1 import assignments_pb2 as pb
from kith.persons.v1 import assignments_pb2_grpc
from services.persons.convert import check_reason, from_source, to_assignment, to_exclusion
from services.persons.domain.assigning import (
    AssignFaces,
    DeleteExclusion,
    ExcludeFace,
    UnassignFace,
    assign_faces,
    delete_exclusion,
    exclude_face,
    unassign_face,
)
from services.persons.domain.batching import start_assigning
from services.persons.domain.doubles import AllowDoubles, allow_doubles
from services.persons.domain.model import PersonsDeps, Source
from services.persons.repository.assignments import check_face
from services.persons.repository.doubles import list_doubles
from services.persons.repository.exclusions import list_exclusions
from services.persons.repository.listing import read_survivor
from services.persons.servicers.person_photos import parse_photos
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_failure, to_job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH = 200_000
# More are assigned by a job.
MAX_AT_ONCE = 500


class AssignmentServicer(assignments_pb2_grpc.AssignmentServiceServicer):
    """Whose face a face is."""

    def __init__(self, database: Database, mutations: Mutations, deps: PersonsDeps) -> None:
        self._database = database
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
            reason=check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.AssignFaceResponse:
            made = await assign_faces(tx, self._deps, command, caller)
            return pb.AssignFaceResponse(
                assignment=to_assignment(made.assignments[0]), change_id=str(made.change_id or "")
            )

        return await self._mutations.run(request, pb.AssignFaceResponse, work, few_rows=True)

    async def UnassignFace(self, request: pb.UnassignFaceRequest, context: Context) -> pb.UnassignFaceResponse:
        command = UnassignFace(
            library_id=parse_library_id(request.library_id),
            face_id=parse_uuid(request.face_id, "face_id"),
            etag=request.etag,
            exclude=request.exclude,
            reason=check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.UnassignFaceResponse:
            made = await unassign_face(tx, self._deps, command, caller)
            return pb.UnassignFaceResponse(person_id=str(made.person_id), change_id=str(made.change_id))

        return await self._mutations.run(request, pb.UnassignFaceResponse, work)

    async def BatchAssignFaces(
        self, request: pb.BatchAssignFacesRequest, context: Context
    ) -> pb.BatchAssignFacesResponse:
        source = from_source(request.source)
        face_ids = _parse_faces(request.face_ids)
        command = AssignFaces(
            library_id=parse_library_id(request.library_id),
            face_ids=face_ids,
            person_id=parse_uuid(request.person_id, "person_id"),
            source=source,
            confidence=_confidence(source, request.confidence),
            confidences=_confidences(source, face_ids, request.confidences),
            partial=request.partial,
            reason=check_reason(request.reason),
        )

        if len(command.face_ids) > MAX_AT_ONCE and request.dry_run:
            raise InvalidRequest(f"dry_run takes up to {MAX_AT_ONCE} faces", field="dry_run")

        async def work(tx: Transaction, caller: Caller) -> pb.BatchAssignFacesResponse:
            if len(command.face_ids) > MAX_AT_ONCE:
                change_id, job = await start_assigning(tx, self._deps, command, caller)
                return pb.BatchAssignFacesResponse(change_id=str(change_id), job=to_job(job, self._deps.clock.now()))
            made = await assign_faces(tx, self._deps, command, caller)
            return pb.BatchAssignFacesResponse(
                assignments=[to_assignment(assignment) for assignment in made.assignments],
                failures=[to_failure(failure) for failure in made.failures],
                change_id="" if request.dry_run or made.change_id is None else str(made.change_id),
            )

        return await self._mutations.run(request, pb.BatchAssignFacesResponse, work, dry_run=request.dry_run)

    async def ExcludeFace(self, request: pb.ExcludeFaceRequest, context: Context) -> pb.ExcludeFaceResponse:
        command = ExcludeFace(
            library_id=parse_library_id(request.library_id),
            face_id=parse_uuid(request.face_id, "face_id"),
            person_id=parse_uuid(request.person_id, "person_id"),
            reason=check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.ExcludeFaceResponse:
            made = await exclude_face(tx, self._deps, command, caller)
            return pb.ExcludeFaceResponse(
                exclusion=to_exclusion(made.exclusion, command.library_id),
                change_id=str(made.change_id or ""),
            )

        return await self._mutations.run(request, pb.ExcludeFaceResponse, work)

    async def ListExclusions(self, request: pb.ListExclusionsRequest, context: Context) -> pb.ListExclusionsResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id") if request.person_id else None
        face_id = parse_uuid(request.face_id, "face_id") if request.face_id else None
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, person_id, face_id)
        )
        async with self._database.transaction() as tx:
            if face_id is not None:
                await check_face(tx, library_id, face_id)
            if person_id is not None:
                person_id = (await read_survivor(tx, library_id, person_id)).person_id
            found = await list_exclusions(tx, library_id, page, person_id, face_id)
        return pb.ListExclusionsResponse(
            exclusions=[to_exclusion(row, library_id) for row in found.items], next_page_token=found.next_token
        )

    async def DeleteExclusion(self, request: pb.DeleteExclusionRequest, context: Context) -> pb.DeleteExclusionResponse:
        command = DeleteExclusion(
            library_id=parse_library_id(request.library_id),
            exclusion_id=parse_uuid(request.exclusion_id, "exclusion_id"),
            reason=check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.DeleteExclusionResponse:
            change_id = await delete_exclusion(tx, self._deps, command, caller)
            return pb.DeleteExclusionResponse(change_id=str(change_id))

        return await self._mutations.run(request, pb.DeleteExclusionResponse, work)

    async def AllowDoubles(self, request: pb.AllowDoublesRequest, context: Context) -> pb.AllowDoublesResponse:
        asset_ids = parse_photos(request.asset_ids)
        if len(set(asset_ids)) != len(asset_ids):
            raise InvalidRequest("asset_ids must hold each photo once", field="asset_ids")
        command = AllowDoubles(
            library_id=parse_library_id(request.library_id),
            asset_ids=asset_ids,
            allowed=request.allowed,
            reason=check_reason(request.reason),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.AllowDoublesResponse:
            return pb.AllowDoublesResponse(change_id=str(await allow_doubles(tx, self._deps, command, caller) or ""))

        return await self._mutations.run(request, pb.AllowDoublesResponse, work)

    async def ListAllowedDoubles(
        self, request: pb.ListAllowedDoublesRequest, context: Context
    ) -> pb.ListAllowedDoublesResponse:
        library_id = parse_library_id(request.library_id)
        page = read_page_request(request.page_size, request.page_token, default=100, maximum=1000, filters=library_id)
        async with self._database.transaction() as tx:
            found = await list_doubles(tx, library_id, page)
        return pb.ListAllowedDoublesResponse(asset_ids=found.items, next_page_token=found.next_token)


def _parse_faces(face_ids: Sequence[str]) -> list[UUID]:
    if not 1 <= len(face_ids) <= MAX_BATCH:
        raise InvalidRequest(f"face_ids must hold 1..{MAX_BATCH} ids", field="face_ids")
    parsed = [parse_uuid(face_id, f"face_ids[{index}]") for index, face_id in enumerate(face_ids)]
    if len(set(parsed)) != len(parsed):
        raise InvalidRequest("face_ids must hold each face once", field="face_ids")
    return parsed


def _confidence(source: Source, confidence: float) -> float:
    if source is Source.HUMAN:
        return 1.0
    if not 0.0 <= confidence <= 1.0:
        raise InvalidRequest("confidence must be 0..1", field="confidence")
    return confidence


def _confidences(source: Source, face_ids: Sequence[UUID], confidences: Sequence[float]) -> dict[UUID, float]:
    if not confidences:
        return {}
    if len(confidences) != len(face_ids) or len(face_ids) > MAX_AT_ONCE:
        raise InvalidRequest(
            f"confidences must hold one for each face, of up to {MAX_AT_ONCE} faces", field="confidences"
        )
    if not all(0.0 <= confidence <= 1.0 for confidence in confidences):
        raise InvalidRequest("confidences must be 0..1", field="confidences")
    return {} if source is Source.HUMAN else dict(zip(face_ids, confidences, strict=True))
