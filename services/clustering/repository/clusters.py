"""SQL of ``clusters`` and ``cluster_members``, as readers see them: live members only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, and_, cast, delete, func, select, text, update
from sqlalchemy.engine import Row

from services.clustering.domain.model import Cluster, ClusterMember, ClusterState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments
from shared.errors import NotFound


async def list_clusters(
    tx: Transaction, library_id: str, request: PageRequest, states: Sequence[ClusterState], min_faces: int
) -> Page[Cluster]:
    """Clusters with live members, most first; two statements."""
    live = _live_members(func.count().label("face_count"), cluster_members.c.library_id == library_id).subquery("live")
    statement = (
        select(clusters, live.c.face_count.label("live_count"))
        .join(live, live.c.cluster_id == clusters.c.cluster_id)
        .where(
            clusters.c.library_id == library_id,
            clusters.c.state.in_([state.value for state in states]),
            live.c.face_count >= max(1, min_faces),
        )
    )
    order = [SortKey(live.c.face_count, descending=True), SortKey(clusters.c.cluster_id)]
    rows = await tx.rows(keyset(statement, request, order))
    page = make_page(rows, request, lambda row: row, lambda row: [row.live_count, row.cluster_id])
    return Page(await _with_figures(tx, page.items), page.next_token)


async def get_cluster(tx: Transaction, library_id: str, cluster_id: str) -> Cluster:
    """One cluster with live members; raises :class:`NotFound`."""
    rows = await tx.rows(
        select(clusters).where(clusters.c.library_id == library_id, clusters.c.cluster_id == cluster_id)
    )
    found = await _with_figures(tx, rows)
    if not found:
        raise NotFound("cluster", cluster_id)
    return found[0]


async def list_members(tx: Transaction, library_id: str, cluster_id: str, request: PageRequest) -> Page[ClusterMember]:
    """Live members of a cluster, best first."""
    statement = _live_members(
        cluster_members.c.face_id,
        cluster_members.c.library_id == library_id,
        cluster_members.c.cluster_id == cluster_id,
        grouped=False,
    ).add_columns(faces.c.asset_id, cluster_members.c.confidence)
    order = [SortKey(cluster_members.c.confidence, descending=True), SortKey(cluster_members.c.face_id)]
    rows = await tx.rows(keyset(statement, request, order))
    return make_page(
        rows,
        request,
        lambda row: ClusterMember(row.face_id, row.asset_id, row.confidence),
        lambda row: [row.confidence, row.face_id],
    )


async def list_member_ids(tx: Transaction, library_id: str, cluster_id: str) -> dict[UUID, bool]:
    """Every face with a row in the cluster, in order of id, and whether it is live."""
    rows = await tx.rows(
        select(
            cluster_members.c.face_id,
            and_(assignments.c.face_id.is_(None), faces.c.state == "ACTIVE").label("live"),
        )
        .join(faces, faces.c.face_id == cluster_members.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == cluster_members.c.face_id)
        .where(cluster_members.c.library_id == library_id, cluster_members.c.cluster_id == cluster_id)
        .order_by(cluster_members.c.face_id)
    )
    return {row.face_id: row.live for row in rows}


async def remove_members(
    tx: Transaction, clock: Clock, library_id: str, cluster_id: str, face_ids: Sequence[UUID]
) -> list[UUID]:
    """Take faces out of a cluster, which ends if none is left; answers those that were in it."""
    rows = await tx.rows(
        delete(cluster_members)
        .where(
            cluster_members.c.library_id == library_id,
            cluster_members.c.cluster_id == cluster_id,
            cluster_members.c.face_id == func.any(list(face_ids)),
        )
        .returning(cluster_members.c.face_id)
    )
    await tx.execute(
        update(clusters)
        .where(clusters.c.library_id == library_id, clusters.c.cluster_id == cluster_id)
        .values(version=clusters.c.version + 1, updated_at=clock.now())
    )
    await delete_empty_clusters(tx, library_id, clusters.c.cluster_id == cluster_id)
    return [row.face_id for row in rows]


async def delete_empty_clusters(tx: Transaction, library_id: str, *conditions: ColumnElement[bool]) -> None:
    """End the clusters of a library that pass the conditions and have no rows of members."""
    filled = select(cluster_members.c.cluster_id).where(cluster_members.c.cluster_id == clusters.c.cluster_id).exists()
    await tx.execute(delete(clusters).where(clusters.c.library_id == library_id, ~filled, *conditions))


def summarise_members(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Figures of clusters by their live members.

    The cover is the face that is best by quality and confidence together. ``digest`` is equal as long as the members are.
    """
    return (
        _live_members(func.count().label("face_count"), *conditions)
        .add_columns(
            func.avg(cluster_members.c.confidence).label("cohesion"),
            func.array_agg(
                text(
                    "cluster_members.face_id ORDER BY faces.quality * cluster_members.confidence DESC, cluster_members.face_id"
                )
            )[1].label("cover_face_id"),
            func.min(assets.c.captured_at).label("first_captured"),
            func.max(assets.c.captured_at).label("last_captured"),
            func.md5(
                func.string_agg(cast(cluster_members.c.face_id, Text), text("',' ORDER BY cluster_members.face_id"))
            ).label("digest"),
        )
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
    )


def _live_members(column: ColumnElement[Any], *conditions: ColumnElement[bool], grouped: bool = True) -> Select[Any]:
    columns = (cluster_members.c.cluster_id, column) if grouped else (column,)
    statement = (
        select(*columns)
        .select_from(cluster_members)
        .join(faces, faces.c.face_id == cluster_members.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == cluster_members.c.face_id)
        .where(assignments.c.face_id.is_(None), faces.c.state == "ACTIVE", *conditions)
    )
    return statement.group_by(cluster_members.c.cluster_id) if grouped else statement


async def _with_figures(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Cluster]:
    """Rows of ``clusters`` with the figures of now; without those that have no live member."""
    if not rows:
        return []
    ids = [row.cluster_id for row in rows]
    found = await tx.rows(summarise_members(cluster_members.c.cluster_id == func.any(ids)))
    figures = {row.cluster_id: row for row in found}
    return [_cluster(row, figures[row.cluster_id]) for row in rows if row.cluster_id in figures]


def _cluster(row: Row[Any], figures: Row[Any]) -> Cluster:
    return Cluster(
        cluster_id=row.cluster_id,
        library_id=row.library_id,
        state=ClusterState(row.state),
        number=row.number,
        face_count=figures.face_count,
        cohesion=float(figures.cohesion),
        cover_face_id=figures.cover_face_id,
        first_captured=figures.first_captured,
        last_captured=figures.last_captured,
        run_id=row.run_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        etag=figures.digest,
    )
