"""SuggestionService's calls about many questions at once: bulk answers, the review queue, and what they come to."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID, uuid5

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.convert import from_answer, to_suggestion
from services.suggestions.convert_statistics import to_answer_stats, to_day_stats, to_method_stats, to_person_stats
from services.suggestions.domain.bulk_reviewing import (
    Refusals,
    Review,
    ReviewSuggestions,
    begin_reviews,
    finish_reviews,
)
from services.suggestions.domain.leasing import LeaseQueue, lease_queue
from services.suggestions.domain.model import SuggestionsDeps, SuggestionState
from services.suggestions.domain.ports import Assignments
from services.suggestions.repository.statistics import count_by_day, count_by_method, count_by_person
from services.suggestions.repository.suggestions import count_by_state
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_failure, to_timestamp
from shared.rpc.mutation import Mutations
from shared.rpc.principal import check_subject

MAX_REVIEWS: Final = 500
MAX_LEASED: Final = 100
MAX_DAYS: Final = 366
MAX_PERSONS: Final = 500

# Names requests that came without an id by what they say, so that one sent again is the same all the same.
_UNNAMED: Final = UUID("6f1c6c0e-3f0b-5b52-9d0c-5d7a3f1f6f0e")


async def review_suggestions(
    database: Database,
    mutations: Mutations,
    deps: SuggestionsDeps,
    persons: Assignments,
    request: pb.BatchReviewSuggestionsRequest,
) -> pb.BatchReviewSuggestionsResponse:
    """Answer BatchReviewSuggestions."""
    command = _read_reviews(request)

    async def first(_caller: Caller) -> Refusals:
        return await begin_reviews(database, persons, command)

    async def work(tx: Transaction, caller: Caller, refused: Refusals) -> pb.BatchReviewSuggestionsResponse:
        made = await finish_reviews(tx, deps, command, caller, refused)
        return pb.BatchReviewSuggestionsResponse(
            suggestions=[to_suggestion(suggestion) for suggestion in made.suggestions],
            failures=[to_failure(failure) for failure in made.failures],
            change_ids=[str(change_id) for change_id in made.change_ids],
        )

    return await mutations.run_after(request, pb.BatchReviewSuggestionsResponse, first, work)


async def lease_review_queue(
    mutations: Mutations, deps: SuggestionsDeps, request: pb.LeaseReviewQueueRequest
) -> pb.LeaseReviewQueueResponse:
    """Answer LeaseReviewQueue."""
    library_id = parse_library_id(request.library_id)
    if request.limit < 0:
        raise InvalidRequest("limit must not be negative", field="limit")
    limit = min(request.limit or 10, MAX_LEASED)
    reviewer = _read_reviewer(request.reviewer)

    async def work(tx: Transaction, caller: Caller) -> pb.LeaseReviewQueueResponse:
        queue = await lease_queue(tx, deps, LeaseQueue(library_id, reviewer or caller.subject, limit))
        return pb.LeaseReviewQueueResponse(
            suggestions=[to_suggestion(question.suggestion) for question in queue.questions],
            lease_until=to_timestamp(queue.until),
            faces_settled=[question.settles for question in queue.questions],
        )

    return await mutations.run(request, pb.LeaseReviewQueueResponse, work)


async def get_suggestion_stats(
    database: Database, deps: SuggestionsDeps, request: pb.GetSuggestionStatsRequest
) -> pb.GetSuggestionStatsResponse:
    """Answer GetSuggestionStats."""
    library_id = parse_library_id(request.library_id)
    if request.days < 0:
        raise InvalidRequest("days must not be negative", field="days")
    if len(request.person_ids) > MAX_PERSONS:
        raise InvalidRequest(f"person_ids must hold at most {MAX_PERSONS} ids", field="person_ids")
    person_ids = [parse_uuid(each, f"person_ids[{index}]") for index, each in enumerate(request.person_ids)]
    days = min(request.days or 30, MAX_DAYS)
    since = deps.clock.now().date() - timedelta(days=days - 1)
    async with database.snapshot() as tx:
        states = await count_by_state(tx, library_id)
        persons = await count_by_person(tx, library_id, person_ids)
        counts = await count_by_method(tx, library_id)
        by_day = await count_by_day(tx, library_id, since)
    return pb.GetSuggestionStatsResponse(
        pending=states[SuggestionState.PENDING],
        accepted=states[SuggestionState.ACCEPTED],
        rejected=states[SuggestionState.REJECTED],
        expired=states[SuggestionState.EXPIRED],
        persons=[to_person_stats(person) for person in persons],
        answers=to_answer_stats(counts.total),
        methods=[to_method_stats(method, answers) for method, answers in counts.methods.items()],
        days=[to_day_stats(day, answers) for day, answers in by_day],
    )


def _read_reviews(request: pb.BatchReviewSuggestionsRequest) -> ReviewSuggestions:
    if not 1 <= len(request.reviews) <= MAX_REVIEWS:
        raise InvalidRequest(f"reviews must hold 1..{MAX_REVIEWS} answers", field="reviews")
    given = [
        Review(
            parse_uuid(each.suggestion_id, f"reviews[{index}].suggestion_id"),
            each.etag,
            from_answer(each.answer, f"reviews[{index}].answer"),
        )
        for index, each in enumerate(request.reviews)
    ]
    if len({review.suggestion_id for review in given}) != len(given):
        raise InvalidRequest("reviews must hold each suggestion once", field="reviews")
    library_id = parse_library_id(request.library_id)
    said = "\n".join(f"{review.suggestion_id} {review.etag} {review.answer}" for review in given)
    key = parse_uuid(request.request_id, "request_id") if request.request_id else uuid5(_UNNAMED, said)
    return ReviewSuggestions(library_id, given, key)


def _read_reviewer(reviewer: str) -> str:
    if not reviewer:
        return ""
    try:
        return check_subject(reviewer)
    except ValueError as error:
        raise InvalidRequest("reviewer must be at most 200 printable characters", field="reviewer") from error
