"""What one would write without Kith: a loop over ``FaceAnalysis.get``, and the same behind HTTP."""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from insightface.app import FaceAnalysis

from bench.rate import Turn, make_turn

START_TIMEOUT_S = 60.0


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


class FaceAnalysisLoop:
    """A plain loop: decode, ``FaceAnalysis.get``, next."""

    def __init__(self, pack: Path, photos: Sequence[Path]) -> None:
        self._photos = [np.frombuffer(path.read_bytes(), np.uint8) for path in photos]
        self._stack = ExitStack()
        self._app = self._stack.enter_context(open_face_analysis(pack))
        self._app.get(cv2.imdecode(self._photos[0], cv2.IMREAD_COLOR))
        self._at = 0

    def take_turn(self, seconds: float) -> Turn:
        taken: list[float] = []
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            self._app.get(cv2.imdecode(self._photos[self._at % len(self._photos)], cv2.IMREAD_COLOR))
            taken.append(time.monotonic() - now)
            self._at += 1
        return make_turn(taken, time.monotonic() - begun)


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

        # Its clients are silent while others have their turn.
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=3600)


class HttpClients:
    """Clients that post photos one after the other, each over a connection of its own."""

    def __init__(self, port: int, photos: Sequence[Path], clients: int) -> None:
        self._photos = [path.read_bytes() for path in photos]
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(clients)]
        self._at = 0

    def take_turn(self, seconds: float) -> Turn:
        taken: list[float] = []
        begun = time.monotonic()

        def ask(number: int) -> None:
            connection = self._connections[number]
            at = self._at + number * len(self._photos) // len(self._connections)
            while (now := time.monotonic()) < begun + seconds:
                connection.request("POST", "/detect", body=self._photos[at % len(self._photos)])
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"the HTTP peer answered {answer.status}")
                taken.append(time.monotonic() - now)
                at += 1

        with ThreadPoolExecutor(len(self._connections)) as threads:
            list(threads.map(ask, range(len(self._connections))))
        self._at += len(taken) // len(self._connections)
        return make_turn(taken, time.monotonic() - begun)


@contextmanager
def running_http(pack: Path) -> Iterator[tuple[int, int]]:
    """The peer as a process: its port and its pid."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve_http, args=(pack, port), daemon=True)
    process.start()
    try:
        _await_http(port, process)
        yield port, process.pid or 0
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
