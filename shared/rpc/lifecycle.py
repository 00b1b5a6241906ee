"""From start to exit, the same for every server and worker.

``python -m services.persons.server`` is ``sys.exit(run_process("persons.server", start))``, where::

    async def start(settings: Settings, stack: AsyncExitStack) -> RpcServer:
        database = await stack.enter_async_context(open_database(settings.database))
        ...
        return server

SIGTERM or SIGINT drains what ``start`` returned, closes the stack in reverse and exits 0; a second signal exits at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol, runtime_checkable

import structlog
from pydantic import ValidationError

from shared.config import Settings, TelemetrySettings, load_settings
from shared.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drainable(Protocol):
    """What a process runs."""

    async def drain(self) -> None:
        """Take nothing new, finish what is in hand, then return."""
        ...


@runtime_checkable
class Waitable(Protocol):
    """A :class:`Drainable` that can also end by itself, which is a failure of the process."""

    async def wait(self) -> None:
        """Returns, or raises why, when it no longer runs."""
        ...


Start = Callable[[Settings, AsyncExitStack], Awaitable[Drainable]]


def run_process(name: str, start: Start, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run until told to stop. Returns the exit code: 0 after a drain, 1 if it could not start or went on no longer.

    What goes wrong at the start is one log line: wrong settings as a list of variables, else the error's own sentence
    (with its traceback at level DEBUG).
    """
    try:
        settings = load()
        configure_logging(settings.telemetry, process=name)
    except ValueError as error:
        configure_logging(TelemetrySettings(), process=name)
        log.error("configuration is wrong", variables=wrong_variables(error))
        return 1
    return asyncio.run(_Process(name, start, settings).run())


def wrong_variables(error: ValueError) -> list[str]:
    """One ``KITH_...: what is wrong`` per fault, without the value, which may be a secret."""
    if not isinstance(error, ValidationError):
        return [str(error)]
    return [
        f"{'_'.join(('KITH', *(str(part).upper() for part in fault['loc'])))}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    ]


class _Process:
    """One run. Everything, closing included, happens in one task, as task groups and cancel scopes demand."""

    def __init__(self, name: str, start: Start, settings: Settings) -> None:
        self._name = name
        self._start = start
        self._settings = settings
        self._stop = asyncio.Event()
        self._starting: asyncio.Task[int] | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._live(), name=self._name)
        self._starting = task
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            return await task
        except asyncio.CancelledError:
            if self._starting is None or not self._stop.is_set():
                raise
            log.info("stopped before it had started")
            return 0
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + number)
        log.info("stopping", signal=number.name)
        self._stop.set()
        if self._starting is not None:
            self._starting.cancel()

    async def _live(self) -> int:
        try:
            async with AsyncExitStack() as stack:
                try:
                    running = await self._start(self._settings, stack)
                except Exception as error:
                    self._report_failure("could not start", error)
                    return 1
                self._starting = None
                log.info("started")
                failed = await self._until_stopped(running)
                await running.drain()
        except Exception as error:
            self._report_failure("could not stop cleanly", error)
            return 1
        log.info("stopped")
        return 1 if failed else 0

    async def _until_stopped(self, running: Drainable) -> bool:
        """Wait for a signal; true if ``running`` ended by itself instead."""
        stopping = asyncio.create_task(self._stop.wait())
        ending = asyncio.create_task(_end_of(running))
        await asyncio.wait((stopping, ending), return_when=asyncio.FIRST_COMPLETED)
        failed = not self._stop.is_set()
        if failed:
            log.error("ended by itself", exc_info=ending.exception())
        for task in (stopping, ending):
            task.cancel()
        await asyncio.gather(stopping, ending, return_exceptions=True)
        return failed

    def _report_failure(self, what: str, error: BaseException) -> None:
        verbose = logging.getLogger().isEnabledFor(logging.DEBUG)
        log.error(what, error=f"{type(error).__name__}: {error}", exc_info=error if verbose else None)


async def _end_of(running: Drainable) -> None:
    """Returns when ``running`` no longer runs; never, if it cannot say."""
    if isinstance(running, Waitable):
        await running.wait()
    else:
        await asyncio.Event().wait()
