"""DoctorService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.detection.v1 import doctor_pb2 as pb
from kith.detection.v1 import doctor_pb2_grpc
from services.detection.convert.doctor import from_depth, to_report
from services.detection.repository.models import list_versions
from shared.clock import Clock
from shared.db.engine import Database
from shared.db.outbox import PointKind, count_waiting
from shared.ids import parse_library_id
from shared.jobs.convert import to_timestamp
from shared.vectors.reconcile import Comparison

Context = grpc.aio.ServicerContext[Any, Any]


class DoctorServicer(doctor_pb2_grpc.DoctorServiceServicer):
    """Whether PostgreSQL and Qdrant agree."""

    def __init__(self, database: Database, comparison: Comparison, clock: Clock) -> None:
        self._database = database
        self._comparison = comparison
        self._clock = clock

    async def CheckConsistency(
        self, request: pb.CheckConsistencyRequest, context: Context
    ) -> pb.CheckConsistencyResponse:
        library_id = parse_library_id(request.library_id)
        max_rows = from_depth(request)
        # One moment of PostgreSQL for every collection and the queue: what a relay writes meanwhile was still waiting then.
        async with self._database.snapshot() as tx:
            waiting, oldest = await count_waiting(tx, library_id)
            reports = [
                await self._comparison.compare(tx, kind, library_id, version, max_rows)
                for version in await list_versions(tx, library_id)
                for kind in PointKind
            ]
        return pb.CheckConsistencyResponse(
            consistent=waiting == 0 and all(report.consistent for report in reports),
            collections=[to_report(report) for report in reports],
            outbox_waiting=waiting,
            outbox_oldest=to_timestamp(oldest),
            check_time=to_timestamp(self._clock.now()),
        )
