"""What has been found of a graph, kept in a folder, so that a process that is killed goes on instead of starting again.

Each part is one file, written beside its place, synced, and moved there: it is there as a whole or not at all. It carries the
fingerprint of the request; a part of another request, or one the disk has damaged, counts as not there.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[np.generic]]

_FORMAT = "1"
_FINGERPRINT = "fingerprint"
_HASHED_ROWS = 65_536


class GraphCheckpoint:
    """The parts kept in ``folder`` for the request ``fingerprint``; the folder is made when there is something to keep,
    and is its owner's to remove.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def keep(self, part: str, **arrays: npt.NDArray[np.generic] | np.generic) -> None:
        """Keep a part in place of the one of that name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {_FINGERPRINT: np.array(self._fingerprint), **arrays}
        # Another process may hold the same job's folder for a moment: one whose worker has lost its lease.
        beside = self._folder / f"{part}.{os.getpid()}.part"
        with beside.open("wb") as file:
            np.savez(file, **contents)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._folder / f"{part}.npz")

    def read(self, part: str) -> Arrays | None:
        """The arrays of a part, or None if this request has not kept it."""
        try:
            with np.load(self._folder / f"{part}.npz", allow_pickle=False) as kept:
                if str(kept[_FINGERPRINT]) != self._fingerprint:
                    return None
                return {name: kept[name] for name in kept.files}
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError):  # damaged: found again instead
            return None


def fingerprint_request(vectors: npt.NDArray[np.floating], *details: object) -> str:
    """A name for the numbers of ``vectors`` (N, D) and whatever else the answer depends on."""
    checksum = 0
    for start in range(0, len(vectors), _HASHED_ROWS):
        checksum = zlib.crc32(np.ascontiguousarray(vectors[start : start + _HASHED_ROWS]).data, checksum)
    return " ".join(str(detail) for detail in (_FORMAT, *vectors.shape, vectors.dtype, checksum, *details))
