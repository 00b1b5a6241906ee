"""DoctorService."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from kith.detection.v1 import doctor_pb2 as pb
from kith.detection.v1 import doctor_pb2_grpc
from services.detection.convert.doctor import from_depth, to_report
from services.detection.domain.mending import REBUILD_VECTORS, RECONCILE, StartMending, choose_parts, start_mending
from services.detection.domain.model import DetectionDeps
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.outbox import count_waiting
from shared.ids import parse_library_id
from shared.jobs.convert import to_job, to_timestamp
from shared.rpc.ambient import time_left
from shared.rpc.mutation import Mutations
from shared.vectors.collections import Collections
from shared.vectors.reconcile import Comparison, Depth, IndexPart

Context = grpc.aio.ServicerContext[Any, Any]

_SEEDS = 1 << 63
# A check keeps a connection while Qdrant answers, up to its deadline; more of them would leave none for other calls.
MAX_CHECKS = 2


class DoctorServicer(doctor_pb2_grpc.DoctorServiceServicer):
    """Whether PostgreSQL and Qdrant agree, and what is done when they do not."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        deps: DetectionDeps,
        collections: Collections,
        comparison: Comparison,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps
        self._collections = collections
        self._comparison = comparison
        self._checks = asyncio.Semaphore(MAX_CHECKS)

    async def CheckConsistency(
        self, request: pb.CheckConsistencyRequest, context: Context
    ) -> pb.CheckConsistencyResponse:
        library_id = parse_library_id(request.library_id)
        depth = Depth(from_depth(request), self._deps.ids.new_uuid().int % _SEEDS, time_left)
        # One moment of PostgreSQL for every collection and the queue: what a relay writes meanwhile was still waiting then.
        async with self._checks, self._database.snapshot() as tx:
            waiting, oldest = await count_waiting(tx, library_id)
            parts = await choose_parts(tx, self._collections.named, library_id, request.collection)
            reports = [await self._comparison.compare(tx, part, depth) for part in parts]
        return pb.CheckConsistencyResponse(
            consistent=waiting == 0 and all(report.consistent for report in reports),
            collections=[to_report(report) for report in reports],
            outbox_waiting=waiting,
            outbox_oldest=to_timestamp(oldest),
            check_time=to_timestamp(self._deps.clock.now()),
        )

    async def Reconcile(self, request: pb.ReconcileRequest, context: Context) -> pb.ReconcileResponse:
        async def work(tx: Transaction, caller: Caller, parts: dict[IndexPart, int]) -> pb.ReconcileResponse:
            job = await start_mending(tx, self._deps, _command(RECONCILE, request), parts, caller)
            return pb.ReconcileResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run_after(
            request, pb.ReconcileResponse, lambda _: self._check_parts(request), work
        )

    async def RebuildVectors(self, request: pb.RebuildVectorsRequest, context: Context) -> pb.RebuildVectorsResponse:
        async def work(tx: Transaction, caller: Caller, parts: dict[IndexPart, int]) -> pb.RebuildVectorsResponse:
            job = await start_mending(tx, self._deps, _command(REBUILD_VECTORS, request), parts, caller)
            return pb.RebuildVectorsResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run_after(
            request, pb.RebuildVectorsResponse, lambda _: self._check_parts(request), work
        )

    async def _check_parts(self, request: pb.ReconcileRequest | pb.RebuildVectorsRequest) -> dict[IndexPart, int]:
        """What is to be mended; raises MODEL_MISMATCH unless Qdrant has collections to mend it in."""
        library_id = parse_library_id(request.library_id)
        async with self._database.transaction() as tx:
            parts = await choose_parts(tx, self._collections.named, library_id, request.collection)
        for version, dimension in {part.model_version: dimension for part, dimension in parts.items()}.items():
            await self._collections.check(version, dimension)
        return parts


def _command(kind: str, request: pb.ReconcileRequest | pb.RebuildVectorsRequest) -> StartMending:
    return StartMending(kind, parse_library_id(request.library_id), request.collection)
