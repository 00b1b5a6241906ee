"""The services as a client calls them, and waiting until what was asked for is done."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import UUID

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from sqlalchemy import func, select

from deploy.local.ports import StackPorts, address
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from kith.suggestions.v1 import discovery_pb2, discovery_pb2_grpc, suggestions_pb2, suggestions_pb2_grpc
from services.suggestions.domain.calibrating import FRESH_ANSWERS, FRESH_SHARE
from shared.db.tables_clustering import centroids_to_compute
from shared.db.tables_shared import people_to_settle, vector_outbox
from shared.foundation import Foundation

READY_S: Final = 60.0
WAIT_S: Final = 50
POLL_S: Final = 0.25
ANSWERS_AT_ONCE: Final = 500


class Clients:
    """Persons and suggestions, of one library."""

    def __init__(self, library_id: str, persons: grpc.aio.Channel, suggestions: grpc.aio.Channel) -> None:
        self.library_id = library_id
        self._persons = persons_pb2_grpc.PersonServiceStub(persons)
        self._assignments = assignments_pb2_grpc.AssignmentServiceStub(persons)
        self._discovery = discovery_pb2_grpc.DiscoveryServiceStub(suggestions)
        self._suggestions = suggestions_pb2_grpc.SuggestionServiceStub(suggestions)
        self._jobs = jobs_pb2_grpc.JobServiceStub(suggestions)

    async def name_person(self, name: str, face_ids: Sequence[UUID]) -> UUID:
        """A new person, who is given these faces by a human."""
        created = await self._persons.CreatePerson(
            persons_pb2.CreatePersonRequest(
                library_id=self.library_id, person=persons_pb2.Person(name=name), request_id=str(uuid.uuid4())
            ),
            wait_for_ready=True,
            timeout=READY_S,
        )
        for start in range(0, len(face_ids), ANSWERS_AT_ONCE):
            await self._assignments.BatchAssignFaces(
                assignments_pb2.BatchAssignFacesRequest(
                    library_id=self.library_id,
                    person_id=created.person.id,
                    face_ids=[str(face_id) for face_id in face_ids[start : start + ANSWERS_AT_ONCE]],
                    request_id=str(uuid.uuid4()),
                ),
                timeout=READY_S,
            )
        return UUID(created.person.id)

    async def find_more(self, max_per_person: int | None, min_confidence: float | None) -> dict[str, Any]:
        """FindMoreSuggestions about everybody; answers the job's result. None is what the server takes by itself."""
        started = await self._discovery.FindMoreSuggestions(
            discovery_pb2.FindMoreSuggestionsRequest(
                library_id=self.library_id,
                max_per_person=max_per_person or 0,
                min_confidence=min_confidence,
                request_id=str(uuid.uuid4()),
            ),
            wait_for_ready=True,
            timeout=READY_S,
        )
        return await self._await_job(started.job)

    async def assign_known(self, target_precision: float) -> dict[str, Any]:
        """AssignKnownFaces of everybody; answers the job's result."""
        started = await self._discovery.AssignKnownFaces(
            discovery_pb2.AssignKnownFacesRequest(
                library_id=self.library_id, target_precision=target_precision, request_id=str(uuid.uuid4())
            ),
            wait_for_ready=True,
            timeout=READY_S,
        )
        return await self._await_job(started.job)

    async def answer(self, reviews: Sequence[suggestions_pb2.SuggestionReview]) -> None:
        """Answer questions. Raises ``RuntimeError`` if one answer is refused."""
        for start in range(0, len(reviews), ANSWERS_AT_ONCE):
            answered = await self._suggestions.BatchReviewSuggestions(
                suggestions_pb2.BatchReviewSuggestionsRequest(
                    library_id=self.library_id,
                    reviews=reviews[start : start + ANSWERS_AT_ONCE],
                    request_id=str(uuid.uuid4()),
                ),
                timeout=READY_S,
            )
            if answered.failures:
                raise RuntimeError(f"{len(answered.failures)} answers were refused: {answered.failures[0]}")

    async def await_calibration(self, answers: int) -> None:
        """Until the curve in force has learnt from so many answers, or all but too few to learn anew for."""
        request = discovery_pb2.GetCalibrationRequest(library_id=self.library_id)
        while True:
            learnt = (await self._discovery.GetCalibration(request, timeout=READY_S)).answers
            if answers - learnt < max(FRESH_ANSWERS, FRESH_SHARE * learnt):
                return
            await asyncio.sleep(POLL_S)

    async def estimate(self, person_id: UUID) -> discovery_pb2.EstimateCompletenessResponse:
        """EstimateCompleteness of one person."""
        return await self._discovery.EstimateCompleteness(
            discovery_pb2.EstimateCompletenessRequest(library_id=self.library_id, person_id=str(person_id)),
            wait_for_ready=True,
            timeout=READY_S,
        )

    async def _await_job(self, job: jobs_pb2.Job) -> dict[str, Any]:
        timeout = Duration(seconds=WAIT_S)
        while not job.HasField("end_time"):
            request = jobs_pb2.WaitJobRequest(library_id=self.library_id, job_id=job.id, timeout=timeout)
            job = (await self._jobs.WaitJob(request, timeout=READY_S)).job
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"the job ended as {jobs_pb2.JobState.Name(job.state)}: {job.error.message}")
        return MessageToDict(job.result)


async def open_clients(library_id: str, ports: StackPorts, stack: AsyncExitStack) -> Clients:
    """Clients whose channels close with ``stack``; each connects at its first call."""
    channels = [
        await stack.enter_async_context(grpc.aio.insecure_channel(address(ports.rpc(service))))
        for service in ("persons", "suggestions")
    ]
    return Clients(library_id, *channels)


async def await_quiet(base: Foundation) -> None:
    """Until everybody's prototypes and centroids are what their faces say, and Qdrant shows it."""
    waiting = [
        select(func.count()).select_from(table).scalar_subquery()
        for table in (people_to_settle, centroids_to_compute, vector_outbox)
    ]
    while True:
        async with base.database.transaction() as tx:
            if not await tx.scalar(select(waiting[0] + waiting[1] + waiting[2])):
                return
        await asyncio.sleep(POLL_S)
