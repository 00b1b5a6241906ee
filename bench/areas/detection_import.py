"""Faces of another system: how fast they are taken in, with client, server and PostgreSQL on this machine, and how fast the
relay then brings them to Qdrant.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc.aio
import numpy as np

from bench.options import BenchOptions
from bench.rows import ROOT, BenchRow, make_row
from deploy.local.ports import StackPorts
from deploy.local.services import DEMO_PACK
from deploy.local.stack import start_stores
from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2, assets_pb2_grpc, faces_pb2, faces_pb2_grpc
from services.detection.inference.engine import FaceEngine
from shared.config import ModelSettings, RpcSettings, Settings
from shared.foundation import open_foundation
from shared.migrate import migrate_database
from shared.rpc.channel import open_channel
from shared.vectors.relay import Relay

COMMAND: Final = "make bench AREA=detection_import"
FACES: Final = 50_000
MODEL: Final = "bench_512"
DIMENSION: Final = 512
FACES_PER_PHOTO: Final = 2
PER_MESSAGE: Final = 500
# Vectors are drawn once and used again: what they are makes no difference here.
DRAWN: Final = 5_000
READY_S: Final = 60.0


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``import_faces`` and ``relay``."""
    runs = [_measure(FACES) for _ in range(options.repeat)]
    return [
        make_row("import_faces", "faces_per_s", [taken for taken, _ in runs], COMMAND),
        make_row("relay", "points_per_s", [relayed for _, relayed in runs], COMMAND),
    ]


def measure_import(faces: int) -> float:
    """Faces per second of one stream of ``faces`` new faces into an empty library, 512-d, committed to the disk."""
    return _measure(faces, relayed=0)[0]


def _measure(faces: int, relayed: int = 10_000) -> tuple[float, float]:
    """Faces taken in per second, and points relayed per second over ``relayed`` of them."""
    with tempfile.TemporaryDirectory() as folder, start_stores(Path(folder) / "stores", fsync=True) as stores:
        settings = Settings.model_validate(
            {
                "database": {"url": stores.env["KITH_DATABASE_URL"]},
                "qdrant": {"url": stores.env["KITH_QDRANT_URL"], "allow_destructive": True},
            }
        )
        asyncio.run(_prepare(settings))
        ports = StackPorts(stores.plan.port_base)
        with _serving(stores.env, ports, Path(folder)) as target:
            taken = asyncio.run(_import(target, faces))
        return taken, asyncio.run(_relay(settings, relayed)) if relayed else 0.0


async def _prepare(settings: Settings) -> None:
    await migrate_database(settings.database)
    async with AsyncExitStack() as stack:
        base = await open_foundation(settings, stack, "bench")
        engine = await FaceEngine.load(settings.model_copy(update={"model": ModelSettings(pack=str(DEMO_PACK))}))
        await engine.close()
        await base.collections.create_missing(engine.info.version, engine.info.dimension)
        await base.collections.create_missing(MODEL, DIMENSION)


@contextmanager
def _serving(stores: Mapping[str, str], ports: StackPorts, folder: Path) -> Iterator[str]:
    """A detection server in a process of its own; answers where."""
    env = {
        **os.environ,
        **stores,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shared" / "gen"))),
        "OMP_NUM_THREADS": "1",
        "KITH_IMAGES_ROOTS": '["file:///photos"]',
        "KITH_MODEL_PACK": str(DEMO_PACK),
        "KITH_RPC_PORT": str(ports.rpc("detection")),
        "KITH_RPC_HEALTH_PORT": str(ports.health("detection")),
    }
    command = [sys.executable, "-P", "-m", "services.detection.server"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"127.0.0.1:{ports.rpc('detection')}"
        finally:
            server.terminate()
            server.wait()


async def _import(target: str, faces: int) -> float:
    drawn = np.random.default_rng(0).standard_normal((DRAWN, DIMENSION)).astype(np.float32).tolist()
    async with open_channel(target, RpcSettings()) as channel:
        await _register(channel, -(-faces // FACES_PER_PHOTO))
        begun = time.monotonic()
        answer = await faces_pb2_grpc.FaceServiceStub(channel).ImportFaces(_messages(drawn, faces))
        seconds = time.monotonic() - begun
    if answer.created != faces:
        raise RuntimeError(f"{faces} faces were sent, {answer.created} created; first failures: {answer.failures[:3]}")
    return faces / seconds


async def _register(channel: grpc.aio.Channel, photos: int) -> None:
    stub = assets_pb2_grpc.AssetServiceStub(channel)
    for start in range(0, photos, PER_MESSAGE):
        names = [f"photo-{number:07d}" for number in range(start, min(photos, start + PER_MESSAGE))]
        request = assets_pb2.RegisterAssetsRequest(
            assets=[assets_pb2.NewAsset(id=name, uri=f"file:///photos/{name}.jpg") for name in names]
        )
        await stub.RegisterAssets(request, wait_for_ready=True, timeout=READY_S)


async def _messages(drawn: Sequence[Sequence[float]], faces: int) -> AsyncIterator[faces_pb2.ImportFacesRequest]:
    for start in range(0, faces, PER_MESSAGE):
        message = faces_pb2.ImportFacesRequest()
        if start == 0:
            message.model_version = MODEL
        for number in range(start, min(faces, start + PER_MESSAGE)):
            photo, place = divmod(number, FACES_PER_PHOTO)
            message.faces.append(
                faces_pb2.ImportedFace(
                    asset_id=f"photo-{photo:07d}",
                    box=types_pb2.BoundingBox(x=100 + 300 * place, y=120, width=90, height=110),
                    confidence=0.9,
                    embedding=drawn[number % DRAWN],
                )
            )
        yield message


async def _relay(settings: Settings, points: int) -> float:
    """Points per second that one relay brings to Qdrant, with nothing else to do on the machine."""
    async with AsyncExitStack() as stack:
        base = await open_foundation(settings, stack, "bench")
        relay = Relay(
            base.database, base.qdrant, base.collections, base.listener, base.clock, settings.relay, base.metrics
        )
        done = await relay.relay_batch()
        begun, counted = time.monotonic(), 0
        while counted < points and (done := await relay.relay_batch()):
            counted += done
        return counted / (time.monotonic() - begun)
