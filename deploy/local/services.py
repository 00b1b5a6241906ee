"""The four servers and their workers as processes of the stack, and the environment they and their clients get."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deploy.local.directory import StackDirectory
from deploy.local.errors import StackError
from deploy.local.plan import Completes, GrpcServes, Port, ProcessSpec
from deploy.local.ports import SERVICES, StackPorts, address

ROOT = Path(__file__).resolve().parents[2]
DEMO_PACK = ROOT / "demo" / "pack" / "kith_demo"
# Longer than the services' own drains (20 s each by default).
DRAIN_GRACE_S = 30.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def build_environment(
    environ: Mapping[str, str],
    *,
    directory: StackDirectory,
    ports: StackPorts,
    pack: str | None,
    photos: Sequence[Path],
    stores: Mapping[str, str],
    next_pack: str | None = None,
) -> dict[str, str]:
    """Every KITH_ variable a process of the stack, or a client of it, needs. With ``next_pack`` they name its server too.

    Variables the caller has set pass through, except where the stack itself decides: addresses and the stores it runs.
    Raises ``StackError`` for a pack or photo folder that does not exist.
    """
    mine = {name: value for name, value in environ.items() if name.startswith("KITH_")}
    defaults = {"KITH_ENVIRONMENT": "development", "KITH_TELEMETRY_LOG_FORMAT": "json"}
    decided = {
        "KITH_DATA_DIR": str(directory.scratch),
        "KITH_MODEL_PACK": resolve_pack(pack or mine.get("KITH_MODEL_PACK") or str(DEMO_PACK)),
        **{f"KITH_SERVICES_{service.upper()}": address(ports.rpc(service)) for service in SERVICES},
        **stores,
    }
    if next_pack is not None:
        decided["KITH_SERVICES_DETECTION_NEXT"] = address(ports.next_rpc)
    if photos:
        decided["KITH_IMAGES_ROOTS"] = json.dumps([resolve_photos(folder) for folder in photos])
    return {**defaults, **mine, **decided}


def resolve_pack(name_or_path: str) -> str:
    """An absolute path for a folder, the word itself for a pack known by name."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if len(path.parts) > 1:
        raise StackError(f"there is no model pack at {path}")
    return name_or_path


def resolve_photos(folder: Path) -> str:
    path = folder.expanduser().resolve()
    if not path.is_dir():
        raise StackError(f"there is no folder of photos at {path}")
    return path.as_uri()


def plan_migrate(env: Mapping[str, str], *, after: tuple[str, ...]) -> ProcessSpec:
    """The step that brings the tables to this version."""
    return ProcessSpec(
        name="migrate",
        argv=(sys.executable, "-P", "-m", "shared.migrate"),
        env=dict(env),
        ready=Completes(),
        after=after,
    )


def plan_prepare(env: Mapping[str, str], *, after: tuple[str, ...]) -> ProcessSpec:
    """The step that makes the collections of the model pack; it alone may create any."""
    return ProcessSpec(
        name="prepare",
        argv=(sys.executable, "-P", "-m", "services.detection.prepare"),
        env={**env, "KITH_QDRANT_ALLOW_DESTRUCTIVE": "true"},
        ready=Completes(),
        after=after,
    )


def plan_services(
    env: Mapping[str, str], environ: Mapping[str, str], *, ports: StackPorts, after: tuple[str, ...]
) -> tuple[ProcessSpec, ...]:
    """A server and a worker per service, all started at once: they come up in any order."""
    specs = []
    for service in SERVICES:
        health, metrics = ports.health(service), ports.metrics(service)
        specs.append(
            ProcessSpec(
                name=service,
                argv=(sys.executable, "-P", "-m", f"services.{service}.server"),
                env={
                    **env,
                    **limit_threads(environ, 1),
                    **_port_variables(ports.rpc(service), health, metrics),
                },
                ready=GrpcServes(address(health)),
                after=after,
                ports=(Port("rpc", ports.rpc(service)), Port("health", health), Port("metrics", metrics)),
                stop_grace_s=DRAIN_GRACE_S,
            )
        )
        health, metrics = ports.worker_health(service), ports.worker_metrics(service)
        # Grouping is products of large matrices; everything else gets its parallelism from processes and sessions.
        threads = (os.cpu_count() or 1) if service == "clustering" else 1
        specs.append(
            ProcessSpec(
                name=f"{service}-worker",
                argv=(sys.executable, "-P", "-m", f"services.{service}.worker"),
                env={**env, **limit_threads(environ, threads), **_port_variables(0, health, metrics)},
                ready=GrpcServes(address(health)),
                after=after,
                ports=(Port("health", health), Port("metrics", metrics)),
                stop_grace_s=DRAIN_GRACE_S,
            )
        )
    return tuple(specs)


def plan_next_detection(
    env: Mapping[str, str], environ: Mapping[str, str], *, pack: str, ports: StackPorts, after: tuple[str, ...]
) -> tuple[ProcessSpec, ...]:
    """A second detection server that runs another pack, for libraries that move to its model, and its own preparation."""
    env = {**env, "KITH_MODEL_PACK": resolve_pack(pack)}
    prepare = replace(plan_prepare(env, after=after), name="prepare-next")
    rpc, health, metrics = ports.next_rpc, ports.next_health, ports.next_metrics
    server = ProcessSpec(
        name="detection-next",
        argv=(sys.executable, "-P", "-m", "services.detection.server"),
        env={**env, **limit_threads(environ, 1), **_port_variables(rpc, health, metrics)},
        ready=GrpcServes(address(health)),
        after=(prepare.name,),
        ports=(Port("rpc", rpc), Port("health", health), Port("metrics", metrics)),
        stop_grace_s=DRAIN_GRACE_S,
    )
    return prepare, server


def limit_threads(environ: Mapping[str, str], threads: int) -> dict[str, str]:
    """Sizes of the numeric libraries' thread pools, lest each process take every core; the caller's choice wins."""
    return {name: str(threads) for name in _THREAD_VARIABLES if name not in environ}


def _port_variables(rpc: int, health: int, metrics: int) -> dict[str, str]:
    return {
        "KITH_RPC_PORT": str(rpc),
        "KITH_RPC_HEALTH_PORT": str(health),
        "KITH_TELEMETRY_METRICS_PORT": str(metrics),
    }
