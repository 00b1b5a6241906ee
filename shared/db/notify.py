"""Wake-ups through PostgreSQL's NOTIFY: sent on commit, heard by one connection per process.

A notification is a hint, never the truth: whoever waits for one also looks by itself from time to time, so a lost one costs
a moment, not a result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
import structlog
from sqlalchemy import make_url, text

from shared.config import DatabaseSettings
from shared.db.engine import Transaction
from shared.db.query import Query

log = structlog.get_logger(__name__)

RECONNECT_S = 1.0
_NOTIFY = Query(text("SELECT pg_notify(:channel, :payload)"))


class Channel(StrEnum):
    """What can be waited for."""

    JOBS = "kith_jobs"
    SLICES = "kith_slices"
    OUTBOX = "kith_outbox"
    CHANGES = "kith_changes"
    PEOPLE = "kith_people"


async def notify(tx: Transaction, channel: Channel, payload: str = "") -> None:
    """Wake the listeners of ``channel`` when ``tx`` commits. Equal notifications of one transaction are sent once."""
    await tx.rows(_NOTIFY, {"channel": channel.value, "payload": payload})


class Subscription:
    """Hears one channel, or one payload of it. An event that came between two waits is not lost."""

    def __init__(self, payload: str | None) -> None:
        self._payload = payload
        self._event = asyncio.Event()

    def deliver(self, payload: str) -> None:
        """Called by the listener for each notification of the channel."""
        if self._payload is None or payload == self._payload:
            self._event.set()

    def wake(self) -> None:
        """Called by the listener after it reconnected, as notifications may have been missed."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for a notification, at most ``timeout`` seconds; True if one came."""
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Listener:
    """The process's one listening connection; reconnects by itself."""

    def __init__(self, settings: DatabaseSettings) -> None:
        url = make_url(settings.url.get_secret_value()).set(drivername="postgresql")
        self._dsn = url.render_as_string(hide_password=False)
        self._connect_timeout_s = settings.connect_timeout_s
        self._subscriptions: dict[Channel, set[Subscription]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._listen_forever(), name="notify-listener")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @asynccontextmanager
    async def subscribe(self, channel: Channel, payload: str | None = None) -> AsyncIterator[Subscription]:
        """Hear ``channel`` while the block runs; with ``payload``, only notifications that carry it."""
        subscription = Subscription(payload)
        self._subscriptions[channel].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[channel].discard(subscription)

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("notify_listener_lost", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=self._connect_timeout_s)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            for channel in Channel:
                await connection.add_listener(channel.value, self._dispatch)
            for subscriptions in self._subscriptions.values():
                for subscription in subscriptions:
                    subscription.wake()
            await lost.wait()
        finally:
            await connection.close(timeout=1)

    def _dispatch(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        for subscription in self._subscriptions[Channel(channel)]:
            subscription.deliver(str(payload))
