"""Drawn photos, a detection server on a real pack, and what a client of it needs."""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.drawing import draw_album
from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import ModelInfo
from services.detection.server import start
from shared.config import ModelSettings, Provider, Settings
from shared.foundation import Foundation
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient

DEMO_PACK = Path(__file__).resolve().parents[3] / "demo" / "pack" / "kith_demo"


@dataclass(frozen=True, slots=True)
class Album:
    """A folder of drawn photos, and the names of those in it, in order."""

    folder: Path
    names: tuple[str, ...]

    def path(self, number: int) -> Path:
        """Any number: after the last photo comes the first again."""
        return self.folder / self.names[number % len(self.names)]

    def uri(self, number: int) -> str:
        return self.path(number).as_uri()


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    folder = tmp_path_factory.mktemp("album")
    truth = draw_album(7, people=5, photos=12, out=folder, workers=1)
    return Album(folder, tuple(photo.file for photo in truth.photos))


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no readable photo, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("broken")
    contents = {
        "corrupt": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8,
        "empty": b"",
        "huge": png_header(10_000, 10_000),
        "text": b"these are the wrong bytes\n" * 40,
    }
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return {name: folder / f"{name}.jpg" for name in contents}


@pytest.fixture(scope="session")
def model() -> ModelSettings:
    """The committed demo pack, or the one KITH_TEST_PACK names."""
    return ModelSettings(pack=os.environ.get("KITH_TEST_PACK", str(DEMO_PACK)), provider=Provider.CPU)


@pytest.fixture(scope="session")
def pack(model: ModelSettings) -> ModelInfo:
    """What the pack is, from loading it once."""

    async def load() -> ModelInfo:
        engine = await FaceEngine.load(Settings.model_validate({"model": model}))
        await engine.close()
        return engine.info

    return asyncio.run(load())


@pytest.fixture
async def settings(
    settings: Settings, model: ModelSettings, album: Album, broken: dict[str, Path], tmp_path: Path
) -> Settings:
    """Settings with a real pack, and photos that may be read."""
    roots = tuple(folder.as_uri() for folder in (album.folder, broken["empty"].parent, tmp_path))
    return settings.model_copy(
        update={
            "images": settings.images.model_copy(update={"roots": roots}),
            "model": model,
        }
    )


@pytest.fixture
async def detection(running: Running, base: Foundation, pack: ModelInfo) -> DetectionClient:
    """A running detection server, with the collections of its model."""
    await base.collections.create_missing(pack.version, pack.dimension)
    return DetectionClient(await running.server("detection", start))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be so large and breaks off in its first pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(bytes(100)))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
