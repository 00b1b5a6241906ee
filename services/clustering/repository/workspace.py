"""The faces of one run, kept on disk while it lasts.

Embeddings go from PostgreSQL straight into a mapped file, which the grouping's own process maps again: nobody holds a copy, and
whoever takes the job over after a crash finds the same faces in the same rows, and the part of the graph that was finished.
Files lie in the worker's scratch space: if that is not shared, a worker on another machine begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.clustering.repository.unassigned import FaceTable

_ARRAYS = ("vectors", "assets", "quality", "anchors", "dismissed")


class Workspace:
    """A folder named after a job."""

    def __init__(self, scratch: Path, job_id: UUID) -> None:
        self._folder = scratch / str(job_id)

    @property
    def graph(self) -> Path:
        """Where the grouping keeps its unfinished graph."""
        return self._folder / "graph"

    def make_vectors(self, count: int, dimension: int) -> npt.NDArray[np.float16]:
        """Room (N, D) for embeddings, in a file; what was there before is gone."""
        self.remove()
        self.graph.mkdir(parents=True)
        path = self._folder / "vectors.npy"
        if count == 0:
            # An empty file cannot be mapped.
            np.save(path, nothing := np.empty((0, dimension), dtype=np.float16))
            return nothing
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, dimension))

    def keep(self, faces: FaceTable, facts: dict[str, Any]) -> None:
        """Keep the rest of a table whose ``vectors`` are those of :meth:`make_vectors`; only then it can be opened."""
        if isinstance(faces.vectors, np.memmap):
            faces.vectors.flush()
        for name in _ARRAYS[1:]:
            np.save(self._folder / f"{name}.npy", getattr(faces, name))
        ids = np.frombuffer(b"".join(face_id.bytes for face_id in faces.face_ids), dtype=np.uint8).reshape(-1, 16)
        np.save(self._folder / "face_ids.npy", ids)
        unfinished = self._folder / "facts.json.new"
        with unfinished.open("w") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._folder / "facts.json")

    def open(self) -> tuple[FaceTable, dict[str, Any]] | None:
        """What was kept; None if there is nothing, or not all of it."""
        try:
            facts = json.loads((self._folder / "facts.json").read_text())
        except FileNotFoundError:
            return None
        ids = np.load(self._folder / "face_ids.npy")
        arrays = {name: np.load(self._folder / f"{name}.npy", mmap_mode="r" if len(ids) else None) for name in _ARRAYS}
        return FaceTable([UUID(bytes=row.tobytes()) for row in ids], **arrays), facts

    def remove(self) -> None:
        """Give the room back."""
        shutil.rmtree(self._folder, ignore_errors=True)


def list_workspaces(scratch: Path) -> Iterator[UUID]:
    """The jobs whose workspaces are there."""
    for path in scratch.glob("*-*-*-*-*"):
        yield UUID(path.name)


def remove_workspaces(scratch: Path, job_ids: Collection[UUID]) -> None:
    """Give the room of these jobs back."""
    for job_id in job_ids:
        Workspace(scratch, job_id).remove()
