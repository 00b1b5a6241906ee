"""Advisory locks of this service, each held to the end of its transaction."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import BigInteger, cast, func, select, union
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from shared.db.engine import Transaction
from shared.db.named_locks import lock_number, lock_until_end
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import faces
from shared.db.tables_persons import persons


async def lock_clusters(tx: Transaction, library_id: str) -> None:
    """Let nobody else change the clusters of a library."""
    await lock_until_end(tx, f"clusters/{library_id}")


async def hold_faces(
    tx: Transaction,
    library_id: str,
    face_ids: Sequence[UUID] = (),
    cluster_id: str | None = None,
    *,
    members: bool = True,
) -> None:
    """Keep these faces, and those with a place in a cluster of the library, or in the one, from being deleted; ``members``
    False: only these.

    To be called before anything of clusters is written: a deleted face takes its row in a cluster with it, so whoever
    deletes holds the face and waits for that row, while a writer of clusters holds the row and its foreign key waits for
    the face. With the faces first, in order of id, one waits for the other instead. Other changes of a face need not wait.
    """
    placed = select(cluster_members.c.face_id).where(cluster_members.c.library_id == library_id)
    covers = select(clusters.c.cover_face_id).where(clusters.c.library_id == library_id)
    medoids = select(clusters.c.medoid_face_id).where(clusters.c.library_id == library_id)
    if cluster_id is not None:
        placed = placed.where(cluster_members.c.cluster_id == cluster_id)
        covers = covers.where(clusters.c.cluster_id == cluster_id)
        medoids = medoids.where(clusters.c.cluster_id == cluster_id)
    given = select(func.unnest(cast(list(face_ids), ARRAY(UUID_TYPE(as_uuid=True)))))
    wanted = union(placed, covers, medoids, given) if members else given
    held = (
        select(faces.c.face_id)
        .where(faces.c.face_id.in_(wanted))
        .order_by(faces.c.face_id)
        .with_for_update(read=True, key_share=True)
        .cte("held")
    )
    # Counted there, so that a million ids do not travel.
    await tx.execute(select(func.count()).select_from(held))


async def lock_centroids(tx: Transaction, person_ids: Sequence[UUID]) -> None:
    """Let nobody else change the centroids of these persons; in order of id, so that no two calls wait for each other."""
    numbers = [lock_number(f"centroids/{person_id}") for person_id in sorted(set(person_ids))]
    in_order = func.unnest(cast(numbers, ARRAY(BigInteger))).column_valued("number")
    await tx.execute(select(func.count(func.pg_advisory_xact_lock(in_order))))


async def hold_persons(tx: Transaction, person_ids: Sequence[UUID]) -> None:
    """Keep these persons from being removed, in order of id; every other change of them may go on."""
    await tx.execute(
        select(persons.c.person_id)
        .where(persons.c.person_id == func.any(list(person_ids)))
        .order_by(persons.c.person_id)
        .with_for_update(read=True, key_share=True)
    )
