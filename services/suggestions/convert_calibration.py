"""Calibration reports to messages; nothing else."""

from __future__ import annotations

from kith.suggestions.v1 import discovery_pb2 as pb
from services.suggestions.domain.calibrating import CalibrationReport
from shared.faces.calibration_fit import PrecisionCost, Reliability, ReliabilityBin
from shared.jobs.convert import to_timestamp


def to_calibration(report: CalibrationReport) -> pb.GetCalibrationResponse:
    """A report as a message."""
    return pb.GetCalibrationResponse(
        model_version=report.model_version,
        answers=report.answers,
        error=report.as_asked.error,
        bins=[_to_bin(each) for each in report.as_asked.bins],
        fit_time=to_timestamp(report.fitted_at),
        brier=report.as_asked.brier,
        reviewed=report.as_asked.answers,
        cross_validated=_to_reliability(report.held_out),
        precision_costs=[_to_cost(each) for each in report.costs],
    )


def _to_reliability(found: Reliability) -> pb.Reliability:
    return pb.Reliability(
        answers=found.answers, error=found.error, brier=found.brier, bins=[_to_bin(each) for each in found.bins]
    )


def _to_bin(found: ReliabilityBin) -> pb.CalibrationBin:
    return pb.CalibrationBin(
        confidence_low=found.low,
        confidence_high=found.high,
        answers=found.answers,
        accepted_share=found.accepted,
        mean_confidence=found.confidence,
    )


def _to_cost(cost: PrecisionCost) -> pb.PrecisionCost:
    return pb.PrecisionCost(
        target_precision=cost.target,
        least_confidence=cost.least_confidence,
        answers=cost.answers,
        precision=cost.precision,
        recall=cost.recall,
    )
