"""Waiting for a notification: what wakes it, and what must not be lost."""

from __future__ import annotations

import asyncio

import pytest

from shared.db.notify import Subscription


async def test_an_event_between_two_waits_is_not_lost() -> None:
    subscription = Subscription(None)
    subscription.deliver("anything")
    assert await subscription.wait(60)
    assert not await subscription.wait(0.001)


async def test_another_payload_does_not_wake() -> None:
    subscription = Subscription("mine")
    subscription.deliver("yours")
    assert not await subscription.wait(0.001)
    subscription.deliver("mine")
    assert await subscription.wait(60)


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_that_comes_with_the_event_is_obeyed(steps: int) -> None:
    """Whatever has run between the event and the cancellation, a loop that waits again and again ends."""
    subscription = Subscription(None)

    async def wait_for_ever() -> None:
        while True:
            await subscription.wait(60)

    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    subscription.wake()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert task.cancelled()
