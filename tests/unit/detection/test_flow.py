"""Windows and batches over streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.detection.domain.flow import map_windowed, read_batches


async def numbers(count: int, taken: list[int] | None = None) -> AsyncGenerator[int, None]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


async def test_results_come_as_they_are_ready() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(number: int) -> int:
        await gates[number].wait()
        if number:
            gates[number - 1].set()
        return number

    gates[2].set()
    assert [result async for result in map_windowed(numbers(3), work, 3)] == [2, 1, 0]


async def test_no_item_is_taken_while_the_window_is_full() -> None:
    taken: list[int] = []

    async def work(number: int) -> int:
        return number

    async with aclosing(map_windowed(numbers(100, taken), work, 4)) as results:
        seen = [await anext(results) for _ in range(10)]
        # The tenth result is still in our hands: nine have made room.
        await asyncio.sleep(0)
        assert len(taken) <= 9 + 4
        assert sorted(seen) == list(range(10))


async def test_closing_cancels_the_work_in_hand() -> None:
    cancelled = 0
    begun = asyncio.Event()

    async def work(number: int) -> int:
        nonlocal cancelled
        if number == 0:
            return number
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return number

    results = map_windowed(numbers(4), work, 3)
    assert await anext(results) == 0
    await begun.wait()
    await asyncio.sleep(0)
    await results.aclose()
    assert cancelled >= 1


async def test_what_goes_wrong_in_the_stream_is_raised_after_the_results_before_it() -> None:
    broken_off = asyncio.Event()

    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        broken_off.set()
        raise OSError("gone")

    async def work(number: int) -> int:
        await broken_off.wait()
        await asyncio.sleep(0)
        return number

    results = map_windowed(broken(), work, 5)
    assert {await anext(results), await anext(results)} == {1, 2}
    with pytest.raises(OSError, match="gone"):
        await anext(results)


async def test_an_interruption_takes_no_more_but_hands_out_what_was_taken() -> None:
    taken: list[int] = []
    full, interrupted, finish = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def interrupt() -> None:
        await interrupted.wait()
        raise OSError("stopping")

    async def work(number: int) -> int:
        if number == 2:
            full.set()
        await finish.wait()
        return number

    seen: list[int] = []

    async def read() -> None:
        async for result in map_windowed(numbers(100, taken), work, 3, interrupt):
            seen.append(result)

    reading = asyncio.create_task(read())
    await full.wait()
    interrupted.set()
    await asyncio.sleep(0)
    finish.set()
    with pytest.raises(OSError, match="stopping"):
        await reading
    assert sorted(seen) == taken == [0, 1, 2]


async def test_an_interruption_reaches_a_reader_that_waits_for_items() -> None:
    interrupted = asyncio.Event()
    first = asyncio.Event()

    async def silent() -> AsyncGenerator[int, None]:
        yield 1
        first.set()
        await asyncio.Event().wait()

    async def interrupt() -> None:
        await interrupted.wait()
        raise OSError("stopping")

    async def work(number: int) -> int:
        return number

    results = map_windowed(silent(), work, 3, interrupt)
    assert await anext(results) == 1
    await first.wait()
    interrupted.set()
    with pytest.raises(OSError, match="stopping"):
        await anext(results)


async def test_an_interruption_after_the_last_item_is_none() -> None:
    interrupted = asyncio.Event()

    async def interrupt() -> None:
        await interrupted.wait()
        raise OSError("stopping")

    async def work(number: int) -> int:
        interrupted.set()
        await asyncio.sleep(0)
        return number

    assert [result async for result in map_windowed(numbers(2), work, 5, interrupt)] == [0, 1]


async def test_batches_are_full_but_the_last() -> None:
    assert [batch async for batch in read_batches(numbers(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch async for batch in read_batches(numbers(0), 3)] == []


async def test_items_before_an_error_are_handed_out() -> None:
    async def broken() -> AsyncGenerator[int, None]:
        for number in range(4):
            yield number
        raise OSError("gone")

    seen: list[list[int]] = []

    async def read() -> None:
        async for batch in read_batches(broken(), 3):
            seen.append(batch)

    with pytest.raises(OSError, match="gone"):
        await read()
    assert seen == [[0, 1, 2], [3]]


async def test_reading_ahead_is_bounded_and_ends_with_the_batches() -> None:
    taken: list[int] = []
    source = numbers(1000, taken)
    async with aclosing(read_batches(source, 5)) as batches:
        assert await anext(batches) == [0, 1, 2, 3, 4]
        await asyncio.sleep(0)
        assert len(taken) <= 11
    with pytest.raises(StopAsyncIteration):
        await anext(source)
