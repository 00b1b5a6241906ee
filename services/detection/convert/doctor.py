"""What the doctor finds."""

from __future__ import annotations

from kith.detection.v1 import doctor_pb2 as pb
from shared.errors import InvalidRequest
from shared.vectors.reconcile import CollectionReport

DEFAULT_SAMPLE = 1000
MAX_SAMPLE = 100_000


def from_depth(request: pb.CheckConsistencyRequest) -> int | None:
    """How many rows to compare field by field: 0 = counts only, None = all."""
    if request.depth == pb.CHECK_DEPTH_FULL:
        return None
    if request.depth == pb.CHECK_DEPTH_SAMPLE:
        if not 0 <= request.sample_size <= MAX_SAMPLE:
            raise InvalidRequest(f"sample_size must be 0..{MAX_SAMPLE}", field="sample_size")
        return request.sample_size or DEFAULT_SAMPLE
    if request.depth in (pb.CHECK_DEPTH_UNSPECIFIED, pb.CHECK_DEPTH_COUNTS):
        return 0
    raise InvalidRequest(f"depth has no value {request.depth}", field="depth")


def to_report(report: CollectionReport) -> pb.CollectionReport:
    """One compared collection as a message."""
    return pb.CollectionReport(
        collection=report.collection,
        model_version=report.model_version,
        postgres_count=report.postgres_count,
        qdrant_count=report.qdrant_count,
        compared=report.compared,
        missing=report.missing,
        strangers=report.strangers,
        stale=report.stale,
        drifts=[
            pb.Drift(
                point_id=str(drift.point_id),
                kind=pb.DriftKind.Value(f"DRIFT_KIND_{drift.kind.value}"),
                fields=drift.fields,
            )
            for drift in report.drifts
        ],
    )
