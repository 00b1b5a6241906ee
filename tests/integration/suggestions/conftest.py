"""The suggestions server and worker with the persons server they need, over real sockets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.suggestions.v1 import discovery_pb2, discovery_pb2_grpc, suggestions_pb2, suggestions_pb2_grpc
from services.persons.server import start as start_persons
from services.suggestions.adapters.persons import RemoteAssignments
from services.suggestions.server import start as start_suggestions
from services.suggestions.worker import start as start_worker
from shared.foundation import Foundation
from shared.rpc.channel import open_channel, translate_errors
from tests.integration.conftest import Running
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import People, Person, draw_people, seed_library, wait_indexed

WAIT = Duration()
WAIT.FromTimedelta(timedelta(seconds=50))


class Questions:
    """The suggestions service, as a test uses it."""

    def __init__(self, base: Foundation, channel: Any) -> None:
        self._base = base
        self.suggestions = suggestions_pb2_grpc.SuggestionServiceStub(channel)
        self.discovery = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)

    async def find_more(self, *persons: Person, **fields: Any) -> jobs_pb2.Job:
        """Look for more faces of these persons, or of all, and wait for the end of the job."""
        await wait_indexed(self._base)
        request = discovery_pb2.FindMoreSuggestionsRequest(
            person_ids=[str(person.person_id) for person in persons], request_id=str(uuid4()), **fields
        )
        async with translate_errors("suggestions"):
            job = (await self.discovery.FindMoreSuggestions(request)).job
            answer = await self.jobs.WaitJob(jobs_pb2.WaitJobRequest(job_id=job.id, timeout=WAIT), timeout=55)
        assert answer.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, answer.job
        return answer.job

    async def list(self, **fields: Any) -> list[suggestions_pb2.Suggestion]:
        """The first page of suggestions that pass a filter."""
        request = suggestions_pb2.ListSuggestionsRequest(**{"page_size": 500, **fields})
        return list((await self.suggestions.ListSuggestions(request)).suggestions)

    async def pairs(self, **fields: Any) -> set[tuple[UUID, UUID]]:
        """The (face, person) pairs of the suggestions that pass a filter."""
        return {(UUID(each.face_id), UUID(each.person_id)) for each in await self.list(**fields)}

    async def get(self, suggestion_id: str) -> suggestions_pb2.Suggestion:
        """One suggestion."""
        request = suggestions_pb2.GetSuggestionRequest(suggestion_id=suggestion_id)
        async with translate_errors("suggestions"):
            return (await self.suggestions.GetSuggestion(request)).suggestion

    async def accept(self, suggestion_id: str, **fields: Any) -> suggestions_pb2.AcceptSuggestionResponse:
        """Yes."""
        request = suggestions_pb2.AcceptSuggestionRequest(suggestion_id=suggestion_id, **fields)
        async with translate_errors("suggestions"):
            return await self.suggestions.AcceptSuggestion(request)

    async def reject(self, suggestion_id: str, **fields: Any) -> suggestions_pb2.RejectSuggestionResponse:
        """No."""
        request = suggestions_pb2.RejectSuggestionRequest(suggestion_id=suggestion_id, **fields)
        async with translate_errors("suggestions"):
            return await self.suggestions.RejectSuggestion(request)


@dataclass(frozen=True, slots=True)
class Scene:
    """Two persons, and faces that may be either."""

    faces: SeededFaces
    anna: Person
    bert: Person


@pytest.fixture
async def people(running: Running) -> People:
    """A persons server."""
    return People(await running.server("persons", start_persons))


@pytest.fixture
async def questions(running: Running, people: People, base: Foundation) -> Questions:
    """A suggestions server and worker."""
    return await start_questions(running, base)


@pytest.fixture
async def scene(base: Foundation, people: People) -> Scene:
    """Anna, Bert and a dozen faces nobody has been asked about."""
    faces = await seed_library(base, draw_people(1, 12))
    return Scene(faces, await people.create("Anna"), await people.create("Bert"))


@pytest.fixture
def remote(running: Running, people: People, stack: AsyncExitStack) -> RemoteAssignments:
    """The persons service as the suggestions server calls it, to do half an answer with."""
    settings = running.settings
    channel = open_channel(settings.services.persons, settings.rpc, settings.auth)
    stack.push_async_callback(channel.close)
    return RemoteAssignments(channel)


async def start_questions(running: Running, base: Foundation) -> Questions:
    """Start a suggestions server and worker, beside the servers that run already."""
    channel = await running.server("suggestions", start_suggestions)
    await running.worker(start_worker)
    return Questions(base, channel)


def summarise(found: Sequence[suggestions_pb2.Suggestion]) -> dict[UUID, UUID]:
    """Whom each face may be, by face."""
    return {UUID(each.face_id): UUID(each.person_id) for each in found}
