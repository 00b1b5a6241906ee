"""SQL that puts a whole grouping in place: a fixed number of statements, each for all faces or clusters at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, case, cast, column, delete, func, insert, literal, or_, select, union, update
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE
from sqlalchemy.dialects.postgresql import insert as upsert

from services.clustering.repository.clusters import delete_empty_clusters, summarise_members
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_clustering import cluster_members, cluster_numbers, clusters
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments, change_faces, changes


@dataclass(frozen=True, slots=True)
class Membership:
    """A face in a cluster; ``confidence`` is its cosine to the centroid."""

    face_id: UUID
    cluster_id: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is now: in a cluster (None: in none), which may have been put away; ``pinned`` by a human."""

    cluster_id: str | None
    dismissed: bool = False
    pinned: bool = False


async def read_memberships(tx: Transaction, library_id: str, face_ids: Sequence[UUID]) -> dict[UUID, Place]:
    """Those of the faces that may still be grouped (ACTIVE, without a person), and where they are now."""
    rows = await tx.rows(
        select(faces.c.face_id, cluster_members.c.cluster_id, cluster_members.c.pinned, clusters.c.state)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(cluster_members, cluster_members.c.face_id == faces.c.face_id)
        .outerjoin(clusters, clusters.c.cluster_id == cluster_members.c.cluster_id)
        .where(
            faces.c.library_id == library_id,
            faces.c.face_id == func.any(list(face_ids)),
            faces.c.state == "ACTIVE",
            assignments.c.face_id.is_(None),
        )
    )
    return {row.face_id: Place(row.cluster_id, row.state == "DISMISSED", bool(row.pinned)) for row in rows}


async def list_new_faces(tx: Transaction, library_id: str, since: datetime) -> set[UUID]:
    """Faces that were found, put aside or taken back, or given or taken from somebody at or after ``since``."""
    touched = select(faces.c.face_id).where(
        faces.c.library_id == library_id, or_(faces.c.created_at >= since, faces.c.updated_at >= since)
    )
    moved = (
        select(change_faces.c.face_id)
        .join(changes, changes.c.change_id == change_faces.c.change_id)
        .where(changes.c.library_id == library_id, changes.c.created_at >= since)
    )
    return {row.face_id for row in await tx.rows(union(touched, moved))}


async def list_wider_clusters(tx: Transaction, library_id: str, face_ids: Sequence[UUID]) -> set[str]:
    """Clusters that have some of these faces, and others too."""
    given = cast(list(face_ids), ARRAY(UUID_TYPE(as_uuid=True)))
    inside = (
        select(cluster_members.c.cluster_id, func.count().label("count"))
        .where(cluster_members.c.library_id == library_id, cluster_members.c.face_id == func.any(given))
        .group_by(cluster_members.c.cluster_id)
        .subquery("inside")
    )
    rows = await tx.rows(
        select(inside.c.cluster_id)
        .join(cluster_members, cluster_members.c.cluster_id == inside.c.cluster_id)
        .group_by(inside.c.cluster_id, inside.c.count)
        .having(func.count() > inside.c.count)
    )
    return {row.cluster_id for row in rows}


async def insert_clusters(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    cluster_ids: Sequence[str],
    model_version: str,
    run_id: UUID,
    dismissed: Collection[str] = (),
) -> None:
    """New clusters, numbered on from the library's last; their figures come with :func:`refresh_clusters`."""
    if not cluster_ids:
        return
    last: int = await tx.scalar(
        upsert(cluster_numbers)
        .values(library_id=library_id, last_number=len(cluster_ids))
        .on_conflict_do_update(
            index_elements=["library_id"], set_={"last_number": cluster_numbers.c.last_number + len(cluster_ids)}
        )
        .returning(cluster_numbers.c.last_number)
    )
    now = clock.now()
    await tx.execute(
        insert(clusters),
        [
            {
                "cluster_id": cluster_id,
                "library_id": library_id,
                "number": last - len(cluster_ids) + position,
                "state": "DISMISSED" if cluster_id in dismissed else "ACTIVE",
                "model_version": model_version,
                "face_count": 0,
                "cohesion": 0.0,
                "run_id": run_id,
                "created_at": now,
                "updated_at": now,
            }
            for position, cluster_id in enumerate(cluster_ids, start=1)
        ],
    )


async def write_memberships(
    tx: Transaction, library_id: str, memberships: Sequence[Membership], ungrouped: Sequence[UUID]
) -> None:
    """Put faces into their clusters, whatever they were in, and take ``ungrouped`` out of any. Faces deleted meanwhile are
    passed over.
    """
    await tx.execute(delete(cluster_members).where(cluster_members.c.face_id == func.any(list(ungrouped))))
    new = (
        func.unnest(
            cast([row.face_id for row in memberships], ARRAY(UUID_TYPE(as_uuid=True))),
            cast([row.cluster_id for row in memberships], ARRAY(Text)),
            cast([row.confidence for row in memberships], ARRAY(REAL)),
        )
        .table_valued(
            column("face_id", UUID_TYPE(as_uuid=True)),
            column("cluster_id", Text),
            column("confidence", REAL),
            name="new",
        )
        .render_derived()
    )
    rows = select(new.c.face_id, literal(library_id), new.c.cluster_id, new.c.confidence).join(
        faces, faces.c.face_id == new.c.face_id
    )
    statement = upsert(cluster_members).from_select(["face_id", "library_id", "cluster_id", "confidence"], rows)
    written = statement.excluded
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["face_id"],
            set_={"cluster_id": written.cluster_id, "confidence": written.confidence},
            where=or_(
                cluster_members.c.cluster_id != written.cluster_id, cluster_members.c.confidence != written.confidence
            ),
        )
    )


async def clear_assigned(tx: Transaction, library_id: str) -> None:
    """Drop the rows of faces that have a person, and the clusters that are empty then."""
    await tx.execute(
        delete(cluster_members).where(
            cluster_members.c.library_id == library_id, cluster_members.c.face_id == assignments.c.face_id
        )
    )
    await delete_empty_clusters(tx, library_id)


@dataclass(frozen=True, slots=True)
class Figures:
    """What only a grouping knows of a cluster; ``separation`` None: there was no other."""

    cluster_id: str
    medoid_face_id: UUID
    separation: float | None


async def write_figures(tx: Transaction, figures: Sequence[Figures]) -> None:
    """Store what a grouping knows of its clusters."""
    new = (
        func.unnest(
            cast([row.cluster_id for row in figures], ARRAY(Text)),
            cast([row.medoid_face_id for row in figures], ARRAY(UUID_TYPE(as_uuid=True))),
            cast([row.separation for row in figures], ARRAY(REAL)),
        )
        .table_valued(
            column("cluster_id", Text),
            column("medoid_face_id", UUID_TYPE(as_uuid=True)),
            column("separation", REAL),
            name="new",
        )
        .render_derived()
    )
    await tx.execute(
        update(clusters)
        .where(clusters.c.cluster_id == new.c.cluster_id)
        .values(medoid_face_id=new.c.medoid_face_id, separation=new.c.separation)
    )


async def refresh_clusters(
    tx: Transaction,
    cluster_ids: Sequence[str],
    changed_ids: Sequence[str],
    model_version: str,
    run_id: UUID,
    now: datetime,
) -> None:
    """Make the figures of clusters what their members say; those in ``changed_ids`` were changed by this run."""
    summary = summarise_members(cluster_members.c.cluster_id == func.any(list(cluster_ids))).subquery("summary")
    changed = clusters.c.cluster_id == func.any(list(changed_ids))
    await tx.execute(
        update(clusters)
        .where(clusters.c.cluster_id == summary.c.cluster_id)
        .values(
            face_count=summary.c.face_count,
            cohesion=summary.c.cohesion,
            cover_face_id=summary.c.cover_face_id,
            first_captured=summary.c.first_captured,
            last_captured=summary.c.last_captured,
            model_version=model_version,
            version=clusters.c.version + case((changed, 1), else_=0),
            run_id=case((changed, run_id), else_=clusters.c.run_id),
            updated_at=case((changed, now), else_=clusters.c.updated_at),
        )
    )
