"""What a backend does with Kith, call by call: the stubs, pages read to the end, a job watched with a progress bar."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kith.clustering.v1 import centroids_pb2_grpc, clusters_pb2_grpc
from kith.detection.v1 import (
    assets_pb2_grpc,
    detection_pb2_grpc,
    doctor_pb2_grpc,
    faces_pb2,
    faces_pb2_grpc,
    sessions_pb2_grpc,
)
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import assignments_pb2_grpc, persons_pb2_grpc
from kith.suggestions.v1 import discovery_pb2_grpc, suggestions_pb2_grpc
from shared.config import RpcSettings
from shared.rpc.channel import open_channel

PAGE = 500
AT_ONCE = 8


class JobFailed(RuntimeError):
    """A job ended otherwise than well."""


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face as ListFaces tells it. ``box``: x, y, width, height in pixels of the upright photo."""

    face_id: str
    asset_id: str
    box: tuple[float, float, float, float]
    quality: float
    person_id: str
    cluster_id: str


class Kith:
    """Clients of all four servers."""

    def __init__(self, channels: Mapping[str, Any], console: Console) -> None:
        self._console = console
        self.assets = assets_pb2_grpc.AssetServiceStub(channels["detection"])
        self.faces = faces_pb2_grpc.FaceServiceStub(channels["detection"])
        self.sessions = sessions_pb2_grpc.DetectionSessionServiceStub(channels["detection"])
        self.detection = detection_pb2_grpc.DetectionServiceStub(channels["detection"])
        self.doctor = doctor_pb2_grpc.DoctorServiceStub(channels["detection"])
        self.clusters = clusters_pb2_grpc.ClusterServiceStub(channels["clustering"])
        self.centroids = centroids_pb2_grpc.CentroidServiceStub(channels["clustering"])
        self.persons = persons_pb2_grpc.PersonServiceStub(channels["persons"])
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channels["persons"])
        self.suggestions = suggestions_pb2_grpc.SuggestionServiceStub(channels["suggestions"])
        self.discovery = discovery_pb2_grpc.DiscoveryServiceStub(channels["suggestions"])
        self.jobs = jobs_pb2_grpc.JobServiceStub(channels["detection"])

    async def watch(self, job: jobs_pb2.Job, title: str) -> jobs_pb2.Job:
        """Follow a job to its end, with a progress bar. Raises :class:`JobFailed`."""
        columns = (
            TextColumn("  {task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase]:<10}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bars:
            bar = bars.add_task(title, total=None, phase="")
            async for message in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(library_id=job.library_id, job_id=job.id)):
                job = message.job
                bars.update(bar, completed=job.progress.done, total=job.progress.total or None, phase=job.phase)
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
            raise JobFailed(f"{job.kind} {state}: {job.error.reason} {job.error.message}")
        return job

    async def list_faces(self, **filters: Any) -> list[FoundFace]:
        """Every face that passes the filters."""
        found = await read_pages(
            lambda token: self.faces.ListFaces(faces_pb2.ListFacesRequest(page_size=PAGE, page_token=token, **filters)),
            lambda answer: answer.faces,
        )
        return [
            FoundFace(
                face.id,
                face.asset_id,
                (face.box.x, face.box.y, face.box.width, face.box.height),
                face.quality.overall,
                face.person_id,
                face.cluster_id,
            )
            for face in found
        ]

    async def fetch_crops(self, face_ids: Sequence[str], size: int) -> dict[str, bytes]:
        """Square JPEG crops by face id, a few at a time."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def fetch(face_id: str) -> bytes:
            async with limit:
                request = faces_pb2.GetFaceCropRequest(face_id=face_id, size=size, square=True)
                return (await self.faces.GetFaceCrop(request)).content

        crops = await asyncio.gather(*(fetch(face_id) for face_id in face_ids))
        return dict(zip(face_ids, crops, strict=True))


@asynccontextmanager
async def connect(addresses: Mapping[str, str], console: Console) -> AsyncIterator[Kith]:
    """Channels to the servers of a stack, closed at the end."""
    channels = {service: open_channel(address, RpcSettings()) for service, address in addresses.items()}
    try:
        yield Kith(channels, console)
    finally:
        for channel in channels.values():
            await channel.close()


async def read_pages(call: Callable[[str], Awaitable[Any]], items: Callable[[Any], Sequence[Any]]) -> list[Any]:
    """The items of every page of a list."""
    found: list[Any] = []
    token = ""
    while True:
        answer = await call(token)
        found.extend(items(answer))
        token = answer.next_page_token
        if not token:
            return found


def new_request_id() -> str:
    """A fresh ``request_id``: each mutation carries one, so that a retry doubles nothing."""
    return str(uuid.uuid4())
