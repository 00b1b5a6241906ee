"""The figures of a run, each computed from the truth; those that need one are None without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from demo.job import Outcome
from demo.truth import Truth
from kith.suggestions.v1 import suggestions_pb2
from shared.faces.agreement import Agreement, measure_agreement


def summarise(
    truth: Truth, outcome: Outcome, seconds: Mapping[str, float], peak_rss_mb: Mapping[str, float]
) -> dict[str, Any]:
    """``summary.json``. Rounded to four digits."""
    matched = sum(1 for face in outcome.faces if face.face_id in outcome.identities)
    drawn = None if truth.faces is None else len(truth.faces)
    found = len(outcome.faces)
    agreement = _agreement(outcome)
    accepted, rejected = (
        sum(suggestion.state == state for suggestion in outcome.suggestions)
        for state in (suggestions_pb2.SUGGESTION_STATE_ACCEPTED, suggestions_pb2.SUGGESTION_STATE_REJECTED)
    )
    return {
        "photos": len(truth.photos),
        "photos_failed": len(outcome.failures),
        "faces_drawn": drawn,
        "faces_found": found,
        "detection_recall": None if drawn is None else _share(matched, drawn),
        "detection_precision": None if drawn is None else _share(matched, found),
        "clusters": len(outcome.groups),
        "cluster_pairwise_f1": None if agreement is None else round(agreement.pairwise_f1, 4),
        "cluster_bcubed_f1": None if agreement is None else round(agreement.bcubed_f1, 4),
        "suggestions": len(outcome.suggestions),
        "suggestion_precision": _share(accepted, accepted + rejected) if accepted + rejected else None,
        "persons": len(outcome.persons),
        "unassigned": sum(1 for face in outcome.faces if not face.person_id),
        "consistent": outcome.consistency.consistent,
        "drift": sum(report.missing + report.strangers + report.stale for report in outcome.consistency.collections),
        "seconds_by_stage": dict(seconds),
        "peak_rss_mb_by_process": dict(peak_rss_mb),
    }


def _agreement(outcome: Outcome) -> Agreement | None:
    """Groups against identities, over the faces whose identity is known; faces in no group stand alone."""
    known = [face.face_id for face in outcome.faces if face.face_id in outcome.identities]
    if len({outcome.identities[face_id] for face_id in known}) < 2:
        return None  # One person's faces cannot be told from anybody's.
    cluster_of = {face_id: index for index, group in enumerate(outcome.groups) for face_id in group.face_ids}
    identity_number = {name: index for index, name in enumerate(sorted(set(outcome.identities.values())))}
    return measure_agreement(
        np.array([identity_number[outcome.identities[face_id]] for face_id in known]),
        np.array([cluster_of.get(face_id, -1) for face_id in known]),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
