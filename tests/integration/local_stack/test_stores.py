"""The three stores as they really are: as root, as an ordinary user, killed, and again on the same data."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
from qdrant_client import QdrantClient
from redis import Redis

from deploy.local.directory import StackDirectory, read_holders
from deploy.local.plan import NOBODY, Identity, Plan
from deploy.local.postgres import plan_postgres
from deploy.local.services import ROOT
from deploy.local.stack import RunningStack, launch, start_stores

from .stacks import assert_nothing_left, eventually


def run_sql(stack: RunningStack, *statements: str) -> list[asyncpg.Record]:
    """The rows of the last statement."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(stack.env["KITH_DATABASE_URL"].replace("+asyncpg", ""))
        try:
            return [list(await connection.fetch(statement)) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(run())


def pid_of(directory: StackDirectory, name: str) -> int | None:
    rows = json.loads(directory.stack.read_text())["processes"]
    pid: int | None = next(row["pid"] for row in rows if row["name"] == name)
    return pid


def test_each_store_answers_its_own_client(directory: StackDirectory, free_ports: range) -> None:
    with start_stores(directory.root, free_ports=free_ports, fsync=True) as stores:
        assert run_sql(stores, "SHOW fsync")[0][0] == "on"
        assert run_sql(stores, "SELECT current_database() || ' ' || current_setting('TimeZone')")[0][0] == "kith UTC"
        with Redis.from_url(stores.env["KITH_REDIS_URL"]) as redis:
            assert redis.set("key", "value")
        port = urlsplit(stores.env["KITH_QDRANT_URL"]).port
        assert port is not None
        qdrant = QdrantClient("127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
        assert qdrant.get_collections().collections == []
        qdrant.close()
    assert_nothing_left(directory)


def test_passwords_are_asked_for(directory: StackDirectory, free_ports: range) -> None:
    with start_stores(directory.root, free_ports=free_ports) as stores:
        url = stores.env["KITH_DATABASE_URL"].replace("+asyncpg", "")
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(asyncpg.connect(url, password="a guess"))
        with (
            Redis(port=stores.plan.port_base + 1) as redis,
            pytest.raises(Exception, match="Authentication required"),
        ):
            redis.ping()


def test_rows_outlive_a_killed_server_and_a_killed_stack(directory: StackDirectory, free_ports: range) -> None:
    stores = start_stores(directory.root, free_ports=free_ports)
    run_sql(stores, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
    before = pid_of(directory, "postgres")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: pid_of(directory, "postgres") not in (None, before), "PostgreSQL runs again")
    eventually(lambda: _answers(stores), "PostgreSQL answers again")
    run_sql(stores, "INSERT INTO kept VALUES (2)")
    os.kill(read_holders(directory.lock)["supervisor"].pid, signal.SIGKILL)
    with start_stores(directory.root, port_base=stores.plan.port_base) as again:
        assert [row["n"] for row in run_sql(again, "SELECT n FROM kept ORDER BY n")] == [1, 2]
    assert_nothing_left(directory)


def _answers(stores: RunningStack) -> bool:
    try:
        return bool(run_sql(stores, "SELECT 1"))
    except (OSError, asyncpg.PostgresError):
        return False


def test_postgres_listens_on_loopback_only(directory: StackDirectory, free_ports: range) -> None:
    with start_stores(directory.root, free_ports=free_ports):
        pid = pid_of(directory, "postgres")
        addresses = {
            row.laddr for row in psutil.Process(pid).net_connections("all") if row.status == psutil.CONN_LISTEN
        }
    assert {address.ip for address in addresses} == {"127.0.0.1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other identities to choose from")
@pytest.mark.parametrize("identity", [Identity.NAMESPACE, Identity.NOBODY])
def test_root_runs_postgres_as_somebody_else(directory: StackDirectory, base: int, identity: Identity) -> None:
    command = ["unshare", "--user", "--map-user=1000", "true"]
    if identity is Identity.NAMESPACE and subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("user namespaces are forbidden here")

    def build(place: StackDirectory) -> Plan:
        return Plan(processes=plan_postgres(place, port=base, fsync=False, identity=identity), port_base=base)

    def start() -> RunningStack:
        return launch(directory.root, build, environ=os.environ)

    with start():
        uid = psutil.Process(pid_of(directory, "postgres")).uids().real
        assert uid == (NOBODY if identity is Identity.NOBODY else 0)
    with start():
        os.kill(read_holders(directory.lock)["supervisor"].pid, signal.SIGKILL)
        assert_nothing_left(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="this suite is run by an ordinary user, so every other test shows it")
def test_an_ordinary_user_runs_them_too(directory: StackDirectory, free_ports: range) -> None:
    home = directory.root.parent / "home"
    home.mkdir()
    shutil.chown(home, NOBODY, NOBODY)
    script = (
        "import os, pathlib, sys\n"
        "from deploy.local.stack import start_stores\n"
        "assert os.geteuid() == 65534\n"
        "ports = range(int(sys.argv[2]), int(sys.argv[3]))\n"
        "with start_stores(pathlib.Path(sys.argv[1]), free_ports=ports) as stores:\n"
        "    print('ready')\n"
    )
    arguments = [str(home / "d"), str(free_ports.start), str(free_ports.stop)]
    done = subprocess.run(
        [*_as_nobody(), sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(home)},
        cwd="/",
    )
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr
    assert_nothing_left(StackDirectory(home / "d"))


def _as_nobody() -> Sequence[str]:
    """Words that run a command as user 65534, one that may read this interpreter even below a closed home directory."""
    plain = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    reading = (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    # Its version too: where its library cannot be read, the loader may pick the system's, of another version.
    probe = [sys.executable, "-c", "import asyncpg, sys; print(sys.version)"]
    for words in (plain, reading):
        answer = subprocess.run([*words, *probe], capture_output=True, text=True, cwd="/")
        if (answer.returncode, answer.stdout.strip()) == (0, sys.version):
            return words
    pytest.skip("no ordinary user can read this interpreter")
