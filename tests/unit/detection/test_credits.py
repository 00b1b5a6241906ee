"""How many photos a worker has at a detection server."""

from __future__ import annotations

import asyncio

from services.detection.adapters.looker import Credits


async def test_nothing_is_sent_before_the_server_allows_it() -> None:
    credit = Credits()
    taking = asyncio.create_task(credit.take())
    await asyncio.sleep(0)
    assert not taking.done()
    credit.allow(1)
    await taking


async def test_a_reply_makes_room_for_one_more() -> None:
    credit = Credits()
    credit.allow(2)
    await credit.take()
    await credit.take()
    third = asyncio.create_task(credit.take())
    await asyncio.sleep(0)
    assert not third.done()
    credit.give_back()
    await third


async def test_a_smaller_window_is_kept_to() -> None:
    credit = Credits()
    credit.allow(3)
    for _ in range(3):
        await credit.take()
    credit.allow(1)
    waiting = asyncio.create_task(credit.take())
    credit.give_back()
    credit.give_back()
    await asyncio.sleep(0)
    assert not waiting.done()
    credit.give_back()
    await waiting
