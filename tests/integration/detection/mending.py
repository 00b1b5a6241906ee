"""Drift to mend: faces in both stores, points that are lost or changed behind the relay's back, and the doctor's jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import numpy as np
from google.protobuf import json_format
from qdrant_client import models as qdrant

from kith.detection.v1 import doctor_pb2 as pb
from kith.jobs.v1 import jobs_pb2
from shared.foundation import Foundation
from shared.vectors.faces import FaceFilter, FaceHit, FaceIndex
from shared.vectors.relay import Relay
from tests.integration.detection.client import DetectionClient
from tests.integration.library import MODEL

COUNT = 30


async def wait_job(client: DetectionClient, job: jobs_pb2.Job) -> jobs_pb2.Job:
    """A job once it has ended."""
    request = jobs_pb2.WaitJobRequest(library_id=job.library_id, job_id=job.id)
    request.timeout.FromSeconds(50)
    answer = await client.jobs.WaitJob(request, timeout=55)
    assert answer.ended, answer.job
    return answer.job


async def reconcile(client: DetectionClient, collection: str = "", library_id: str = "") -> jobs_pb2.Job:
    request = pb.ReconcileRequest(library_id=library_id, request_id=str(uuid4()), collection=collection)
    return (await client.doctor.Reconcile(request)).job


async def rebuild(client: DetectionClient, collection: str = "", library_id: str = "") -> jobs_pb2.Job:
    request = pb.RebuildVectorsRequest(library_id=library_id, request_id=str(uuid4()), collection=collection)
    return (await client.doctor.RebuildVectors(request)).job


def result_of(job: jobs_pb2.Job) -> dict[str, int]:
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    return {name: int(value) for name, value in json_format.MessageToDict(job.result).items()}


def make_relay(base: Foundation) -> Relay:
    """A relay of the test's own; it has no loop."""
    return Relay(
        base.database, base.qdrant, base.collections, base.listener, base.clock, base.settings.relay, base.metrics
    )


async def relay_all(base: Foundation) -> None:
    """Bring Qdrant everything that waits."""
    while await make_relay(base).relay_batch():
        pass


async def drop_points(base: Foundation, face_ids: Sequence[UUID]) -> None:
    """Take points out of Qdrant behind the relay's back."""
    await base.qdrant.delete(base.collections.faces(MODEL), [str(face_id) for face_id in face_ids], wait=True)


async def lose_everything(base: Foundation) -> None:
    """What a new, empty Qdrant with prepared collections is like."""
    everything = qdrant.FilterSelector(filter=qdrant.Filter())
    await base.qdrant.delete(base.collections.faces(MODEL), everything, wait=True)
    assert (await base.qdrant.count(base.collections.faces(MODEL), exact=True)).count == 0


async def read_versions(base: Foundation, face_ids: Sequence[UUID]) -> list[int]:
    """With which version each point was written last."""
    records = await base.qdrant.retrieve(
        base.collections.faces(MODEL), [str(face_id) for face_id in face_ids], with_payload=["row_version"]
    )
    found = {str(record.id): (record.payload or {})["row_version"] for record in records}
    return [found[str(face_id)] for face_id in face_ids]


async def search(base: Foundation, vectors: np.ndarray, library_id: str = "default") -> list[list[FaceHit]]:
    """The three faces next to each vector."""
    index = FaceIndex(base.qdrant, base.collections)
    return await index.search(MODEL, vectors, FaceFilter(library_id), limit=3, min_cosine=-1)


@asynccontextmanager
async def relaying(base: Foundation) -> AsyncIterator[None]:
    """A relay that runs while the block does."""
    task = asyncio.create_task(make_relay(base).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
