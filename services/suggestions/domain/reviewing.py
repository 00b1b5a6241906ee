"""Answering questions.

The word on whose face a face is belongs to the persons service, so an answer has two steps: there first, under a request id
made of the suggestion's and the person's (a question may follow its person into another), then here. Whatever happens between
them, the answer sent again finds the first step done and does the second. Where answers race, the persons service decides: of
two people's yes to one face one wins; of yes and no to one pair, no stands, as excluding takes the face away and assigning
refuses an excluded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from services.suggestions.domain.auto_finding import count_accepted
from services.suggestions.domain.model import Suggestion, SuggestionsDeps, SuggestionState
from services.suggestions.domain.ports import Assignments
from services.suggestions.repository.leases import end_leases
from services.suggestions.repository.reviews import find_change, get_pair_standing, insert_review
from services.suggestions.repository.suggestions import (
    close_suggestion,
    expire_rivals,
    get_suggestion,
    lock_suggestion,
)
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.errors import EtagMismatch, PreconditionFailed, Reason


@dataclass(frozen=True, slots=True)
class AnswerSuggestion:
    """A suggestion to answer; ``etag`` empty = however it stands now."""

    library_id: str
    suggestion_id: UUID
    etag: str = ""


@dataclass(frozen=True, slots=True)
class AnswerBegun:
    """What the first step of an answer left: ``change_id`` empty if the persons service had nothing to change."""

    suggestion: Suggestion
    change_id: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The suggestion as it is now, and the entry in the ledger (empty if nothing changed there)."""

    suggestion: Suggestion
    change_id: str


async def begin_accept(database: Database, persons: Assignments, command: AnswerSuggestion) -> AnswerBegun:
    """Assign the face. A suggestion that was accepted before is left alone.

    Raises :class:`NotFound`, :class:`EtagMismatch`, :class:`PreconditionFailed` with SUGGESTION_NOT_PENDING, and what the
    persons service says, e.g. FACE_ALREADY_ASSIGNED.
    """
    async with database.snapshot() as tx:
        suggestion = await get_suggestion(tx, command.library_id, command.suggestion_id)
        if suggestion.state is SuggestionState.ACCEPTED:
            return AnswerBegun(suggestion)
        standing = await get_pair_standing(tx, suggestion)
    request_id = _make_request_id(suggestion, "accept")
    if standing.assigned_by != str(request_id):
        check_open(suggestion, command.etag)
    change_id = await persons.assign_face(
        command.library_id,
        suggestion.face_id,
        suggestion.person_id,
        f"accepted suggestion {suggestion.suggestion_id}",
        request_id,
    )
    return AnswerBegun(suggestion, change_id)


async def finish_accept(
    tx: Transaction, deps: SuggestionsDeps, command: AnswerSuggestion, caller: Caller, begun: AnswerBegun
) -> Answered:
    """Mark the suggestion accepted, and the other open questions about its face expired; look for more of the person if due.

    Raises :class:`PreconditionFailed` if it was rejected meanwhile, or the face taken from the person again.
    """
    suggestion = await lock_suggestion(tx, command.library_id, command.suggestion_id, begun.suggestion.face_id)
    if suggestion.state is SuggestionState.ACCEPTED:
        return Answered(suggestion, await find_change(tx, suggestion))
    if suggestion.state is SuggestionState.REJECTED:
        raise refuse_closed(suggestion)
    standing = await get_pair_standing(tx, suggestion)
    if standing.assigned_to != suggestion.person_id:
        raise PreconditionFailed(
            f"face '{suggestion.face_id}' was taken from the person again",
            reason=Reason.FACE_NOT_ASSIGNED,
            metadata={"face_id": str(suggestion.face_id)},
        )
    await close_suggestion(tx, deps.clock, suggestion.suggestion_id, SuggestionState.ACCEPTED, caller.subject)
    await expire_rivals(tx, deps.clock, suggestion.face_id, suggestion.suggestion_id)
    await end_leases(tx, [suggestion.face_id])
    await insert_review(tx, deps, suggestion, "ACCEPT", caller.subject, begun.change_id)
    await count_accepted(tx, deps, command.library_id, {suggestion.person_id: 1}, caller)
    return Answered(await get_suggestion(tx, command.library_id, command.suggestion_id), begun.change_id)


async def begin_reject(database: Database, persons: Assignments, command: AnswerSuggestion) -> AnswerBegun:
    """Exclude the face from the person. A suggestion that was rejected before is left alone.

    Raises :class:`NotFound`, :class:`EtagMismatch` and :class:`PreconditionFailed` with SUGGESTION_NOT_PENDING, also where
    the face has been given to the person meanwhile: that is for UnassignFace to take back.
    """
    async with database.snapshot() as tx:
        suggestion = await get_suggestion(tx, command.library_id, command.suggestion_id)
        if suggestion.state is SuggestionState.REJECTED:
            return AnswerBegun(suggestion)
        standing = await get_pair_standing(tx, suggestion)
    request_id = _make_request_id(suggestion, "reject")
    if standing.excluded_by != str(request_id):
        check_open(suggestion, command.etag)
        if standing.assigned_to == suggestion.person_id:
            raise refuse_closed(suggestion)
    change_id = await persons.exclude_face(
        command.library_id,
        suggestion.face_id,
        suggestion.person_id,
        f"rejected suggestion {suggestion.suggestion_id}",
        request_id,
    )
    return AnswerBegun(suggestion, change_id)


async def finish_reject(
    tx: Transaction, deps: SuggestionsDeps, command: AnswerSuggestion, caller: Caller, begun: AnswerBegun
) -> Answered:
    """Mark the suggestion rejected, for ever; also where a yes came in between, which the exclusion has undone."""
    suggestion = await lock_suggestion(tx, command.library_id, command.suggestion_id, begun.suggestion.face_id)
    if suggestion.state is SuggestionState.REJECTED:
        return Answered(suggestion, await find_change(tx, suggestion))
    await close_suggestion(tx, deps.clock, suggestion.suggestion_id, SuggestionState.REJECTED, caller.subject)
    await end_leases(tx, [suggestion.face_id])
    await insert_review(tx, deps, suggestion, "REJECT", caller.subject, begun.change_id)
    return Answered(await get_suggestion(tx, command.library_id, command.suggestion_id), begun.change_id)


def _make_request_id(suggestion: Suggestion, answer: str) -> UUID:
    # Of a question that is asked again the answer is another one.
    again = f" {suggestion.asked_at.isoformat()}" if suggestion.asked_at else ""
    return uuid5(suggestion.suggestion_id, f"{answer} {suggestion.person_id}{again}")


def check_open(suggestion: Suggestion, etag: str) -> None:
    """Raise :class:`PreconditionFailed` for a question that is not open, :class:`EtagMismatch` for one that has changed."""
    if suggestion.state is not SuggestionState.PENDING:
        raise refuse_closed(suggestion)
    if etag and etag != suggestion.etag:
        raise EtagMismatch("suggestion", str(suggestion.suggestion_id), suggestion.etag)


def refuse_closed(suggestion: Suggestion) -> PreconditionFailed:
    """What an answer to a question that is not open is told."""
    return PreconditionFailed(
        f"suggestion '{suggestion.suggestion_id}' is not open any more",
        reason=Reason.SUGGESTION_NOT_PENDING,
        metadata={"suggestion_id": str(suggestion.suggestion_id), "state": suggestion.state.value},
    )
