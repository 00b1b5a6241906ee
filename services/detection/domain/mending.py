"""Mending Qdrant: which collections of a library, and the jobs that go through them, a slice for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.detection.domain.model import DetectionDeps
from services.detection.repository.models import read_dimensions
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.errors import NotFound
from shared.jobs.model import Job, NewJob
from shared.jobs.repository import create_job
from shared.vectors.reconcile import IndexPart
from shared.vectors.truth import count_points

RECONCILE = "detection.reconcile"
REBUILD_VECTORS = "detection.rebuild_vectors"


@dataclass(frozen=True, slots=True)
class StartMending:
    """A job of ``kind`` to start; ``collection`` empty = all of the library's."""

    kind: str
    library_id: str
    collection: str


async def choose_parts(
    tx: Transaction, name_of: Callable[[PointKind, str], str], library_id: str, collection: str
) -> dict[IndexPart, int]:
    """The library's part of each collection there should be, or of the one named, with the length of its vectors.

    There should be faces and centroids of every model the library has vectors of; ``name_of`` names their collections.
    Raises :class:`NotFound` for a name that is none of them.
    """
    parts = {
        IndexPart(kind, library_id, version): dimension
        for version, dimension in (await read_dimensions(tx, library_id)).items()
        for kind in PointKind
        if collection in ("", name_of(kind, version))
    }
    if collection and not parts:
        raise NotFound("collection", collection)
    return parts


async def start_mending(
    tx: Transaction, deps: DetectionDeps, command: StartMending, parts: Mapping[IndexPart, int], caller: Caller
) -> Job:
    """Start a job with a slice for each part; its total is the number of points there should be.

    The job of a library without any model has nothing to do, and succeeds.
    """
    counts = [await count_points(tx, part.kind, part.model_version, part.library_id) for part in parts]
    slices = [
        {"kind": part.kind.value, "model_version": part.model_version, "dimension": dimension}
        for part, dimension in parts.items()
    ]
    job = NewJob(
        library_id=command.library_id,
        kind=command.kind,
        unit="point",
        slices=slices or [{}],
        created_by=caller.subject,
        spec={"collection": command.collection},
        total=sum(counts),
    )
    return await create_job(tx, job, deps.ids, deps.clock)
