"""Matchers as messages; nothing else."""

from __future__ import annotations

from kith.persons.v1 import matcher_pb2
from services.persons.domain.matcher import Matcher
from services.persons.matching.request import Separability
from shared.jobs.convert import to_timestamp


def to_matcher(matcher: Matcher) -> matcher_pb2.Matcher:
    """A matcher as a message."""
    report = matcher.report
    return matcher_pb2.Matcher(
        id=str(matcher.matcher_id),
        library_id=matcher.library_id,
        model_version=matcher.model_version,
        dimension=matcher.dimension,
        active=matcher.active,
        before=to_separability(report.before),
        after=to_separability(report.after),
        persons=report.persons,
        faces=report.faces,
        create_time=to_timestamp(matcher.created_at),
        held_out_persons=report.held_out_persons,
        held_out_faces=report.held_out_faces,
        activate_time=to_timestamp(matcher.activated_at),
    )


def to_separability(found: Separability) -> matcher_pb2.Separability:
    """Separability as a message."""
    return matcher_pb2.Separability(eer=found.eer, tar_at_far_1e3=found.tar_at_far_1e3)
