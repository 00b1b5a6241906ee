"""The detector as a service: eight gRPC clients, and a session from registration to the last point in Qdrant."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.areas.detection.rate import Rate
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


def ask_grpc(target: str, photos: Sequence[Path], clients: int, seconds: float) -> Rate:
    """``clients`` that send photos' bytes one after the other, embeddings included; each has a channel of its own."""
    return asyncio.run(_ask(target, [path.read_bytes() for path in photos], clients, seconds))


async def _ask(target: str, photos: Sequence[bytes], clients: int, seconds: float) -> Rate:
    taken: list[float] = []

    async def client(number: int, until: float) -> None:
        async with open_channel(target, RpcSettings()) as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            at = number * len(photos) // clients
            while (now := time.monotonic()) < until:
                image = types_pb2.Image(content=photos[at % len(photos)])
                await stub.DetectFaces(detection_pb2.DetectFacesRequest(image=image, include_embeddings=True))
                taken.append(time.monotonic() - now)
                at += 1

    begun = time.monotonic()
    for warming in (True, False):
        taken.clear()
        begun = time.monotonic()
        until = begun + (1.0 if warming else seconds)
        await asyncio.gather(*(client(number, until) for number in range(clients)))
    return Rate.of(taken, time.monotonic() - begun)


def run_session(target: str, photos: Sequence[Path], count: int) -> Rate:
    """A session over ``count`` registrations of ``photos``, timed from its creation until the outbox is empty.

    Percentiles are of nothing here: a session has no time per photo, and answers its mean.
    """
    return asyncio.run(_run_session(target, photos, count))


async def _run_session(target: str, photos: Sequence[Path], count: int) -> Rate:
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
        seconds = time.monotonic() - begun
    mean_ms = 1000 * seconds / count
    return Rate(count, seconds, mean_ms, mean_ms)


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


def read_peak_mb(stack: RunningStack, process: str) -> float:
    """Peak resident MB of one process of the stack so far."""
    peaks: dict[str, float] = json.loads(stack.directory.peak_rss.read_text(encoding="utf-8"))
    return peaks[process]
