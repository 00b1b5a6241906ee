"""Which Qdrant the stack uses: one given by address, a binary on PATH, or the embedded one."""

from __future__ import annotations

import shutil
import sys

from deploy.local.directory import StackDirectory
from deploy.local.plan import Port, ProcessSpec, QdrantAnswers
from deploy.local.ports import HOST, address

GIVEN = "KITH_QDRANT_URL"


def plan_qdrant(directory: StackDirectory, *, grpc_port: int, http_port: int) -> ProcessSpec:
    """The process to run where none is given. The two kinds keep their data apart, since neither reads the other's."""
    binary = shutil.which("qdrant")
    if binary is None:
        return ProcessSpec(
            name="qdrant",
            argv=(
                *(sys.executable, "-P", "-m", "deploy.local.qdrant"),
                *("--data", str(directory.root / "qdrant"), "--port", str(grpc_port)),
            ),
            ready=QdrantAnswers(address(grpc_port)),
            ports=(Port("grpc", grpc_port),),
        )
    home = directory.root / "qdrant-server"
    home.mkdir(exist_ok=True)
    return ProcessSpec(
        name="qdrant",
        argv=(binary,),
        env={
            "QDRANT__SERVICE__HOST": HOST,
            "QDRANT__SERVICE__GRPC_PORT": str(grpc_port),
            "QDRANT__SERVICE__HTTP_PORT": str(http_port),
            "QDRANT__STORAGE__STORAGE_PATH": str(home / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(home / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        },
        ready=QdrantAnswers(address(grpc_port)),
        ports=(Port("grpc", grpc_port), Port("http", http_port)),
        cwd=home,
        stop_grace_s=20.0,
    )


def qdrant_url(grpc_port: int) -> str:
    return f"http://{address(grpc_port)}"
