"""WatchChanges over real gRPC and PostgreSQL: no gap, no double, from any cursor, on any server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from itertools import chain
from uuid import UUID

import pytest
from sqlalchemy import select, update

from kith.persons.v1 import changes_pb2
from services.persons.convert_changes import to_cursor
from services.persons.domain.watching import PAGE, ChangeWatch
from services.persons.numbering import number_ledgers
from services.persons.repository.ledger_pages import list_changes_after
from services.persons.repository.ledger_positions import (
    get_last_position,
    list_unnumbered,
    number_batch,
    number_changes,
)
from services.persons.server import start
from shared.config import Settings
from shared.db.named_locks import lock_until_end
from shared.db.notify import Listener
from shared.db.tables_persons import changes
from shared.errors import InvalidRequest, Reason, Unavailable
from shared.foundation import Foundation
from shared.rpc.channel import open_channel
from tests.integration.conftest import Running, eventually
from tests.integration.library import random_vectors, seed_faces
from tests.integration.persons.reading import LedgerReader, enter_change, enter_changes
from tests.integration.waiting import somebody_waits


@pytest.fixture
async def ledger(running: Running) -> LedgerReader:
    return LedgerReader(await running.server("persons", start))


async def test_a_watch_without_a_cursor_begins_now(ledger: LedgerReader) -> None:
    await ledger.create_person("Anna")
    async with ledger.watching() as watcher:
        made = [(await ledger.create_person(name)).change_id for name in ("Bert", "Cleo")]
        found = await watcher.take(2)
    assert [change.id for change in found] == made
    assert found == [await ledger.get_change(change_id) for change_id in made]


async def test_many_writers_and_late_commits_leave_no_gap_and_no_double(
    ledger: LedgerReader, running: Running, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(40), with_collections=False)
    servers = [ledger, LedgerReader(await running.server("persons", start))]
    persons = [await ledger.create(f"Person {number}") for number in range(4)]
    first = (await ledger.page()).changes[0]
    async with AsyncExitStack() as opened:
        watchers = [await opened.enter_async_context(server.watching(first.cursor)) for server in servers]
        # Written before everything else, so they have the smallest ids and sequence numbers; committed after it.
        late = await opened.enter_async_context(AsyncExitStack())
        held = []
        for _ in range(3):
            tx = await late.enter_async_context(base.database.transaction())
            held.append(str(await enter_change(base, tx)))

        async def assign(writer: int) -> list[str]:
            return [
                (await servers[(writer + turn) % 2].assign(face_id, persons[turn % 4])).change_id
                for turn, face_id in enumerate(seeded.face_ids[writer::8])
            ]

        made = list(chain.from_iterable(await asyncio.gather(*(assign(writer) for writer in range(8)))))
        seen = [await watcher.take(len(made)) for watcher in watchers]
        await late.aclose()
        for watcher, found in zip(watchers, seen, strict=True):
            found += await watcher.take(len(held))
        # Nothing is left over: the next one is new.
        last = (await ledger.create_person("The last")).change_id
        assert [(await watcher.next()).id for watcher in watchers] == [last, last]
    assert seen[0] == seen[1]
    ids = [change.id for change in seen[0]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {*made, *held}
    assert set(ids[-len(held) :]) == set(held)

    for place in range(0, len(ids), 7):
        async with servers[place % 2].watching(seen[0][place].cursor) as watcher:
            rest = await watcher.take(len(ids) - place)
        assert [change.id for change in rest] == [*ids[place + 1 :], last]


async def test_positions_count_from_one_in_each_library(base: Foundation, ledger: LedgerReader) -> None:
    mine = await enter_changes(base, 3)
    await enter_changes(base, 2, library_id="other")
    await asyncio.gather(*(ledger.page() for _ in range(8)), *(ledger.page(library_id="other") for _ in range(8)))
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(changes).order_by(changes.c.library_id, changes.c.sequence))
    assert [(row.library_id, row.position) for row in rows] == [
        ("default", 1),
        ("default", 2),
        ("default", 3),
        ("other", 1),
        ("other", 2),
    ]
    async with ledger.watching(to_cursor("default", 1)) as watcher:
        assert [change.id for change in await watcher.take(2)] == mine[1:]


async def test_readers_that_number_at_once_take_turns(base: Foundation) -> None:
    made = await enter_changes(base, 2)

    async with base.database.transaction() as tx:
        assert await number_batch(tx, "default") == 2
        made += await enter_changes(base, 2)
        second = asyncio.ensure_future(number_changes(base.database, "default"))
        await eventually(lambda: somebody_waits(base, kind="advisory"))
    await second
    async with base.database.transaction() as tx:
        found = await list_changes_after(tx, "default", 0, 10)
    assert [(entry.position, str(entry.change_id)) for entry in found] == list(enumerate(made, start=1))


async def test_ledgers_that_nobody_reads_are_numbered_by_the_workers(base: Foundation) -> None:
    await enter_changes(base, 3)
    await enter_changes(base, 2, library_id="other")

    async def numbered() -> bool:
        async with base.database.transaction() as tx:
            return not await list_unnumbered(tx)

    assert not await numbered()
    working = asyncio.create_task(number_ledgers(base.database))
    await eventually(numbered)
    working.cancel()
    async with base.database.transaction() as tx:
        assert [await get_last_position(tx, library_id) for library_id in ("default", "other")] == [3, 2]


async def test_a_watcher_far_behind_gets_page_after_page_without_waiting(base: Foundation) -> None:
    made = await enter_changes(base, 2 * PAGE + 7)
    patient = ChangeWatch(base.database, base.listener, poll_s=3600)
    async with aclosing(patient.watch("default", 1)) as entries, asyncio.timeout(20):
        assert [str((await anext(entries)).change_id) for _ in made[1:]] == made[1:]


async def test_a_cursor_beyond_the_end_waits(base: Foundation, ledger: LedgerReader) -> None:
    await enter_changes(base, 1)
    async with ledger.watching(to_cursor("default", 3)) as watcher:
        made = await enter_changes(base, 4)
        assert (await watcher.next()).id == made[2]


@pytest.mark.parametrize(
    "cursor",
    ["!", "é", "AAAA", to_cursor("other", 1), to_cursor("default", 1)[:-1], "1" * 5000],
    ids=["no base64", "no ASCII", "other text", "another library's", "cut short", "long"],
)
async def test_a_cursor_that_is_none_is_refused_by_name(ledger: LedgerReader, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async with ledger.watching(cursor) as watcher:
            await watcher.next()
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
    assert [violation.field for violation in refused.value.violations] == ["after_cursor"]


async def test_a_stopping_server_ends_the_watch_and_another_goes_on(
    ledger: LedgerReader, settings: Settings, stack: AsyncExitStack
) -> None:
    stopping = await start(settings, stack)
    await stopping.readiness.wait_serving()
    channel = open_channel(f"127.0.0.1:{stopping.port}", settings.rpc)
    stack.push_async_callback(channel.close)
    first = (await ledger.create_person("Anna")).change_id
    async with LedgerReader(channel).watching((await ledger.get_change(first)).cursor) as watcher:
        second = (await ledger.create_person("Bert")).change_id
        seen = await watcher.next()
        assert seen.id == second
        await stopping.drain()
        with pytest.raises(Unavailable) as ended:
            await watcher.next()
    assert ended.value.reason is Reason.DRAINING
    third = (await ledger.create_person("Cleo")).change_id
    async with ledger.watching(seen.cursor) as watcher:
        assert (await watcher.next()).id == third


async def test_a_change_that_is_being_undone_makes_no_reader_wait(base: Foundation, ledger: LedgerReader) -> None:
    made = await enter_changes(base, 3)
    async with ledger.watching() as watcher:
        fresh = await enter_changes(base, 1)
        assert (await watcher.next()).id == fresh[0]
        async with base.database.transaction() as undoing:
            async with base.database.transaction() as tx:
                # Nobody numbers it before it is being undone.
                await lock_until_end(tx, "changes/default")
                busy = await enter_changes(base, 1)
                await undoing.execute(
                    update(changes).where(changes.c.change_id == UUID(busy[0])).values(undone_by=None)
                )
            beside = await enter_changes(base, 1)
            assert (await watcher.next()).id == beside[0]
            assert [bool(change.cursor) for change in (await ledger.page(page_size=3)).changes] == [True, False, True]
        assert (await watcher.next()).id == busy[0]
    assert len({(await ledger.get_change(change_id)).cursor for change_id in (*made, *fresh, *busy, *beside)}) == 6


async def test_a_change_that_is_referred_to_is_numbered_meanwhile(base: Foundation, ledger: LedgerReader) -> None:
    async with ledger.watching() as watcher:
        referred = await enter_changes(base, 1)
        async with base.database.transaction() as tx:
            await enter_change(base, tx, undoes=UUID(referred[0]))
            assert (await watcher.next()).id == referred[0]


async def test_a_lost_notification_costs_a_moment_and_no_change(base: Foundation) -> None:
    deaf = ChangeWatch(base.database, Listener(base.settings.database), poll_s=0.05)
    made = await enter_changes(base, 1)
    async with aclosing(deaf.watch("default", 0)) as entries, asyncio.timeout(20):
        assert str((await anext(entries)).change_id) == made[0]
        waiting = asyncio.ensure_future(anext(entries))
        made += await enter_changes(base, 1)
        assert str((await waiting).change_id) == made[1]


async def test_a_commit_wakes_the_watchers_of_its_library(base: Foundation) -> None:
    patient = ChangeWatch(base.database, base.listener, poll_s=3600)
    async with aclosing(patient.watch("default", 0)) as entries, asyncio.timeout(20):
        for _ in range(5):
            waiting = asyncio.ensure_future(anext(entries))
            made = await enter_changes(base, 1)
            assert str((await waiting).change_id) == made[0]


async def test_a_watch_that_nobody_reads_any_more_leaves_the_server_well(ledger: LedgerReader) -> None:
    call = ledger.changes.WatchChanges(changes_pb2.WatchChangesRequest())
    await call.initial_metadata()
    call.cancel()
    made = (await ledger.create_person("Anna")).change_id
    assert (await ledger.get_change(made)).id == made
