"""Find-more for one person of a thousand faces over a million that nobody has, beside the seed design on the same stores.

Kith's job is run here rather than by a worker, so that what it sends can be counted.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import delete

from bench.areas.suggestions.clients import await_quiet, open_clients
from bench.areas.suggestions.counting import counting, list_own
from bench.areas.suggestions.faces import DrawnFaces, Ints
from bench.areas.suggestions.finding import MAX_PER_PERSON, MIN_CONFIDENCE
from bench.areas.suggestions.library import seed_library
from bench.areas.suggestions.people import FACES_LABELLED, LabelledPeople, label_people, read_questions
from bench.areas.suggestions.seed_design import HITS_EACH, PROTOTYPES_SAMPLED, find_more_as_seed, prepare_seed
from deploy.local.ports import StackPorts
from services.suggestions.domain.discovering import FindMore, start_find_more
from services.suggestions.domain.model import SuggestionMethod
from services.suggestions.wiring import build_deps, build_handlers
from shared.caller import Caller
from shared.config import JobSettings
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation
from shared.jobs.execution import SliceExecutor
from shared.jobs.model import JobState
from shared.jobs.repository import get_job

LIBRARY: Final = "million"
FACES: Final = 1_000_000
OF_THE_PERSON: Final = 1_000
LEFT_OF_THE_PERSON: Final = 500
"""At least so many are to be found."""

OTHERS: Final = 100
"""Others who are known, by five faces each."""

# So long that no heartbeat falls into a count.
_PATIENT: Final = JobSettings(lease_s=600, heartbeat_s=200)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, and how many questions came of it, how many of them right.

    ``searching``: seconds of it in Qdrant. ``statements``: of finding and storing. ``job_statements``: of creating the job,
    with the check of who it is about, and of the bookkeeping while it runs.
    """

    seconds: float
    searching: float
    qdrant_calls: int
    statements: int
    job_statements: int
    asked: int
    right: int


@dataclass(frozen=True, slots=True)
class Race:
    """Runs in turn: Kith's with as many hits for each vector as the seed's have, with as many as by default, and with the most
    there may be; the seed's with a sample of the person's faces. And one of the seed's with each of them.
    """

    kith: list[Cost]
    usual: list[Cost]
    most: list[Cost]
    sampled: list[Cost]
    one_by_one: Cost


async def measure_largest(base: Foundation, drawn: DrawnFaces, ports: StackPorts, repeat: int) -> Race:
    """Seed and label, then let both look for the person in turn."""
    async with AsyncExitStack() as stack:
        clients = await open_clients(LIBRARY, ports, stack)
        library = await seed_library(base, LIBRARY, drawn)
        chosen = choose_known(drawn)
        people = await label_people(clients, library, chosen)
        person_id = people.ids[next(iter(chosen))]
        await await_quiet(base)
        # The first search in so many faces reads them from the disk, whosever it is.
        await _run_kith(base, people, person_id, HITS_EACH)
        kith, usual, most, sampled = [], [], [], []
        for _ in range(repeat):
            kith.append(await _run_kith(base, people, person_id, HITS_EACH))
            usual.append(await _run_kith(base, people, person_id, base.settings.suggestions.max_per_person))
            most.append(await _run_kith(base, people, person_id, MAX_PER_PERSON))
            sampled.append(await _run_seed(base, people, person_id, PROTOTYPES_SAMPLED))
        return Race(kith, usual, most, sampled, await _run_seed(base, people, person_id, OF_THE_PERSON))


def choose_known(drawn: DrawnFaces) -> dict[int, Ints]:
    """The person, labelled by 1,000 faces, and after them a hundred others by five each."""
    random = np.random.default_rng(0)
    sizes = np.bincount(drawn.truth[drawn.truth >= 0])
    person = int(np.flatnonzero(sizes >= OF_THE_PERSON + LEFT_OF_THE_PERSON)[0])
    enough = np.setdiff1d(np.flatnonzero(sizes > FACES_LABELLED), [person])
    others = random.choice(enough, OTHERS, replace=False).tolist()
    wanted = {person: OF_THE_PERSON, **dict.fromkeys(others, FACES_LABELLED)}
    return {
        number: random.choice(np.flatnonzero(drawn.truth == number), count, replace=False)
        for number, count in wanted.items()
    }


async def _run_kith(base: Foundation, people: LabelledPeople, person_id: UUID, most: int) -> Cost:
    async with base.database.transaction() as tx:
        await tx.execute(delete(suggestions).where(suggestions.c.library_id == LIBRARY))
    command = FindMore(LIBRARY, [person_id], SuggestionMethod.PROTOTYPES, most, MIN_CONFIDENCE)
    async with AsyncExitStack() as stack:
        with counting(base) as (counted, sent):
            executor = SliceExecutor(build_handlers(counted, stack), base.database, base.clock, base.ids, _PATIENT)
            begun = time.perf_counter()
            async with base.database.transaction() as tx:
                job = await start_find_more(tx, build_deps(base), command, Caller("bench", "bench"))
            creating = len(sent.statements)
            await executor.run_slice(job.job_id, 0)
            seconds = time.perf_counter() - begun
    async with base.database.transaction() as tx:
        ended = await get_job(tx, LIBRARY, job.job_id)
    if ended.state is not JobState.SUCCEEDED:
        raise RuntimeError(f"the job ended as {ended.state.value}")
    pairs = await read_questions(base, people)
    own = len(list_own(sent.statements[creating:]))
    return Cost(
        seconds=seconds,
        searching=sent.searching,
        qdrant_calls=len(sent.qdrant_calls),
        statements=own,
        job_statements=len(sent.statements) - own,
        asked=len(pairs.faces),
        right=int(pairs.right(people.library.drawn).sum()),
    )


async def _run_seed(base: Foundation, people: LabelledPeople, person_id: UUID, sampled: int) -> Cost:
    await prepare_seed(base)
    run = await find_more_as_seed(base, LIBRARY, person_id, np.random.default_rng(0), sampled)
    library, number = people.library, people.numbers[person_id]
    right = sum(int(library.drawn.truth[library.numbers[face_id]]) == number for face_id, _, _ in run.found)
    return Cost(run.seconds, run.searching, run.qdrant_calls, run.statements, 0, len(run.found), right)
