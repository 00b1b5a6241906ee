from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time

import psutil

from shared.rpc.channel import open_channel
from tests.integration.conftest import eventually
from tests.integration.detection.client import DetectionClient, count_stored, wait_relayed
from tests.integration.detection.test_interruptions import ROOT, environment


async def test_speed(settings, base, pack, album, stack):
    await base.collections.create_missing(pack.version, pack.dimension)
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    env = environment(settings) | {
        "KITH_IMAGES_FILE_ROOTS": json.dumps([str(p) for p in settings.images.file_roots]),
        "KITH_SERVICES_DETECTION": f"127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "KITH_TELEMETRY_LOG_LEVEL": "WARNING",
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.detection.server", cwd=ROOT, env=env | {"KITH_RPC_PORT": str(port)}
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.detection.worker", cwd=ROOT, env=env)
    try:
        ch = open_channel(f"127.0.0.1:{port}", settings.rpc, settings.auth)
        c = DetectionClient(ch)

        async def up():
            try:
                await c.list_faces()
                return True
            except Exception:
                return False

        await eventually(up, 60)
        await c.register({f"p{n:04d}": album.uri(n) for n in range(480)})
        t = time.time()
        ses = await c.create_session()
        ses = await c.wait_session(ses.id)
        dt = time.time() - t
        await wait_relayed(base)
        print(
            "SPEED",
            pack.version,
            480 / dt,
            "photos/s",
            dt,
            "faces",
            ses.faces_added,
            "relay done after",
            time.time() - t,
            "rss MB",
            [psutil.Process(p.pid).memory_info().rss >> 20 for p in (server, worker)],
            "cpu s",
            [sum(psutil.Process(p.pid).cpu_times()[:2]) for p in (server, worker)],
            "load",
            os.getloadavg(),
            await count_stored(base),
        )
        await ch.close()
    finally:
        for p in (server, worker):
            p.terminate()
            await p.wait()
