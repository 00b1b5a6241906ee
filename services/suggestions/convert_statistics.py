"""Counts of questions and answers as messages."""

from __future__ import annotations

from datetime import date

from google.protobuf.duration_pb2 import Duration

from kith.common.v1 import types_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.domain.model import SuggestionMethod
from services.suggestions.repository.statistics import AnswerCounts, PersonCounts


def to_answer_stats(counts: AnswerCounts) -> pb.AnswerStats:
    """Questions and answers; what there is none of stays unset."""
    message = pb.AnswerStats(
        asked=counts.asked, accepted=counts.accepted, rejected=counts.rejected, precision=counts.precision
    )
    if counts.median_wait is not None:
        wait = Duration()
        wait.FromTimedelta(counts.median_wait)
        message.median_time_to_answer.CopyFrom(wait)
    return message


def to_person_stats(counts: PersonCounts) -> pb.PersonSuggestionStats:
    """Counts of one person."""
    return pb.PersonSuggestionStats(
        person_id=str(counts.person_id),
        pending=counts.pending,
        accepted=counts.answers.accepted,
        rejected=counts.answers.rejected,
        answers=to_answer_stats(counts.answers),
    )


def to_method_stats(method: SuggestionMethod, counts: AnswerCounts) -> pb.MethodSuggestionStats:
    """Counts of one way to find faces."""
    return pb.MethodSuggestionStats(
        method=pb.SuggestionMethod.Value(f"SUGGESTION_METHOD_{method.value}"), answers=to_answer_stats(counts)
    )


def to_day_stats(day: date, counts: AnswerCounts) -> pb.DaySuggestionStats:
    """Counts of one day."""
    return pb.DaySuggestionStats(
        day=types_pb2.Date(year=day.year, month=day.month, day=day.day), answers=to_answer_stats(counts)
    )
