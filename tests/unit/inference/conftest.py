"""The model pack and the photos the engine's tests run on: the committed demo pack, or the one KITH_TEST_PACK names."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from demo.drawing.album import draw_album
from services.detection.inference.packs import ModelPack, load_pack
from shared.config import ModelSettings

DEMO_PACK = Path(__file__).resolve().parents[3] / "demo" / "pack" / "kith_demo"


@pytest.fixture(scope="session")
def pack_folder() -> Path:
    folder = Path(os.environ.get("KITH_TEST_PACK", DEMO_PACK))
    if not any(folder.glob("*.onnx")):
        pytest.fail(
            f"no model pack at {folder}: the demo pack is committed there, or set KITH_TEST_PACK to a pack's folder"
        )
    return folder


@pytest.fixture(scope="session")
def pack(pack_folder: Path) -> ModelPack:
    return load_pack(ModelSettings(pack=str(pack_folder)))


@pytest.fixture(scope="session")
def real_photo() -> NDArray[np.uint8]:
    """InsightFace's own sample: 1280 x 886, six people."""
    data = files("insightface").joinpath("data/images/t1.jpg").read_bytes()
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.fixture(scope="session")
def photos(real_photo: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.uint8]]:
    """Photos of many shapes: the real one, altered as photos are in the world, and drawn ones."""
    height, width = real_photo.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 17, 0.9)
    shapes: dict[str, NDArray[Any]] = {
        "real": real_photo,
        "mirrored": real_photo[:, ::-1],
        "tilted": cv2.warpAffine(real_photo, tilt, (width, height)),
        "blurred": cv2.GaussianBlur(real_photo, (0, 0), 2.5),
        "small": cv2.resize(real_photo, (331, 229), interpolation=cv2.INTER_AREA),
        "large": cv2.resize(real_photo, None, fx=2.3, fy=2.3),
        "dark": (real_photo * 0.3).astype(np.uint8),
        "tall": real_photo[:, 480:820],
        "strip": real_photo[200:320],
        "cut": real_photo[120:, 160:],
        "flat": np.full((200, 300, 3), 90, np.uint8),
    }
    folder = tmp_path_factory.mktemp("album")
    for photo in draw_album(7, people=4, photos=5, out=folder, workers=1).photos:
        shapes[f"drawn {photo.asset_id}"] = np.asarray(cv2.imread(str(folder / photo.file), cv2.IMREAD_COLOR))
    return {name: np.ascontiguousarray(pixels, dtype=np.uint8) for name, pixels in shapes.items()}
