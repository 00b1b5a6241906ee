"""Room for decoded photos, in bytes."""

from __future__ import annotations

import asyncio

import pytest

from services.detection.domain.holding import ByteRoom


async def test_what_does_not_fit_waits_in_line() -> None:
    room = ByteRoom(100)
    assert await room.take(60) == 60
    large, small = asyncio.create_task(room.take(50)), asyncio.create_task(room.take(10))
    await asyncio.sleep(0)
    # The small one would fit, but came later.
    assert not large.done()
    assert not small.done()
    assert room.held == 60
    room.give_back(60)
    assert (await large, await small) == (50, 10)
    assert room.held == 60


async def test_what_is_larger_than_the_room_gets_all_of_it() -> None:
    room = ByteRoom(100)
    held = await room.take(500)
    assert held == 100
    waiting = asyncio.create_task(room.take(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    room.give_back(held)
    assert await waiting == 1


async def test_who_leaves_the_line_lets_the_next_one_in() -> None:
    room = ByteRoom(100)
    await room.take(60)
    large, small = asyncio.create_task(room.take(50)), asyncio.create_task(room.take(30))
    await asyncio.sleep(0)
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    assert await small == 30
    assert room.held == 90


async def test_who_leaves_just_when_let_in_gives_its_room_back() -> None:
    room = ByteRoom(100)
    await room.take(100)
    waiting = asyncio.create_task(room.take(70))
    await asyncio.sleep(0)
    room.give_back(100)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert room.held == 0


async def test_waiters_cancelled_in_the_step_in_which_room_comes_free_take_nothing_with_them() -> None:
    room = ByteRoom(100)
    held = await room.take(100)
    waiting = [asyncio.create_task(room.take(60)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    # As when a stream is closed: those who hold and those who wait are cancelled together.
    room.give_back(held)
    assert {type(answer) for answer in await asyncio.gather(*waiting, return_exceptions=True)} == {
        asyncio.CancelledError
    }
    assert room.held == 0
    assert await room.take(100) == 100


async def test_a_cancelled_waiter_does_not_hold_up_the_one_behind_it() -> None:
    room = ByteRoom(100)
    held = await room.take(100)
    first, second = asyncio.create_task(room.take(90)), asyncio.create_task(room.take(90))
    await asyncio.sleep(0)
    first.cancel()
    room.give_back(held)
    assert await second == 90
    assert room.held == 90
