"""Keeping each person's centroids: one of all their faces, and one of each mode where they have several.

They are computed with no transaction open, from one snapshot, and carry the hash of the faces they were computed from. So
whatever changes meanwhile, a centroid never passes for fresh when it is not. The same snapshot tells the number under which the
person waits in the queue: once what was computed is stored, or nothing had to be, the person is taken out of it under that
number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from uuid import UUID

import numpy as np

from services.clustering.domain.model import (
    ActiveModel,
    CentroidKind,
    ClusteringDeps,
    Computation,
    NewCentroid,
    PersonCentroids,
    Standing,
)
from services.clustering.repository.centroid_queue import clear_people
from services.clustering.repository.centroids import (
    delete_centroids,
    read_embeddings,
    read_standings,
    replace_centroids,
    require_persons,
)
from services.clustering.repository.locks import hold_persons, lock_centroids
from shared.db.engine import Database, Transaction
from shared.db.outbox import PointKind, queue_points
from shared.faces.centroid import compute_centroid, count_trimmed
from shared.faces.embeddings import Vectors
from shared.faces.modes import find_modes

# So many embeddings are held at once (40 MB at 512 dimensions), and at least one person's.
FACES_AT_ONCE = 20_000


async def compute_stale(
    database: Database, model: ActiveModel, person_ids: Sequence[UUID], *, force: bool = False
) -> Computation:
    """Compute the centroids of those persons whose faces are others than the stored ones are of; of all with ``force``.

    One statement, and two for every 20,000 faces.
    """
    async with database.snapshot() as tx:
        standings = await read_standings(tx, model, person_ids)
    wanted = [standing for standing in standings if standing.stale or (force and standing.face_count)]
    ids = {standing.person_id for standing in wanted}
    computed: list[PersonCentroids] = []
    for batch in _batches(wanted):
        # A snapshot of its own, so that none stays open while the CPU works; what changed since is left for the next call.
        async with database.snapshot() as tx:
            present = await read_standings(tx, model, [standing.person_id for standing in batch])
            vectors = await read_embeddings(tx, model, present)
        computed += await asyncio.to_thread(_average, present, vectors)
    return Computation(computed, [standing for standing in standings if standing.person_id not in ids])


async def store_computed(
    tx: Transaction, deps: ClusteringDeps, library_id: str, model: ActiveModel, computation: Computation
) -> int:
    """Store what was computed, except where another call has stored since; answers of how many persons.

    Those whose centroids are right now are taken out of the queue, unless they have changed again.
    """
    if not computation.settles:
        return 0
    person_ids = [person.standing.person_id for person in computation.computed]
    await lock_centroids(tx, person_ids)
    # Against being removed between the look and the writing.
    await hold_persons(tx, person_ids)
    now = {standing.person_id: standing for standing in await read_standings(tx, model, person_ids)}
    ours = [
        person
        for person in computation.computed
        if person.standing.person_id in now and _stored(now[person.standing.person_id]) == _stored(person.standing)
    ]
    changed = await replace_centroids(tx, deps.clock, deps.ids, library_id, model, ours)
    settled = [*(person.standing for person in ours), *computation.fresh]
    await clear_people(tx, {standing.person_id: standing.mark for standing in settled if standing.mark is not None})
    points = [(centroid_id, model.model_version) for centroid_id in changed]
    await queue_points(tx, deps.clock, PointKind.CENTROID, library_id, points)
    return len(ours)


async def drop_centroids(tx: Transaction, deps: ClusteringDeps, library_id: str, person_id: UUID) -> int:
    """Delete a person's centroids of every model; answers how many. Raises :class:`NotFound`."""
    await require_persons(tx, library_id, [person_id])
    return len(await forget_centroids(tx, deps, library_id, [person_id]))


async def forget_centroids(
    tx: Transaction, deps: ClusteringDeps, library_id: str, person_ids: Sequence[UUID]
) -> list[tuple[UUID, str]]:
    """Delete the centroids of these persons, who need not exist, of every model; answers (centroid id, model version)."""
    await lock_centroids(tx, person_ids)
    gone = await delete_centroids(tx, library_id, person_ids)
    await queue_points(tx, deps.clock, PointKind.CENTROID, library_id, gone)
    return gone


def _stored(standing: Standing) -> tuple[int, bytes | None]:
    return standing.stored_version, standing.stored_hash


def _batches(standings: Sequence[Standing]) -> Iterator[list[Standing]]:
    batch: list[Standing] = []
    held = 0
    for standing in standings:
        if batch and held + standing.face_count > FACES_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(standing)
        held += standing.face_count
    if batch:
        yield batch


def _average(standings: Sequence[Standing], vectors: Vectors) -> list[PersonCentroids]:
    ends = np.cumsum([standing.face_count for standing in standings]).tolist()
    return [
        PersonCentroids(standing, _centroids(vectors[end - standing.face_count : end]))
        for standing, end in zip(standings, ends, strict=True)
    ]


def _centroids(vectors: Vectors) -> list[NewCentroid]:
    if not len(vectors):
        return []
    count = len(vectors)
    found = [NewCentroid(CentroidKind.GLOBAL, 0, compute_centroid(vectors), count, count_trimmed(count))]
    modes = find_modes(vectors)
    if modes is not None:
        sizes = np.bincount(modes.labels, minlength=len(modes.vectors)).tolist()
        found += [
            NewCentroid(CentroidKind.CLUSTER, mode, modes.vectors[mode], size, count_trimmed(size))
            for mode, size in enumerate(sizes)
        ]
    return found
