"""The faces of one run, kept on disk while it lasts.

Embeddings go from PostgreSQL straight into a mapped file, which the grouping's own process maps again: nobody holds a copy, and
whoever takes the job over after a crash finds the same faces in the same rows, and the part of the graph that was finished.
Files lie in the worker's scratch space: if that is not shared, a worker on another machine begins anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from services.clustering.repository.unassigned import FaceTable
from shared.errors import Unavailable

_FULL_RETRY_S = 60.0
_ARRAYS = ("vectors", "assets", "quality", "anchors", "dismissed")


class Workspace:
    """A folder named after a job.

    Faces are written into a folder of the worker's own, which takes its place when all is on disk: a worker that lost the job
    while it read cannot mix its faces with those of the one that has it now.
    """

    def __init__(self, scratch: Path, job_id: UUID) -> None:
        self._job = scratch / str(job_id)
        self._kept = self._job / "faces"
        self._unfinished = self._job / f"faces-{uuid4()}"

    @property
    def graph(self) -> Path:
        """Where the grouping keeps its unfinished graph."""
        return self._job / "graph"

    def make_vectors(self, count: int, dimension: int) -> npt.NDArray[np.float16]:
        """Room (N, D) for embeddings, in a file; what was kept before cannot be opened any more.

        Raises :class:`Unavailable` if the disk has no room for them.
        """
        self.remove()
        self._unfinished.mkdir(parents=True)
        path = self._unfinished / "vectors.npy"
        if count == 0:
            # An empty file cannot be mapped.
            np.save(path, nothing := np.empty((0, dimension), dtype=np.float16))
            return nothing
        vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, dimension))
        # Now, as an error: later a full disk would be the end of whoever writes to a page of it.
        size = path.stat().st_size
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                self.remove()
                raise Unavailable(
                    f"the worker's scratch space has no room for {size >> 20} MiB of embeddings",
                    retry_after_s=_FULL_RETRY_S,
                ) from error
        return vectors

    def keep(self, faces: FaceTable, facts: dict[str, Any]) -> None:
        """Keep the rest of a table whose ``vectors`` are those of :meth:`make_vectors`; only then it can be opened."""
        if isinstance(faces.vectors, np.memmap):
            faces.vectors.flush()
        for name in _ARRAYS[1:]:
            np.save(self._unfinished / f"{name}.npy", getattr(faces, name))
        ids = np.frombuffer(b"".join(face_id.bytes for face_id in faces.face_ids), dtype=np.uint8).reshape(-1, 16)
        np.save(self._unfinished / "face_ids.npy", ids)
        (self._unfinished / "facts.json").write_text(json.dumps(facts))
        for path in self._unfinished.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(self._kept, ignore_errors=True)
        self._unfinished.replace(self._kept)

    def open(self) -> tuple[FaceTable, dict[str, Any]] | None:
        """What was kept; None if there is nothing, or the disk has damaged it."""
        try:
            facts = json.loads((self._kept / "facts.json").read_text())
            ids = np.load(self._kept / "face_ids.npy")
            arrays = {name: self._load(name, mapped=len(ids) > 0) for name in _ARRAYS}
        except (OSError, ValueError, EOFError):
            return None
        if any(len(array) != len(ids) for array in arrays.values()):
            return None
        return FaceTable([UUID(bytes=row.tobytes()) for row in ids], **arrays), facts

    def _load(self, name: str, *, mapped: bool) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.load(self._kept / f"{name}.npy", mmap_mode="r" if mapped else None)
        return array

    def remove(self) -> None:
        """Give the room back. What cannot be removed now is swept later."""
        shutil.rmtree(self._job, ignore_errors=True)


def list_workspaces(scratch: Path) -> Iterator[UUID]:
    """The jobs whose workspaces are there; folders of other names are nobody's business here."""
    for path in scratch.glob("*-*-*-*-*"):
        with contextlib.suppress(ValueError):
            yield UUID(path.name)


def remove_workspaces(scratch: Path, job_ids: Collection[UUID]) -> None:
    """Give the room of these jobs back."""
    for job_id in job_ids:
        Workspace(scratch, job_id).remove()
