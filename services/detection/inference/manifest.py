"""``pack.json``: what a model pack says about itself beside the graphs. Optional; InsightFace's own packs have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.detection.inference.errors import ModelPackError

FILE_NAME = "pack.json"


class PackManifest(BaseModel):
    """The fields this service reads. Others are allowed: a pack is made for more readers than one version of Kith."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None = None
    licence: str | None = None
    dimension: int | None = Field(None, ge=1, description="Held against what the recogniser really gives.")
    thresholds: dict[str, float] = Field(default_factory=dict, description="Cosines of this embedding space, by name.")
    calibration: dict[str, Any] = Field(default_factory=dict, description="Prior of the calibrated confidence.")
    norm_range: tuple[float, float] | None = Field(
        None,
        description="Embedding norms that count as worst and best quality, if this model's norm means quality.",
    )


def read_manifest(folder: Path) -> PackManifest:
    """Read ``folder/pack.json``; an empty manifest if there is none. Raises :class:`ModelPackError` if it is not
    valid.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return PackManifest.model_validate({})
    try:
        manifest = PackManifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise ModelPackError(f"{path} is not a valid pack manifest: {error}") from error
    if manifest.norm_range is not None and manifest.norm_range[0] >= manifest.norm_range[1]:
        raise ModelPackError(f"{path}: norm_range must be (low, high) with low below high")
    return manifest
