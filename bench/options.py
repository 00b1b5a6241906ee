"""What a measurement may be told on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.local.services import DEMO_PACK


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """``repeat`` runs per figure; ``pack``: folder of the model pack; ``photos``: a folder of photos, None = drawn ones;
    ``size``: of what is measured, where an area has several and leaves some out unless asked.
    """

    repeat: int = 1
    pack: Path = DEMO_PACK
    photos: Path | None = None
    size: str | None = None

    def command(self, area: str) -> str:
        """The command that measures ``area`` so once more; a pack that is not the demo's is named, wherever it lies."""
        pack = "" if self.pack == DEMO_PACK else f" MODEL_PACK=.../{self.pack.name}"
        size = f" SIZE={self.size}" if self.size else ""
        return f"make bench AREA={area}{pack}{' PHOTOS=...' if self.photos else ''}{size}"
