"""The questions Kith asks, held against the truth, and what finding them costs, beside the seed design on the same data.

A library of 100,000 generated faces (profile r100, some 5,000 people, 2 % of them labelled by five faces each, chosen by
chance), a photo each; the generator's near copies lie in near-duplicate photos. The calls are those of a client to services in
processes of their own over PostgreSQL and the embedded Qdrant. The pack is given no calibration, so that ArcFace's holds until
answers are there.

``find_more``: ``precision`` of the questions and ``recall`` of the wanted faces, which are the unassigned ones of cosine 0.35
and more to their person's best prototype. One is found if it is asked about, or the same face in a near-duplicate photo is: one
answer settles both. ``recall_of_persons`` is the mean over people; ``/two_rounds`` is of two jobs, the questions of the first
answered in between. ``auto_assign``: the same of what AssignKnownFaces assigned. ``calibration``: ``ece`` of the questions that
are asked after 500 answers and were not among them, by default; ``ece_from_floor`` of all that reach the floor of questions.
``completeness``: on which share of people the estimate is within a fifth of the faces that are missing, after those answers,
and before any (``/cold``); ``/10+`` of people who miss so many.

``find_more_1m``, with SIZE=1m alone: one person of a thousand faces among a million nobody has, beside the seed design with
each of these faces (``/seed``, once: ``speed_vs_one_by_one`` is by that) and with a sample of fifty (``/seed_sampled``,
``speed_vs_sampled``). Kith's prototypes may bring 1,000 hits each, as the seed's may; ``/default`` 200, ``/most`` 5,000. The
embedded Qdrant builds no index and compares with every face: most of what either takes is that.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from bench.areas.suggestions.faces import DrawnFaces, draw_faces
from bench.areas.suggestions.figures import score_pairs
from bench.areas.suggestions.finding import (
    MAX_PER_PERSON,
    MIN_CONFIDENCE,
    Album,
    Missing,
    Timed,
    answer_some,
    ask_anew,
    count_left,
    estimate_everybody,
    make_album,
    measure_assign,
    measure_find_more,
    measure_rounds,
    run_seed,
)
from bench.areas.suggestions.largest import FACES as LARGEST_FACES
from bench.areas.suggestions.largest import OF_THE_PERSON, Cost, measure_largest
from bench.areas.suggestions.people import Pairs
from bench.areas.suggestions.seed_design import SURE
from bench.areas.suggestions.serving import EVERYBODY, PEOPLE, QDRANT_TIMEOUT_S, running
from bench.options import BenchOptions
from bench.rows import BenchRow, make_row
from deploy.local.ports import StackPorts
from deploy.local.stack import start_stores
from shared.config import Settings
from shared.faces.calibration_fit import measure_reliability
from shared.foundation import Foundation, open_foundation
from shared.migrate import migrate_database

FACES: Final = 100_000
LARGEST: Final = "1m"
MANY_MISSING: Final = (10, 100)

Answer = TypeVar("Answer")
Work = Callable[[Foundation, StackPorts], Coroutine[object, object, Answer]]


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``find_more``, ``auto_assign``, ``calibration`` and ``completeness``; with the size 1m, ``find_more_1m`` alone.

    Raises ``ValueError`` for another size.
    """
    if options.size not in (None, LARGEST):
        raise ValueError(f"no such size: {options.size} (there is: {LARGEST})")
    command = options.command("suggestions")
    if options.size == LARGEST:
        return measure_million(options.repeat, command)
    return measure_library(FACES, command)


def measure_library(count: int, command: str) -> list[BenchRow]:
    """Everything but speed, on a library of so many faces."""
    with tempfile.TemporaryDirectory() as name:
        drawn = draw_faces(Path(name), count)

        async def work(base: Foundation, ports: StackPorts) -> list[BenchRow]:
            async with AsyncExitStack() as stack:
                asked = await make_album(base, "asked", drawn, ports, stack)
                rows = [*await _ask(asked, command), *await _answer(asked, command)]
                assigned = await make_album(base, "assigned", drawn, ports, stack)
                rows += _describe("auto_assign", await measure_assign(assigned), command)
                again = await make_album(base, "again", drawn, ports, stack)
                twice = await measure_rounds(again, MAX_PER_PERSON, MIN_CONFIDENCE)
                return [*rows, *_describe("find_more/two_rounds", twice, command)]

        return _with_services(work, EVERYBODY, Path(name))


def measure_million(repeat: int, command: str) -> list[BenchRow]:
    """One person among a million faces."""
    with tempfile.TemporaryDirectory() as name:
        drawn = draw_faces(Path(name), LARGEST_FACES + OF_THE_PERSON, with_shots=False)

        async def work(base: Foundation, ports: StackPorts) -> list[BenchRow]:
            race = await measure_largest(base, drawn, ports, repeat)
            runs = {"find_more_1m": race.kith, "find_more_1m/default": race.usual, "find_more_1m/most": race.most}
            rows: list[BenchRow] = []
            for name, costs in runs.items():
                whole = [race.one_by_one.seconds / each.seconds for each in costs]
                sampled = [seed.seconds / each.seconds for each, seed in zip(costs, race.sampled, strict=True)]
                rows += [
                    make_row(name, "speed_vs_one_by_one", whole, command),
                    make_row(name, "speed_vs_sampled", sampled, command),
                    *_describe_costs(name, costs, command),
                ]
            return [
                *rows,
                *_describe_costs("find_more_1m/seed", [race.one_by_one], command),
                *_describe_costs("find_more_1m/seed_sampled", race.sampled, command),
            ]

        return _with_services(work, PEOPLE, Path(name))


async def _ask(album: Album, command: str) -> list[BenchRow]:
    """What is found before anybody has answered."""
    wanted = album.before.find_wanted(album.drawn)
    seed, seconds = await run_seed(album)
    sure = seed.take(seed.confidences >= SURE)
    return [
        *_describe("find_more", await measure_find_more(album, MAX_PER_PERSON, MIN_CONFIDENCE), command),
        *_describe("find_more/default", await measure_find_more(album, None, None), command),
        *_describe("find_more/seed", Timed(score_pairs(album.drawn, seed, wanted), seconds), command),
        *_describe("auto_assign/seed", Timed(score_pairs(album.drawn, sure, wanted), seconds), command),
        *_describe_calibration("calibration/seed", album.drawn, seed, "", command),
        *_describe_estimates("completeness/cold", await estimate_everybody(album), command),
        *_describe_estimates("completeness/seed", _count_as_seed(album, seed), command),
    ]


async def _answer(album: Album, command: str) -> list[BenchRow]:
    """What 500 answers make of it."""
    rows = _describe_calibration("calibration/cold", album.drawn, await ask_anew(album, None, None), "", command)
    right = await answer_some(album)
    asked = await ask_anew(album, None, None)
    return [
        *rows,
        make_row("calibration", "answers_yes", [right], command),
        *_describe_calibration("calibration", album.drawn, asked, "", command),
        *_describe_calibration(
            "calibration", album.drawn, await ask_anew(album, MAX_PER_PERSON, 0.0), "_from_floor", command
        ),
        *_describe_estimates("completeness", await estimate_everybody(album), command),
        *_describe("auto_assign/answered", await measure_assign(album), command),
    ]


def _count_as_seed(album: Album, seed: Pairs) -> list[Missing]:
    """The seed has no estimate: what it found is all that it knows to be missing."""
    left = count_left(album.drawn, album.before, album.people.ids)
    found = {number: int((seed.persons == number).sum()) for number in left}
    return [Missing(left[number], found[number], found[number], found[number]) for number in left if left[number]]


def _describe(row: str, timed: Timed, command: str) -> list[BenchRow]:
    found = timed.found
    figures = {
        "precision": found.precision,
        "recall": found.recall,
        "recall_of_persons": found.recall_of_persons,
        "pairs": found.pairs,
        "seconds": timed.seconds,
    }
    return _tell([make_row(row, metric, [value], command) for metric, value in figures.items()])


def _describe_calibration(row: str, drawn: DrawnFaces, pairs: Pairs, suffix: str, command: str) -> list[BenchRow]:
    found = measure_reliability(pairs.confidences, pairs.right(drawn))
    figures = {"ece": found.error, "brier": found.brier, "questions": found.answers}
    return _tell([make_row(row, f"{metric}{suffix}", [value], command) for metric, value in figures.items()])


def _describe_estimates(row: str, estimates: Sequence[Missing], command: str) -> list[BenchRow]:
    rows = []
    for suffix, least in (("", 1), *((f"/{least}+", least) for least in MANY_MISSING)):
        of_these = [each for each in estimates if each.true >= least]
        if of_these:
            rows += [
                make_row(row + suffix, "within_20pct", [_share([each.within_20pct for each in of_these])], command),
                make_row(row + suffix, "inside_interval", [_share([each.inside for each in of_these])], command),
                make_row(row + suffix, "persons", [len(of_these)], command),
            ]
    return _tell(rows)


def _describe_costs(row: str, costs: Sequence[Cost], command: str) -> list[BenchRow]:
    figures: dict[str, list[float]] = {
        "seconds": [cost.seconds for cost in costs],
        "seconds_in_qdrant": [cost.searching for cost in costs],
        "qdrant_calls": [cost.qdrant_calls for cost in costs],
        "statements": [cost.statements for cost in costs],
        "job_statements": [cost.job_statements for cost in costs],
        "asked": [cost.asked for cost in costs],
        "precision": [cost.right / max(cost.asked, 1) for cost in costs],
    }
    return _tell([make_row(row, metric, values, command) for metric, values in figures.items()])


def _tell(rows: list[BenchRow]) -> list[BenchRow]:
    """The same rows, told as they come: a run takes minutes."""
    for row in rows:
        print(f"{row.row} {row.metric}: {row.value:g}", file=sys.stderr, flush=True)
    return rows


def _share(flags: Sequence[bool]) -> float:
    return float(np.mean(flags))


def _with_services(work: Work[Answer], processes: Sequence[str], folder: Path) -> Answer:
    """What ``work`` answers, with the stores and these processes around it."""
    with start_stores(folder / "stores", fsync=True) as stores:
        ports = StackPorts(stores.plan.port_base)
        settings = Settings.model_validate(
            {
                # A million rows go in by one COPY.
                "database": {"url": stores.env["KITH_DATABASE_URL"], "statement_timeout_ms": 600_000},
                "qdrant": {
                    "url": stores.env["KITH_QDRANT_URL"],
                    "allow_destructive": True,
                    "timeout_s": QDRANT_TIMEOUT_S,
                },
            }
        )

        async def run() -> Answer:
            await migrate_database(settings.database)
            async with AsyncExitStack() as stack:
                base = await open_foundation(settings, stack, "bench")
                async with running(processes, stores.env, ports, folder):
                    return await work(base, ports)

        return asyncio.run(run())
