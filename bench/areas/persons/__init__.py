"""The persons service beside the bare echo: how many calls a second, and how much of what gRPC itself could do that is.

Service and echo stand ready at once and take short turns, each between two of the other, under the same clients and with
messages of the same sizes. A ratio is that of one turn to the mean of the echo's before and after it, and the figure the median
over all rounds, so that a machine whose speed wanders wanders out of it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.apart import Apart
from bench.areas.persons.clients import Calls, Clients
from bench.areas.persons.echo import method_answering, running_echo
from bench.areas.persons.library import DIMENSION, MODEL, SeededLibrary, Shape, seed_library
from bench.areas.persons.merging import measure_merge
from bench.areas.persons.requests import Lane, make_lanes
from bench.areas.persons.serving import running_server, running_worker
from bench.areas.persons.staleness import measure_staleness
from bench.options import BenchOptions
from bench.rate import Turn, find_percentiles
from bench.rows import BenchRow, make_row
from deploy.local.ports import StackPorts
from deploy.local.stack import start_stores
from shared.config import Settings
from shared.foundation import open_foundation
from shared.migrate import migrate_database

ROUNDS = 5
TURN_S = 2.0
WARM_UP_S = 1.0
CLIENTS = (8, 64)
LIBRARY = "default"
PERSONS = 2_000
# What AssignFace uses up in all its turns, with room.
UNASSIGNED = 60_000


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``GetPerson``, ``ListPersons``, ``ListPeople`` and ``AssignFace`` at ``/8`` and ``/64`` clients, ``merge_100k`` and
    ``staleness``.

    No worker runs beside the calls, as it would take its share of the cores from service and echo alike; beside the
    staleness it does.
    """
    command = options.command("persons")
    with tempfile.TemporaryDirectory() as name, start_stores(Path(name) / "stores", fsync=True) as stores:
        folder = Path(name)
        settings = Settings.model_validate(
            {
                "database": {"url": stores.env["KITH_DATABASE_URL"]},
                "qdrant": {"url": stores.env["KITH_QDRANT_URL"], "allow_destructive": True},
            }
        )
        library = asyncio.run(prepare_library(settings))
        ports = StackPorts(stores.plan.port_base)
        with running_server(stores.env, ports, folder) as target:
            rows = measure_calls(target, library, ROUNDS * options.repeat, command)
            # Once only, whatever the repeat: afterwards they are one person.
            merge = asyncio.run(measure_merge(settings, target))
            with running_worker(stores.env, ports, folder):
                stale = asyncio.run(measure_staleness(settings, target))
    return [
        *rows,
        make_row("merge_100k", "seconds", [merge.seconds], command),
        make_row("merge_100k", "slowest_read_ms", [merge.slowest_read * 1000], command),
        make_row("staleness", "p50_ms", [find_percentiles([stale])[0]], command),
        make_row("staleness", "p99_ms", [find_percentiles([stale])[1]], command),
    ]


async def prepare_library(settings: Settings) -> SeededLibrary:
    """Two thousand people with twenty to sixty faces each, three hundred unnamed clusters."""
    await migrate_database(settings.database)
    shape = Shape(
        persons=[20 + 17 * number % 41 for number in range(PERSONS)],
        clusters=[3 + 7 * number % 18 for number in range(300)],
        unassigned=UNASSIGNED,
    )
    async with AsyncExitStack() as stack:
        base = await open_foundation(settings, stack, "bench")
        await base.collections.create_missing(MODEL, DIMENSION)
        return await seed_library(base, LIBRARY, shape)


def measure_calls(target: str, library: SeededLibrary, rounds: int, command: str) -> list[BenchRow]:
    """Every call, at every number of clients, against the echo."""
    lanes = asyncio.run(make_lanes(target, library, len(CLIENTS)))
    rows: list[BenchRow] = []
    with running_echo() as echo:
        for lane in lanes:
            for calls, clients in zip(lane.calls, CLIENTS, strict=True):
                turns, ratios = compare_with_echo(target, echo, lane, calls, clients, rounds)
                p50, p99 = find_percentiles(turns)
                row = f"{lane.row}/{clients}"
                rows += [
                    make_row(row, "rps", [turn.per_second for turn in turns], command),
                    make_row(row, "p50_ms", [p50], command),
                    make_row(row, "p99_ms", [p99], command),
                    make_row(row, "ratio_to_echo", ratios, command),
                ]
    return rows


def compare_with_echo(
    target: str, echo: str, lane: Lane, calls: Calls, clients: int, rounds: int
) -> tuple[Sequence[Turn], Sequence[float]]:
    """The service's turns, and each one's share of the echo's rate beside it."""
    alike = Calls(method_answering(lane.answer_bytes), calls.requests)
    turns: list[Turn] = []
    ratios: list[float] = []
    with Apart(Clients, target, calls, clients) as asking, Apart(Clients, echo, alike, clients) as echoing:
        asking.take_turn(WARM_UP_S)
        echoing.take_turn(WARM_UP_S)
        before = echoing.take_turn(TURN_S).per_second
        for _ in range(rounds):
            turns.append(asking.take_turn(TURN_S))
            after = echoing.take_turn(TURN_S).per_second
            ratios.append(turns[-1].per_second / statistics.mean((before, after)))
            before = after
    return turns, ratios
