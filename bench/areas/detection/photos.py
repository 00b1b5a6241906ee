"""The photos a run is measured on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.options import BenchOptions
from demo.drawing.album import draw_album
from deploy.local.services import DEMO_PACK

SEED = 7
PEOPLE = 12
PHOTOS = 60
JPEG_QUALITY = 92


def gather_photos(options: BenchOptions, scratch: Path) -> list[Path]:
    """Files of the folder given, in order of name; else faces the pack knows: drawn ones for the demo's, real ones for others.

    Raises ``FileNotFoundError`` for a folder without photos.
    """
    if options.photos is not None:
        found = [
            path.resolve() for path in options.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        ]
        if not found:
            raise FileNotFoundError(f"no .jpg or .png in {options.photos}")
        return sorted(found)
    folder = (scratch / "photos").resolve()
    if options.pack == DEMO_PACK:
        album = draw_album(SEED, people=PEOPLE, photos=PHOTOS, out=folder)
        return [folder / photo.file for photo in album.photos]
    return _vary_sample(folder)


def _vary_sample(folder: Path) -> list[Path]:
    """InsightFace's own sample (1280 x 886, six people) as it is, mirrored, darker and at other sizes."""
    data = files("insightface").joinpath("data/images/t1.jpg").read_bytes()
    sample: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    variants = {
        "as-it-is": sample,
        "mirrored": sample[:, ::-1],
        "darker": (sample * 0.7).astype(np.uint8),
        "smaller": cv2.resize(sample, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA),
        "larger": cv2.resize(sample, None, fx=1.25, fy=1.25),
    }
    folder.mkdir(parents=True)
    paths = []
    for name, pixels in variants.items():
        paths.append(folder / f"{name}.jpg")
        cv2.imwrite(str(paths[-1]), np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return paths
