"""The detector as a service: eight gRPC clients, and a session from registration to the last point in Qdrant."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.rate import Turn, make_turn
from deploy.local.stack import RunningStack
from kith.common.v1 import types_pb2
from kith.detection.v1 import (
    assets_pb2,
    assets_pb2_grpc,
    detection_pb2,
    detection_pb2_grpc,
    doctor_pb2,
    doctor_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from shared.config import RpcSettings
from shared.rpc.channel import open_channel

LIBRARY = "bench"
BATCH = 500
QUIET_POLL_S = 0.05


class GrpcClients:
    """Clients that send photos' bytes one after the other, embeddings included; each has a channel of its own."""

    def __init__(self, target: str, photos: Sequence[Path], clients: int) -> None:
        self._photos = [path.read_bytes() for path in photos]
        self._runner = asyncio.Runner()
        self._stubs = self._runner.run(_open_stubs(target, clients))
        self._at = 0

    def take_turn(self, seconds: float) -> Turn:
        return self._runner.run(self._ask(seconds))

    async def _ask(self, seconds: float) -> Turn:
        taken: list[float] = []
        begun = time.monotonic()

        async def ask(stub: Any) -> None:
            while (now := time.monotonic()) < begun + seconds:
                image = types_pb2.Image(content=self._photos[self._at % len(self._photos)])
                self._at += 1
                await stub.DetectFaces(detection_pb2.DetectFacesRequest(image=image, include_embeddings=True))
                taken.append(time.monotonic() - now)

        await asyncio.gather(*(ask(stub) for stub in self._stubs))
        return make_turn(taken, time.monotonic() - begun)


async def _open_stubs(target: str, clients: int) -> list[Any]:
    return [detection_pb2_grpc.DetectionServiceStub(open_channel(target, RpcSettings())) for _ in range(clients)]


def run_session(target: str, photos: Sequence[Path], count: int) -> Turn:
    """A session over ``count`` registrations of ``photos``, timed from its creation until the outbox is empty."""
    return asyncio.run(_run_session(target, photos, count))


async def _run_session(target: str, photos: Sequence[Path], count: int) -> Turn:
    run = uuid.uuid4().hex[:8]
    async with open_channel(target, RpcSettings()) as channel:
        await _register(channel, photos, count, run)
        begun = time.monotonic()
        answer = await sessions_pb2_grpc.DetectionSessionServiceStub(channel).CreateDetectionSession(
            sessions_pb2.CreateDetectionSessionRequest(
                library_id=LIBRARY,
                filter=sessions_pb2.AssetFilter(id_prefix=run),
                request_id=str(uuid.uuid4()),
            )
        )
        await _await_end(channel, answer.session.job.id, count)
        await _await_quiet(channel)
        # A session tells no time per photo; what it takes of the whole is their mean.
        seconds = time.monotonic() - begun
    return Turn(count / seconds, [seconds / count])


async def _register(channel: Any, photos: Sequence[Path], count: int, run: str) -> None:
    stub = assets_pb2_grpc.AssetServiceStub(channel)
    for start in range(0, count, BATCH):
        assets = [
            assets_pb2.NewAsset(id=f"{run}-{number:06d}", uri=photos[number % len(photos)].as_uri())
            for number in range(start, min(count, start + BATCH))
        ]
        await stub.RegisterAssets(
            assets_pb2.RegisterAssetsRequest(library_id=LIBRARY, assets=assets, request_id=str(uuid.uuid4()))
        )


async def _await_end(channel: Any, job_id: str, count: int) -> None:
    jobs = jobs_pb2_grpc.JobServiceStub(channel)
    async for event in jobs.WatchJob(jobs_pb2.WatchJobRequest(library_id=LIBRARY, job_id=job_id)):
        job = event.job
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED or job.progress.failed or job.progress.done != count:
        raise RuntimeError(f"the session ended {jobs_pb2.JobState.Name(job.state)}: {job.progress}")


async def _await_quiet(channel: Any) -> None:
    doctor = doctor_pb2_grpc.DoctorServiceStub(channel)
    while True:
        found = await doctor.CheckConsistency(doctor_pb2.CheckConsistencyRequest(library_id=LIBRARY))
        if found.consistent:
            return
        await asyncio.sleep(QUIET_POLL_S)


def read_stack_peak_mb(stack: RunningStack, process: str) -> float:
    """Peak resident MB of one process of the stack so far."""
    peaks: dict[str, float] = json.loads(stack.directory.peak_rss.read_text(encoding="utf-8"))
    return peaks[process]
