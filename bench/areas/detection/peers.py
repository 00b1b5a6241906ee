"""What one would write without Kith: a loop over ``FaceAnalysis.get``, and the same behind HTTP."""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from insightface.app import FaceAnalysis

from bench.areas.detection.rate import Rate

START_TIMEOUT_S = 60.0
MB = 1 << 20


@contextmanager
def open_face_analysis(pack: Path) -> Iterator[Any]:
    """InsightFace's own application over a pack's folder, as its README has it."""
    # It wants its packs as <root>/models/<name>, and reads them again for each input size it meets.
    with tempfile.TemporaryDirectory() as root:
        models = Path(root) / "models"
        models.mkdir()
        (models / "pack").symlink_to(pack.resolve())
        app = FaceAnalysis(
            "pack", root=root, allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
        )
        app.prepare(ctx_id=-1, det_size=(640, 640))
        yield app


def measure_face_analysis(pack: Path, photos: Sequence[Path], seconds: float) -> Rate:
    """A plain loop: decode, ``FaceAnalysis.get``, next."""
    data = [np.frombuffer(path.read_bytes(), np.uint8) for path in photos]
    with open_face_analysis(pack) as app:
        app.get(cv2.imdecode(data[0], cv2.IMREAD_COLOR))
        taken: list[float] = []
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            app.get(cv2.imdecode(data[len(taken) % len(data)], cv2.IMREAD_COLOR))
            taken.append(time.monotonic() - now)
    return Rate.of(taken, time.monotonic() - begun)


def serve_http(pack: Path, port: int) -> None:
    """The service this replaces, at its best: FastAPI, one process, ``FaceAnalysis.get`` in its thread pool."""
    app = FastAPI()

    @app.get("/")
    def alive() -> dict[str, bool]:
        return {"alive": True}

    with open_face_analysis(pack) as analysis:

        @app.post("/detect")
        async def detect(request: Request) -> list[dict[str, Any]]:
            data = np.frombuffer(await request.body(), np.uint8)
            faces = await run_in_threadpool(lambda: analysis.get(cv2.imdecode(data, cv2.IMREAD_COLOR)))
            return [{"box": face.bbox.tolist(), "embedding": face.normed_embedding.tolist()} for face in faces]

        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def measure_http(pack: Path, photos: Sequence[Path], clients: int, seconds: float) -> tuple[Rate, float]:
    """``clients`` threads that post photos one after the other; also the server's resident MB."""
    with _running(pack) as (port, process):
        rate = ask_http(port, [path.read_bytes() for path in photos], clients, seconds)
        return rate, psutil.Process(process.pid).memory_info().rss / MB


def ask_http(port: int, photos: Sequence[bytes], clients: int, seconds: float) -> Rate:
    """Post photos for ``seconds``."""
    taken: list[float] = []
    begun = time.monotonic()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        at = number * len(photos) // clients
        while (now := time.monotonic()) < begun + seconds:
            connection.request("POST", "/detect", body=photos[at % len(photos)])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the HTTP peer answered {answer.status}")
            taken.append(time.monotonic() - now)
            at += 1

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(client, range(clients)))
    return Rate.of(taken, time.monotonic() - begun)


@contextmanager
def _running(pack: Path) -> Iterator[tuple[int, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve_http, args=(pack, port), daemon=True)
    process.start()
    try:
        _await_http(port, process)
        yield port, process
    finally:
        process.terminate()
        process.join()


def _await_http(port: int, process: Any) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.is_alive():
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the HTTP peer did not start")
