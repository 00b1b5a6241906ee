"""Looking for more faces of a person by itself, once enough questions about them were accepted.

Accepted questions are counted for their person in the transaction that stores the answers, each once, as no question is
accepted twice. Where the count reaches what the library wants, that transaction also creates the job, one for all persons who
are due, and their counts begin anew. Bounded: at most one such job of a person is under way, and none starts within
``suggestions.auto_find_more_gap_s`` of the one before. Who is due and held back by that stays so, till the next question about
them is accepted.

A count is a hint and no account of anything. A merge moves nothing: whoever has become part of another keeps the count they
had, of no use unless that is undone, and nothing is started for them, nor for anybody deleted. Where a library wants no jobs of
this kind, nothing is counted; nor does version N-1 count what it stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from services.suggestions.domain.discovering import FindMore, start_find_more
from services.suggestions.domain.model import SuggestionMethod, SuggestionsDeps
from services.suggestions.repository.auto_finds import (
    AutoFind,
    add_accepted,
    begin_auto_finds,
    delete_discovery_settings,
    find_auto_find_more_after,
    list_free_persons,
    store_auto_find_more_after,
)
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import NotFound, PreconditionFailed


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """After how many accepted questions about a person more are looked for, 0 = never; and whether that is the server's word,
    as the library has said nothing.
    """

    auto_find_more_after: int
    is_default: bool


async def get_discovery_settings(tx: Transaction, deps: SuggestionsDeps, library_id: str) -> DiscoverySettings:
    """What holds for a library; one statement."""
    said = await find_auto_find_more_after(tx, library_id)
    if said is None:
        return DiscoverySettings(deps.settings.auto_find_more_after, is_default=True)
    return DiscoverySettings(said, is_default=False)


async def update_discovery_settings(
    tx: Transaction, deps: SuggestionsDeps, library_id: str, auto_find_more_after: int | None, caller: Caller
) -> DiscoverySettings:
    """Change what holds for a library; None = what the server says, whatever it says later."""
    if auto_find_more_after is None:
        await delete_discovery_settings(tx, library_id)
    else:
        await store_auto_find_more_after(tx, deps.clock, library_id, auto_find_more_after, caller.subject)
    return await get_discovery_settings(tx, deps, library_id)


async def count_accepted(
    tx: Transaction, deps: SuggestionsDeps, library_id: str, accepted: Mapping[UUID, int], caller: Caller
) -> None:
    """Count questions that were accepted in this transaction, by person, and look for more where that is due.

    Two statements, and seven more with a job, whatever the number of persons. Their rows are locked after all others of the
    answers, in order of id.
    """
    if not accepted:
        return
    wanted = (await get_discovery_settings(tx, deps, library_id)).auto_find_more_after
    if wanted == 0:
        return
    counted = await add_accepted(tx, library_id, accepted)
    due = [each.person_id for each in counted if each.accepted >= wanted and _is_gap_over(each, deps)]
    if due:
        await _find_more(tx, deps, library_id, due, caller)


async def _find_more(tx: Transaction, deps: SuggestionsDeps, library_id: str, due: list[UUID], caller: Caller) -> None:
    # Read after the counts were locked: who held them before may have started a job.
    free = await list_free_persons(tx, due)
    if not free:
        return
    command = FindMore(
        library_id=library_id,
        person_ids=free,
        method=SuggestionMethod.PROTOTYPES,
        max_per_person=deps.settings.max_per_person,
        min_confidence=deps.settings.min_confidence,
    )
    try:
        job = await start_find_more(tx, deps, command, caller)
    except (NotFound, PreconditionFailed):
        # One of them was merged or deleted at this moment. That is no reason to refuse an answer: the next one looks again.
        return
    await begin_auto_finds(tx, deps.clock, free, job.job_id)


def _is_gap_over(counted: AutoFind, deps: SuggestionsDeps) -> bool:
    if counted.started_at is None:
        return True
    return deps.clock.now() - counted.started_at >= timedelta(seconds=deps.settings.auto_find_more_gap_s)
