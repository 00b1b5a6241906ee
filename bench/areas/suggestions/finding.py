"""Find-more, AssignKnownFaces, answers and estimates of completeness on a library a few people of which are labelled."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import delete, select

from bench.areas.suggestions.clients import Clients, await_quiet, open_clients
from bench.areas.suggestions.faces import DrawnFaces
from bench.areas.suggestions.figures import Found, score_pairs
from bench.areas.suggestions.library import seed_library
from bench.areas.suggestions.people import (
    LabelledPeople,
    Pairs,
    Standing,
    choose_labelled,
    label_people,
    make_pairs,
    read_machine_assigned,
    read_questions,
    read_standing,
)
from bench.areas.suggestions.seed_design import find_more_as_seed, prepare_seed
from deploy.local.ports import StackPorts
from kith.suggestions.v1 import suggestions_pb2
from shared.db.tables_suggestions import suggestions
from shared.foundation import Foundation

MAX_PER_PERSON: Final = 5000
"""As many as a call may ask for."""

MIN_CONFIDENCE: Final = 0.98
"""A confidence is the chance of a yes, so this asks for the precision that is the goal; by default 0.5 is asked for, as a
doubtful question may still be worth an answer."""

ANSWERS: Final = 500
ANSWERING_SEED: Final = 0
TARGET_PRECISION: Final = 0.995


@dataclass(frozen=True, slots=True)
class Timed:
    """What was found, and the seconds from the call to the end of the job."""

    found: Found
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question as it stands, and whether the answer is yes."""

    suggestion_id: UUID
    version: int
    right: bool


@dataclass(frozen=True, slots=True, eq=False)
class Album:
    """A library with its labelled people, as it stood when they had just been labelled."""

    base: Foundation
    clients: Clients
    people: LabelledPeople
    before: Standing

    @property
    def drawn(self) -> DrawnFaces:
        """Its faces."""
        return self.people.library.drawn

    @property
    def library_id(self) -> str:
        """Its id."""
        return self.people.library.library_id


async def make_album(
    base: Foundation, library_id: str, drawn: DrawnFaces, ports: StackPorts, stack: AsyncExitStack
) -> Album:
    """Seed a library, label 2 % of its people by five faces each, and wait until everything follows."""
    begun = time.perf_counter()
    clients = await open_clients(library_id, ports, stack)
    library = await seed_library(base, library_id, drawn)
    people = await label_people(clients, library, choose_labelled(drawn))
    await await_quiet(base)
    print(f"{library_id}: there after {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    return Album(base, clients, people, await read_standing(base, people))


async def measure_find_more(album: Album, max_per_person: int | None, min_confidence: float | None) -> Timed:
    """Ask about everybody, as if nothing were being asked."""
    await forget_questions(album)
    begun = time.perf_counter()
    await album.clients.find_more(max_per_person, min_confidence)
    seconds = time.perf_counter() - begun
    pairs = await read_questions(album.base, album.people)
    return Timed(score_pairs(album.drawn, pairs, album.before.find_wanted(album.drawn)), seconds)


async def measure_assign(album: Album) -> Timed:
    """Let a machine assign; held against the faces that were wanted just before."""
    wanted = (await read_standing(album.base, album.people)).find_wanted(album.drawn)
    begun = time.perf_counter()
    await album.clients.assign_known(TARGET_PRECISION)
    seconds = time.perf_counter() - begun
    pairs = await read_machine_assigned(album.base, album.people)
    return Timed(score_pairs(album.drawn, pairs, wanted), seconds)


async def run_seed(album: Album) -> tuple[Pairs, float]:
    """What the seed design finds of everybody, and in how many seconds."""
    await prepare_seed(album.base)
    random = np.random.default_rng(0)
    found: list[tuple[UUID, UUID, float]] = []
    begun = time.perf_counter()
    for person_id in album.people.ids.values():
        found += (await find_more_as_seed(album.base, album.library_id, person_id, random)).found
    return make_pairs(album.people, found), time.perf_counter() - begun


async def measure_rounds(album: Album, max_per_person: int, min_confidence: float) -> Timed:
    """Ask about everybody, answer all of it by the truth, and ask again: what both rounds found, of what was wanted at first.

    People with more faces than may be asked about at once need it.
    """
    begun = time.perf_counter()
    first = await ask_anew(album, max_per_person, min_confidence)
    await answer_by_truth(album, await _list_open(album))
    second = await ask_anew(album, max_per_person, min_confidence)
    seconds = time.perf_counter() - begun
    both = Pairs(
        np.concatenate([first.faces, second.faces]),
        np.concatenate([first.persons, second.persons]),
        np.concatenate([first.confidences, second.confidences]),
    )
    return Timed(score_pairs(album.drawn, both, album.before.find_wanted(album.drawn)), seconds)


async def answer_some(album: Album) -> int:
    """Answer 500 questions by the truth, taken by chance among those asked by default; how many were right."""
    await forget_questions(album)
    await album.clients.find_more(None, None)
    questions = await _list_open(album)
    chosen = np.random.default_rng(ANSWERING_SEED).choice(len(questions), min(ANSWERS, len(questions)), replace=False)
    return await answer_by_truth(album, [questions[at] for at in chosen])


async def answer_by_truth(album: Album, questions: Sequence[OpenQuestion]) -> int:
    """Answer these, and wait until everything follows; how many were right."""
    reviews = [
        suggestions_pb2.SuggestionReview(
            suggestion_id=str(each.suggestion_id),
            etag=str(each.version),
            answer=suggestions_pb2.REVIEW_ANSWER_ACCEPT if each.right else suggestions_pb2.REVIEW_ANSWER_REJECT,
        )
        for each in questions
    ]
    await album.clients.answer(reviews)
    await album.clients.await_calibration(len(reviews))
    await await_quiet(album.base)
    return sum(each.right for each in questions)


async def _list_open(album: Album) -> list[OpenQuestion]:
    numbers, persons, truth = album.people.library.numbers, album.people.numbers, album.drawn.truth
    async with album.base.database.snapshot() as tx:
        rows = await tx.rows(
            select(suggestions.c.suggestion_id, suggestions.c.face_id, suggestions.c.person_id, suggestions.c.version)
            .where(suggestions.c.library_id == album.library_id, suggestions.c.state == "PENDING")
            .order_by(suggestions.c.face_id)
        )
    return [
        OpenQuestion(row.suggestion_id, row.version, bool(truth[numbers[row.face_id]] == persons[row.person_id]))
        for row in rows
    ]


async def ask_anew(album: Album, max_per_person: int | None, min_confidence: float | None) -> Pairs:
    """Questions made by what is known now alone: those that were open before are forgotten."""
    await forget_questions(album)
    await album.clients.find_more(max_per_person, min_confidence)
    return await read_questions(album.base, album.people)


async def forget_questions(album: Album) -> None:
    """As if nothing were being asked; answers stay."""
    async with album.base.database.transaction() as tx:
        await tx.execute(
            delete(suggestions).where(
                suggestions.c.library_id == album.library_id, suggestions.c.state.in_(["PENDING", "EXPIRED"])
            )
        )


@dataclass(frozen=True, slots=True)
class Missing:
    """Of one person: how many faces are missing in truth, and by an estimate with its interval."""

    true: int
    estimate: float
    low: float
    high: float

    @property
    def within_20pct(self) -> bool:
        """Whether the estimate is off by at most a fifth of the truth."""
        return abs(self.estimate - self.true) <= 0.2 * self.true

    @property
    def inside(self) -> bool:
        """Whether the truth lies in the interval."""
        return self.low <= self.true <= self.high


async def estimate_everybody(album: Album) -> list[Missing]:
    """EstimateCompleteness of each labelled person who has faces left."""
    left = count_left(album.drawn, await read_standing(album.base, album.people), album.people.ids)
    found = []
    for number, person_id in album.people.ids.items():
        if left[number]:
            said = await album.clients.estimate(person_id)
            found.append(Missing(left[number], said.missing, said.missing_low, said.missing_high))
    return found


def count_left(drawn: DrawnFaces, standing: Standing, ids: Mapping[int, UUID]) -> dict[int, int]:
    """Unassigned faces of each labelled person."""
    return {number: int(((drawn.truth == number) & ~standing.assigned).sum()) for number in ids}
