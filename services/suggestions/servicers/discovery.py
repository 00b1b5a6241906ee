"""DiscoveryService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message

from kith.suggestions.v1 import discovery_pb2 as pb
from kith.suggestions.v1 import discovery_pb2_grpc
from services.suggestions.convert import from_method, read_confidence
from services.suggestions.convert_calibration import to_calibration
from services.suggestions.domain.assigning import AssignKnown, start_assign_known
from services.suggestions.domain.auto_finding import (
    DiscoverySettings,
    get_discovery_settings,
    update_discovery_settings,
)
from services.suggestions.domain.calibrating import report_calibration
from services.suggestions.domain.completeness import estimate_completeness
from services.suggestions.domain.discovering import FindMore, start_find_more
from services.suggestions.domain.expiring import start_expire, start_purge
from services.suggestions.domain.model import SuggestionMethod, SuggestionsDeps
from services.suggestions.domain.ports import FaceCensus
from services.suggestions.domain.propagating import PropagateLabel, start_propagate
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_job
from shared.jobs.model import Job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]
Command = TypeVar("Command")
Started = TypeVar(
    "Started",
    pb.FindMoreSuggestionsResponse,
    pb.PropagateLabelResponse,
    pb.AssignKnownFacesResponse,
    pb.ExpireSuggestionsResponse,
    pb.PurgeOrphanedSuggestionsResponse,
)

MAX_PERSONS = 500
MAX_PER_PERSON = 5000
MAX_FACES = 100
# What one search by centroid can find.
MAX_BY_CENTROID = 500
# Less sure than this a machine's word is not worth taking back.
LEAST_TARGET = 0.9
MAX_AUTO_FIND_MORE_AFTER = 1000


class DiscoveryServicer(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Finds faces to ask about."""

    def __init__(self, database: Database, mutations: Mutations, deps: SuggestionsDeps, faces: FaceCensus) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._faces = faces

    async def FindMoreSuggestions(
        self, request: pb.FindMoreSuggestionsRequest, context: Context
    ) -> pb.FindMoreSuggestionsResponse:
        settings = self._deps.settings
        if not 0 <= request.max_per_person <= MAX_PER_PERSON:
            raise InvalidRequest(f"max_per_person must be 0..{MAX_PER_PERSON}", field="max_per_person")
        method = from_method(request.method)
        if method is SuggestionMethod.CENTROID and request.max_per_person > MAX_BY_CENTROID:
            raise InvalidRequest(f"max_per_person must be 0..{MAX_BY_CENTROID} by CENTROID", field="max_per_person")
        given = request.HasField("min_confidence")
        command = FindMore(
            library_id=parse_library_id(request.library_id),
            person_ids=_read_persons(request.person_ids),
            method=method,
            max_per_person=request.max_per_person or settings.max_per_person,
            min_confidence=read_confidence(request.min_confidence) if given else settings.min_confidence,
        )

        return await self._start(request, pb.FindMoreSuggestionsResponse, start_find_more, command)

    async def AssignKnownFaces(
        self, request: pb.AssignKnownFacesRequest, context: Context
    ) -> pb.AssignKnownFacesResponse:
        target = self._deps.settings.assign_precision
        if request.HasField("target_precision"):
            # A float of the wire is a little off: 0.9 comes as 0.899999976.
            target = round(request.target_precision, 6)
            if not LEAST_TARGET <= target < 1:
                raise InvalidRequest(
                    f"target_precision must be at least {LEAST_TARGET} and below 1", field="target_precision"
                )
        command = AssignKnown(
            library_id=parse_library_id(request.library_id),
            person_ids=_read_persons(request.person_ids),
            target_precision=target,
            dry_run=request.dry_run,
        )

        return await self._start(request, pb.AssignKnownFacesResponse, start_assign_known, command)

    async def PropagateLabel(self, request: pb.PropagateLabelRequest, context: Context) -> pb.PropagateLabelResponse:
        if not 1 <= len(request.face_ids) <= MAX_FACES:
            raise InvalidRequest(f"face_ids must have 1..{MAX_FACES} entries", field="face_ids")
        face_ids = [parse_uuid(face_id, f"face_ids[{at}]") for at, face_id in enumerate(request.face_ids)]
        command = PropagateLabel(
            library_id=parse_library_id(request.library_id),
            person_id=parse_uuid(request.person_id, "person_id"),
            face_ids=list(dict.fromkeys(face_ids)),
        )

        return await self._start(request, pb.PropagateLabelResponse, start_propagate, command)

    async def ExpireSuggestions(
        self, request: pb.ExpireSuggestionsRequest, context: Context
    ) -> pb.ExpireSuggestionsResponse:
        library_id = parse_library_id(request.library_id)

        return await self._start(request, pb.ExpireSuggestionsResponse, start_expire, library_id)

    async def PurgeOrphanedSuggestions(
        self, request: pb.PurgeOrphanedSuggestionsRequest, context: Context
    ) -> pb.PurgeOrphanedSuggestionsResponse:
        library_id = parse_library_id(request.library_id)

        return await self._start(request, pb.PurgeOrphanedSuggestionsResponse, start_purge, library_id)

    async def EstimateCompleteness(
        self, request: pb.EstimateCompletenessRequest, context: Context
    ) -> pb.EstimateCompletenessResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        found = await estimate_completeness(self._database, self._deps, self._faces, library_id, person_id)
        return pb.EstimateCompletenessResponse(
            assigned=found.assigned,
            missing=found.estimate.missing,
            missing_low=found.estimate.low,
            missing_high=found.estimate.high,
            candidates=found.candidates,
            extrapolated=found.estimate.extrapolated,
        )

    async def GetDiscoverySettings(
        self, request: pb.GetDiscoverySettingsRequest, context: Context
    ) -> pb.GetDiscoverySettingsResponse:
        async with self._database.transaction() as tx:
            found = await get_discovery_settings(tx, self._deps, parse_library_id(request.library_id))
        return pb.GetDiscoverySettingsResponse(settings=_to_settings(found))

    async def UpdateDiscoverySettings(
        self, request: pb.UpdateDiscoverySettingsRequest, context: Context
    ) -> pb.UpdateDiscoverySettingsResponse:
        library_id = parse_library_id(request.library_id)
        accepts = request.auto_find_more_after if request.HasField("auto_find_more_after") else None
        if accepts is not None and not 0 <= accepts <= MAX_AUTO_FIND_MORE_AFTER:
            raise InvalidRequest(
                f"auto_find_more_after must be 0..{MAX_AUTO_FIND_MORE_AFTER}", field="auto_find_more_after"
            )

        async def work(tx: Transaction, caller: Caller) -> pb.UpdateDiscoverySettingsResponse:
            changed = await update_discovery_settings(tx, self._deps, library_id, accepts, caller)
            return pb.UpdateDiscoverySettingsResponse(settings=_to_settings(changed))

        return await self._mutations.run(request, pb.UpdateDiscoverySettingsResponse, work)

    async def GetCalibration(self, request: pb.GetCalibrationRequest, context: Context) -> pb.GetCalibrationResponse:
        report = await report_calibration(self._database, parse_library_id(request.library_id))
        return pb.GetCalibrationResponse() if report is None else to_calibration(report)

    async def _start(
        self,
        request: Message,
        answer_type: type[Started],
        start: Callable[[Transaction, SuggestionsDeps, Command, Caller], Awaitable[Job]],
        command: Command,
    ) -> Started:
        """Start a job once, and answer with it."""

        async def work(tx: Transaction, caller: Caller) -> Started:
            job = await start(tx, self._deps, command, caller)
            return answer_type(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run(request, answer_type, work)


def _to_settings(settings: DiscoverySettings) -> pb.DiscoverySettings:
    return pb.DiscoverySettings(auto_find_more_after=settings.auto_find_more_after, is_default=settings.is_default)


def _read_persons(given: Sequence[str]) -> list[UUID]:
    if len(given) > MAX_PERSONS:
        raise InvalidRequest(f"person_ids must have at most {MAX_PERSONS} entries", field="person_ids")
    return list(dict.fromkeys(parse_uuid(person_id, f"person_ids[{at}]") for at, person_id in enumerate(given)))
