"""Answering many questions at once, each by itself.

The two steps of :mod:`services.suggestions.domain.reviewing`, for all answers together: what was accepted goes to the persons
service in one call for each person, what was rejected in one call for each pair, under request ids made of the request's own.
What became of a pair is read in the second step from the persons service's tables and not carried over from the first, so a
retry after a crash at any line ends as the first try would have.

A call that is tried again may have fewer faces to give, as some were given by the first: the same id would then be that of
another call. So there are a few ids for each person, one for each such call, and a face assigned under any of them is known as
this request's work.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final
from uuid import UUID, uuid5

from services.suggestions.domain.auto_finding import count_accepted
from services.suggestions.domain.model import Suggestion, SuggestionsDeps, SuggestionState
from services.suggestions.domain.ports import Assignments
from services.suggestions.domain.reviewing import check_open, refuse_closed
from services.suggestions.repository.bulk_reviews import (
    AskedPair,
    GivenAnswer,
    close_answered,
    get_asked_pairs,
    insert_reviews,
    lock_asked_faces,
)
from services.suggestions.repository.leases import end_leases
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.errors import (
    Contention,
    EtagMismatch,
    InvalidRequest,
    KithError,
    NotFound,
    PreconditionFailed,
    Reason,
)
from shared.jobs.model import ItemFailure

CALLS_AT_ONCE: Final = 8
CALLS_PER_PERSON: Final = 8

# About the faces or the person, so that the other answers may go on; anything else fails the call, to be tried again.
_REFUSALS = (NotFound, PreconditionFailed, EtagMismatch, Contention)

Refusals = dict[UUID, ItemFailure]
"""Answers that were refused, by suggestion."""


class Answer(StrEnum):
    """Yes or no, as ``reviews`` has it."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"

    @property
    def state(self) -> SuggestionState:
        """Of a suggestion that was answered so."""
        return SuggestionState.ACCEPTED if self is Answer.ACCEPT else SuggestionState.REJECTED


@dataclass(frozen=True, slots=True)
class Review:
    """An answer to a suggestion as its reviewer saw it."""

    suggestion_id: UUID
    etag: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReviewSuggestions:
    """Answers, each suggestion once. ``request_key`` is the same for the same request only."""

    library_id: str
    reviews: Sequence[Review]
    request_key: UUID


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Suggestions that are answered so now, answers that were refused, both in the request's order, and the changes made."""

    suggestions: list[Suggestion]
    failures: list[ItemFailure]
    change_ids: list[UUID]


async def begin_reviews(database: Database, persons: Assignments, command: ReviewSuggestions) -> Refusals:
    """Assign and exclude; answers with what cannot be done.

    Raises what the persons service says that is about none of the answers, e.g. that it is away. Then some may be done: the
    same request does the rest.
    """
    refused: Refusals = {}
    given: dict[UUID, list[Suggestion]] = {}
    denied: list[Suggestion] = []
    async with database.snapshot() as tx:
        pairs = await get_asked_pairs(tx, command.library_id, _list_ids(command))
    for review in command.reviews:
        try:
            pair = _admit(review, pairs.get(review.suggestion_id), command)
        except KithError as error:
            refused[review.suggestion_id] = _refusal(review.suggestion_id, error)
            continue
        if pair is None:
            continue
        if review.answer is Answer.ACCEPT:
            given.setdefault(pair.suggestion.person_id, []).append(pair.suggestion)
        else:
            denied.append(pair.suggestion)
    await _send(
        [partial(_assign, persons, command, person_id, asked, refused) for person_id, asked in given.items()]
        + [partial(_exclude, persons, command, asked, refused) for asked in denied]
    )
    return refused


async def finish_reviews(
    tx: Transaction, deps: SuggestionsDeps, command: ReviewSuggestions, caller: Caller, refused: Refusals
) -> Reviewed:
    """Close what was answered, and the other questions about faces that have their person now, and look for more of persons
    that are due; eight statements, fifteen with a job.
    """
    refused = dict(refused)
    await lock_asked_faces(tx, command.library_id, _list_ids(command))
    pairs = await get_asked_pairs(tx, command.library_id, _list_ids(command))
    given: list[GivenAnswer] = []
    for review in command.reviews:
        if review.suggestion_id in refused:
            continue
        try:
            answer = _settle(review, pairs.get(review.suggestion_id), command)
        except KithError as error:
            refused[review.suggestion_id] = _refusal(review.suggestion_id, error)
            continue
        if answer is not None:
            given.append(answer)
    if given:
        await close_answered(tx, deps.clock, given, caller.subject)
        await end_leases(tx, [answer.suggestion.face_id for answer in given])
        await insert_reviews(tx, deps, given, caller.subject)
        pairs = await get_asked_pairs(tx, command.library_id, _list_ids(command))
        accepted = [each.suggestion for each in given if each.state is SuggestionState.ACCEPTED]
        counts = Counter(suggestion.person_id for suggestion in accepted)
        await count_accepted(tx, deps, command.library_id, counts, caller)
    return Reviewed(
        [pairs[each].suggestion for each in _list_ids(command) if each not in refused],
        [refused[each] for each in _list_ids(command) if each in refused],
        list(dict.fromkeys(answer.change_id for answer in given if answer.change_id is not None)),
    )


def _admit(review: Review, pair: AskedPair | None, command: ReviewSuggestions) -> AskedPair | None:
    """The pair if the persons service is to be called for it, None if that is done; raises why it cannot be answered so."""
    if not review.etag:
        raise PreconditionFailed(
            "etag is required: read the suggestion first",
            reason=Reason.ETAG_REQUIRED,
            metadata={"resource": "suggestion", "id": str(review.suggestion_id)},
        )
    if pair is None:
        raise NotFound("suggestion", str(review.suggestion_id))
    if pair.suggestion.state is review.answer.state or _find_change(review, pair, command) is not None:
        return None
    check_open(pair.suggestion, review.etag)
    if review.answer is Answer.REJECT and pair.standing.assigned_to == pair.suggestion.person_id:
        raise refuse_closed(pair.suggestion)
    return pair


def _settle(review: Review, pair: AskedPair | None, command: ReviewSuggestions) -> GivenAnswer | None:
    """What is to be stored of an answer whose first step is done, None if it is stored; raises what came in between."""
    if pair is None:
        raise NotFound("suggestion", str(review.suggestion_id))
    suggestion, state = pair.suggestion, review.answer.state
    if suggestion.state is state:
        return None
    if review.answer is Answer.ACCEPT:
        if suggestion.state is SuggestionState.REJECTED:
            raise refuse_closed(suggestion)
        if pair.standing.assigned_to != suggestion.person_id:
            raise PreconditionFailed(
                f"face '{suggestion.face_id}' was taken from the person again",
                reason=Reason.FACE_NOT_ASSIGNED,
                metadata={"face_id": str(suggestion.face_id)},
            )
    elif pair.standing.excluding is None:
        # Somebody took the exclusion back.
        raise refuse_closed(suggestion)
    return GivenAnswer(suggestion, state, _find_change(review, pair, command))


async def _assign(
    persons: Assignments, command: ReviewSuggestions, person_id: UUID, asked: Sequence[Suggestion], refused: Refusals
) -> None:
    by_face = {suggestion.face_id: suggestion.suggestion_id for suggestion in asked}
    reason = f"accepted {len(by_face)} suggestions" if len(by_face) > 1 else "accepted 1 suggestion"
    try:
        failures = await _assign_once(persons, command, person_id, sorted(by_face), reason)
    except _REFUSALS as error:
        refused |= {each: _refusal(each, error) for each in by_face.values()}
        return
    for failure in failures:
        suggestion_id = by_face[UUID(failure.item_id)]
        refused[suggestion_id] = ItemFailure(str(suggestion_id), failure.reason, failure.message)


async def _assign_once(
    persons: Assignments, command: ReviewSuggestions, person_id: UUID, face_ids: Sequence[UUID], reason: str
) -> list[ItemFailure]:
    for request_id in _list_assigning(command, person_id):
        try:
            return await persons.assign_faces(command.library_id, face_ids, person_id, reason, request_id)
        except InvalidRequest as error:
            # An earlier try had other faces to give under it.
            if error.reason is not Reason.REQUEST_ID_REUSED:
                raise
    raise Contention(f"person '{person_id}' changes too often for this request: read the suggestions again")


async def _exclude(persons: Assignments, command: ReviewSuggestions, suggestion: Suggestion, refused: Refusals) -> None:
    try:
        await persons.exclude_face(
            command.library_id,
            suggestion.face_id,
            suggestion.person_id,
            f"rejected suggestion {suggestion.suggestion_id}",
            _name_exclusion(command, suggestion),
        )
    except _REFUSALS as error:
        refused[suggestion.suggestion_id] = _refusal(suggestion.suggestion_id, error)


async def _send(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make calls, a few at a time; the first that fails ends the others, and its error is raised."""
    turns = asyncio.Semaphore(CALLS_AT_ONCE)

    async def send_one(call: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await call()

    sending = [asyncio.ensure_future(send_one(call)) for call in calls]
    try:
        await asyncio.gather(*sending)
    finally:
        for each in sending:
            each.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


def _find_change(review: Review, pair: AskedPair, command: ReviewSuggestions) -> UUID | None:
    """The change that this request has made of the pair; None if there is none, or not any more."""
    suggestion, standing = pair.suggestion, pair.standing
    if review.answer is Answer.REJECT:
        mine = standing.excluded_by == str(_name_exclusion(command, suggestion))
        return standing.excluding if mine else None
    given = {str(request_id) for request_id in _list_assigning(command, suggestion.person_id)}
    mine = standing.assigned_to == suggestion.person_id and standing.assigned_by in given
    return standing.assigning if mine else None


def _list_assigning(command: ReviewSuggestions, person_id: UUID) -> list[UUID]:
    return [uuid5(command.request_key, f"accept {person_id} {turn}") for turn in range(CALLS_PER_PERSON)]


def _name_exclusion(command: ReviewSuggestions, suggestion: Suggestion) -> UUID:
    return uuid5(command.request_key, f"reject {suggestion.face_id} {suggestion.person_id}")


def _list_ids(command: ReviewSuggestions) -> list[UUID]:
    return [review.suggestion_id for review in command.reviews]


def _refusal(suggestion_id: UUID, error: KithError) -> ItemFailure:
    return ItemFailure(str(suggestion_id), error.reason.value, error.message)
