"""The graph of nearest neighbours as Qdrant finds it: for libraries whose vectors no single machine should compare.

Qdrant is asked for the neighbours of each face by the id of its point, many faces to a call, so that no vector travels. It
answers in the model's own space alone; and of the index as it is, which may lag behind the truth by what waits in the outbox.
So it is asked first which faces it would find at all.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import grpc.aio
import numpy as np
import numpy.typing as npt

from services.clustering.domain.model import ActiveModel
from services.clustering.grouping.graph import MISSING, NeighbourGraph
from services.clustering.grouping.graph_checkpoint import GraphCheckpoint
from shared.errors import PreconditionFailed, Reason
from shared.vectors.faces import AlikeFaces, FaceFilter, FaceIndex

PART_ROWS: Final = 4096
"""Rows of a part: what a worker that dies, or loses Qdrant, has to ask again at most."""

MOST_HITS: Final = 1024
"""A face whose nearest are not of the run is asked for ever more, but for no more than these."""

PRESENT_IDS: Final = 1000

Told = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class QuerySizes:
    """``batch`` faces go into a call, ``calls`` are under way at once. A call must end within ``qdrant.timeout_s``."""

    batch: int = 32
    calls: int = 4


DEFAULT_SIZES: Final = QuerySizes()


@dataclass(frozen=True, slots=True)
class IndexedGraph:
    """A graph, and how many faces are alone in it because Qdrant does not show them (yet)."""

    graph: NeighbourGraph
    missing: int


async def find_neighbours_in_qdrant(
    index: FaceIndex,
    model: ActiveModel,
    where: FaceFilter,
    face_ids: Sequence[UUID],
    *,
    k: int,
    floor: float,
    max_missing: int,
    told: Told,
    checkpoint: Path | None = None,
    sizes: QuerySizes = DEFAULT_SIZES,
) -> IndexedGraph:
    """The graph of ``face_ids``, in whose order its rows are: up to ``k`` neighbours each, strictly above cosine ``floor``.

    ``where`` is what the index knows of the run's selection: it keeps faces of no interest from filling the k places. Those
    that do are dropped, and more is asked for. ``told(done, total)`` is awaited after every few calls, with faces; what it
    raises ends the work. What is found is kept in the folder ``checkpoint``, and the same request goes on from there: nothing
    is tried again here, the job is. Memory beyond the graph: 24 bytes per face, and the answers under way.

    Raises :class:`PreconditionFailed`: MODEL_MISMATCH if faces are compared in a matcher's space, which Qdrant does not hold;
    EMBEDDINGS_MISSING before any search if Qdrant does not show more than ``max_missing`` of the faces.
    """
    if model.learnt is not None:
        raise PreconditionFailed(
            "this library compares faces in the space of its matcher, which Qdrant does not hold: "
            "group with the graph source LOCAL, or deactivate the matcher",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": model.model_version, "actual": "matcher"},
        )
    asking = _Asking(index, model.model_version, where, face_ids, k, floor, sizes)
    missing = await asking.find_missing(told)
    if len(missing) > max_missing:
        raise PreconditionFailed(
            f"Qdrant does not show {len(missing)} of {len(face_ids)} faces; wait until the outbox is empty, "
            "or mend the index with Reconcile",
            reason=Reason.EMBEDDINGS_MISSING,
            metadata={"missing": str(len(missing)), "faces": str(len(face_ids))},
        )
    kept = GraphCheckpoint(checkpoint, asking.fingerprint) if checkpoint is not None else None
    count = len(face_ids)
    graph = NeighbourGraph(
        np.full((count, k), MISSING, dtype=np.int32), np.full((count, k), floor, dtype=np.float32), floor
    )
    for start in range(0, count, PART_ROWS):
        part = slice(start, min(count, start + PART_ROWS))
        name = f"qdrant-{start}"
        found = await asyncio.to_thread(kept.read, name) if kept is not None else None
        if found is not None:
            graph.neighbours[part], graph.similarities[part] = found["neighbours"], found["similarities"]
            continue
        rows = [row for row in range(part.start, part.stop) if row not in missing]
        await asking.fill(graph, rows, told)
        if kept is not None:
            arrays = {"neighbours": graph.neighbours[part], "similarities": graph.similarities[part]}
            await asyncio.to_thread(kept.keep, name, **arrays)
    await told(count, count)
    return IndexedGraph(graph, len(missing))


class _Asking:
    """The questions of one graph."""

    def __init__(
        self,
        index: FaceIndex,
        model_version: str,
        where: FaceFilter,
        face_ids: Sequence[UUID],
        k: int,
        floor: float,
        sizes: QuerySizes,
    ) -> None:
        self._index = index
        self._model_version = model_version
        self._where = where
        self._face_ids = face_ids
        self._k = k
        self._floor = floor
        self._sizes = sizes
        packed = b"".join(face_id.bytes for face_id in face_ids)
        ids = np.frombuffer(packed, dtype="S16")
        self._order = np.argsort(ids, kind="stable").astype(np.int32)
        self._sorted = ids[self._order]
        self.fingerprint = " ".join(map(str, ("qdrant", model_version, zlib.crc32(packed), len(ids), k, floor, where)))

    async def find_missing(self, told: Told) -> set[int]:
        """Rows of the faces that no search would find."""
        missing: set[int] = set()
        for start in range(0, len(self._face_ids), PRESENT_IDS):
            ids = self._face_ids[start : start + PRESENT_IDS]
            present = await self._index.find_present(self._model_version, ids, self._where)
            missing.update(start + row for row, face_id in enumerate(ids) if face_id not in present)
            await told(0, len(self._face_ids))
        return missing

    async def fill(self, graph: NeighbourGraph, rows: Sequence[int], told: Told) -> None:
        """Find the neighbours of these rows."""
        batch, together = self._sizes.batch, self._sizes.batch * self._sizes.calls
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            async with asyncio.TaskGroup() as calls:
                for first in range(0, len(part), batch):
                    calls.create_task(self._fill_batch(graph, part[first : first + batch]))
            await told(part[-1] + 1, len(self._face_ids))

    async def _fill_batch(self, graph: NeighbourGraph, rows: Sequence[int]) -> None:
        limit = self._k
        while rows:
            lacking: list[int] = []
            for row, found in zip(rows, await self._ask(rows, limit), strict=True):
                others = self._find_rows(found)
                mine = (others != MISSING) & (others != row) & (found.cosines > self._floor)
                neighbours, cosines = others[mine][: self._k], found.cosines[mine][: self._k]
                # Qdrant has an order of its own for equals; here it is by row.
                order = np.lexsort((neighbours, -cosines))
                graph.neighbours[row, : len(order)] = neighbours[order]
                graph.similarities[row, : len(order)] = cosines[order]
                if len(order) < self._k and len(others) == limit:
                    lacking.append(row)
            rows = lacking if limit < MOST_HITS else []
            limit = min(2 * limit, MOST_HITS)

    async def _ask(self, rows: Sequence[int], limit: int) -> list[AlikeFaces]:
        """What is near each row; nothing is near a face that was deleted meanwhile."""
        ids = [self._face_ids[row] for row in rows]
        try:
            return await self._index.find_alike(self._model_version, ids, self._where, limit, self._floor)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            present = await self._index.find_present(self._model_version, ids, FaceFilter(self._where.library_id))
            left = [row for row, face_id in zip(rows, ids, strict=True) if face_id in present]
            if len(left) == len(rows):
                raise
        found = dict(zip(left, await self._ask(left, limit), strict=True))
        return [found.get(row, AlikeFaces.none()) for row in rows]

    def _find_rows(self, found: AlikeFaces) -> npt.NDArray[np.int32]:
        """Rows (H,) of what was found; -1 for faces that are none of the run's."""
        places = np.minimum(np.searchsorted(self._sorted, found.face_ids), len(self._sorted) - 1)
        return np.where(self._sorted[places] == found.face_ids, self._order[places], np.int32(MISSING))
