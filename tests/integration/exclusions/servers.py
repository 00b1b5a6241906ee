"""All four services of one library, over real sockets, as a history of exclusions uses them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from kith.clustering.v1 import clusters_pb2_grpc
from kith.detection.v1 import faces_pb2_grpc, models_pb2_grpc
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import assignments_pb2_grpc, changes_pb2_grpc, persons_pb2_grpc
from kith.suggestions.v1 import discovery_pb2_grpc, suggestions_pb2_grpc
from services.clustering.server import start as start_clustering
from services.clustering.worker import start as start_clustering_worker
from services.detection.prepare import prepare_collections
from services.detection.server import start as start_detection
from services.persons.server import start as start_persons
from services.persons.worker import start as start_persons_worker
from services.suggestions.server import start as start_suggestions
from services.suggestions.worker import start as start_suggestions_worker
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running

JOB_ENDS_S = 50

A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Channels:
    """One channel to each service."""

    detection: grpc.aio.Channel
    persons: grpc.aio.Channel
    clustering: grpc.aio.Channel
    suggestions: grpc.aio.Channel


class Servers:
    """The stubs; errors come as Kith's own."""

    def __init__(self, channels: Channels) -> None:
        self.faces = faces_pb2_grpc.FaceServiceStub(channels.detection)
        self.models = models_pb2_grpc.ModelServiceStub(channels.detection)
        self.people = persons_pb2_grpc.PersonServiceStub(channels.persons)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channels.persons)
        self.changes = changes_pb2_grpc.ChangeServiceStub(channels.persons)
        self.clusters = clusters_pb2_grpc.ClusterServiceStub(channels.clustering)
        self.suggestions = suggestions_pb2_grpc.SuggestionServiceStub(channels.suggestions)
        self.discovery = discovery_pb2_grpc.DiscoveryServiceStub(channels.suggestions)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channels.suggestions)

    async def ask(self, method: Callable[[Any], Awaitable[A]], request: Message) -> A:
        """The answer to one call."""
        async with translate_errors("kith"):
            return await method(request)

    async def finish(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """The job once it has ended, and well."""
        request = jobs_pb2.WaitJobRequest(library_id=job.library_id, job_id=job.id)
        request.timeout.FromSeconds(JOB_ENDS_S)
        async with translate_errors("kith"):
            ended = (await self.jobs.WaitJob(request, timeout=JOB_ENDS_S)).job
        assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended
        return ended


async def start_servers(running: Running) -> Servers:
    """Four servers and the workers of three: nothing is detected here."""
    await prepare_collections(running.settings)
    detection = await running.server("detection", start_detection)
    persons = await running.server("persons", start_persons)
    clustering = await running.server("clustering", start_clustering)
    suggestions = await running.server("suggestions", start_suggestions)
    for start in (start_persons_worker, start_clustering_worker, start_suggestions_worker):
        await running.worker(start)
    return Servers(Channels(detection, persons, clustering, suggestions))
