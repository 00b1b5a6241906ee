"""Real stores for integration tests: one PostgreSQL, Valkey and Qdrant per session, one fresh database per test.

``running`` starts Kith's servers and workers inside the test's own event loop, on real sockets with free ports, so that a test
can reach into a worker or count what it sends; tests of whole processes use ``deploy.local.stack``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc.aio
import pytest
from sqlalchemy import make_url

from deploy.local.stack import start_stores
from shared.config import Environment, QdrantSettings, Settings
from shared.foundation import Foundation, WorkerProcess, open_foundation
from shared.migrate import migrate_database
from shared.rpc.channel import open_channel
from shared.rpc.server import RpcServer
from shared.vectors.client import open_qdrant

TEMPLATE = "kith_template"
MEMORY = Path("/dev/shm")
LEAST_MEMORY = 4 << 30


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the session's stores answer; ``database_url`` is that of the server's first database."""

    database_url: str
    redis_url: str
    qdrant_url: str

    def database(self, name: str) -> str:
        """URL of another database of the same server."""
        return make_url(self.database_url).set(database=name).render_as_string(hide_password=False)

    async def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction, as the server's owner."""
        dsn = make_url(self.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """The three stores, with a migrated database to copy."""
    # In memory where there is room: every test makes a database and two collections, which is thousands of small files.
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= LEAST_MEMORY
    with (
        tempfile.TemporaryDirectory(prefix="kith-", dir=MEMORY if roomy else tmp_path_factory.mktemp("stores")) as root,
        start_stores(Path(root)) as stack,
    ):
        env = stack.env
        found = Stores(env["KITH_DATABASE_URL"], env["KITH_REDIS_URL"], env["KITH_QDRANT_URL"])
        asyncio.run(_make_template(found))
        yield found


async def _make_template(stores: Stores) -> None:
    await stores.execute(f"CREATE DATABASE {TEMPLATE}")
    settings = Settings.model_validate({"database": {"url": stores.database(TEMPLATE)}})
    await migrate_database(settings.database)


@pytest.fixture
async def settings(stores: Stores, tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a fresh database, an own queue, and a random prefix in Qdrant. Intervals are short."""
    name = f"kith_{secrets.token_hex(6)}"
    await stores.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    found = Settings.model_validate(
        {
            "environment": Environment.TEST,
            "data_dir": tmp_path / "scratch",
            "database": {"url": stores.database(name), "pool_size": 5},
            "redis": {"url": stores.redis_url, "queue_prefix": name},
            "qdrant": {"url": stores.qdrant_url, "prefix": f"test_{secrets.token_hex(6)}", "allow_destructive": True},
            # A loaded machine is no reason to fail: tests that are about deadlines set their own.
            "rpc": {"port": 0, "health_port": 0, "drain_s": 5, "default_deadline_s": 60},
            "jobs": {"lease_s": 3, "heartbeat_s": 0.5, "dispatch_interval_s": 0.2, "watch_poll_s": 0.2},
            "relay": {"poll_s": 0.1},
            # Not before a test is over: those that are about it set their own.
            "clustering": {"centroid_interval_s": 3600},
            "images": {"roots": [tmp_path.as_uri()]},
        }
    )
    yield found
    await _drop_collections(found.qdrant)
    await stores.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _drop_collections(settings: QdrantSettings) -> None:
    """Delete what a test made in Qdrant.

    Every collection left behind costs the server memory maps, of which Linux gives a process 65,530: the suite needs more.
    """
    client = open_qdrant(settings)
    try:
        for collection in (await client.get_collections()).collections:
            if collection.name.startswith(f"{settings.prefix}_"):
                await client.delete_collection(collection.name)
    finally:
        await client.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opens, in reverse, after the test."""
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture
async def base(settings: Settings, stack: AsyncExitStack) -> Foundation:
    """A foundation of the test's own, to read and seed the stores with."""
    return await open_foundation(settings, stack, "test")


StartServer = Callable[[Settings, AsyncExitStack], Awaitable[RpcServer]]
StartWorker = Callable[[Settings, AsyncExitStack], Awaitable[WorkerProcess]]


class Running:
    """Starts servers and workers in this event loop and connects to them.

    ``settings`` grows the address of each server started, so start a server before those that call it.
    """

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._stack = stack

    async def server(self, service: str, start: StartServer) -> grpc.aio.Channel:
        """Start ``services.<service>.server``'s ``start``, wait until it serves, and connect to it."""
        server = await start(self.settings, self._stack)
        await server.readiness.wait_serving()
        address = f"127.0.0.1:{server.port}"
        services = self.settings.services.model_copy(update={service: address})
        self.settings = self.settings.model_copy(update={"services": services})
        channel = open_channel(address, self.settings.rpc, self.settings.auth)
        self._stack.push_async_callback(channel.close)
        return channel

    async def worker(self, start: StartWorker) -> WorkerProcess:
        """Start a worker; it is drained at the end of the test."""
        worker = await start(self.settings, self._stack)
        self._stack.push_async_callback(worker.drain)
        return worker


@pytest.fixture
def running(settings: Settings, stack: AsyncExitStack) -> Running:
    """Starts servers and workers for a test."""
    return Running(settings, stack)


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Wait until ``condition`` holds; fails the test after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - the condition is in the stores, not in this process
            await asyncio.sleep(0.02)
