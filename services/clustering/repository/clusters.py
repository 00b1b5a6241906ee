"""SQL of ``clusters`` and ``cluster_members``, as readers see them: live members only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, Text, and_, cast, delete, func, select, text, true, update
from sqlalchemy.engine import Row

from services.clustering.domain.model import Cluster, ClusterChanged, ClusterMember, ClusterState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments
from shared.errors import NotFound, PreconditionFailed, Reason


async def list_clusters(
    tx: Transaction, library_id: str, request: PageRequest, states: Sequence[ClusterState], min_faces: int
) -> Page[Cluster]:
    """Clusters with live members, most first; one statement.

    They stand in the order of their size when they were last written, which an index has and which does not move while their
    faces are being named; what is shown is of now, and looked up for the clusters of the page alone.
    """
    statement, live = _select_clusters(library_id)
    least = max(1, min_faces)
    statement = statement.where(
        clusters.c.state.in_([state.value for state in states]),
        clusters.c.face_count >= least,
        live.c.face_count >= least,
    )
    order = [SortKey(clusters.c.face_count, descending=True), SortKey(clusters.c.cluster_id, descending=True)]
    rows = await tx.rows(keyset(statement, request, order))
    return make_page(rows, request, _cluster, lambda row: [row.size, row.cluster_id])


async def get_cluster(tx: Transaction, library_id: str, cluster_id: str) -> Cluster:
    """One cluster with live members; raises :class:`NotFound`."""
    found = await get_clusters(tx, library_id, [cluster_id])
    if not found:
        raise NotFound("cluster", cluster_id)
    return found[0]


async def get_unchanged(tx: Transaction, library_id: str, cluster_id: str, etag: str) -> Cluster:
    """The cluster, if it is still as the caller saw it.

    Raises :class:`ClusterChanged`, also for one that is gone, and :class:`PreconditionFailed` with ETAG_REQUIRED.
    """
    if not etag:
        raise PreconditionFailed(
            "etag is required: read the cluster first",
            reason=Reason.ETAG_REQUIRED,
            metadata={"resource": "cluster", "id": cluster_id},
        )
    found = await get_clusters(tx, library_id, [cluster_id])
    if not found or found[0].etag != etag:
        raise ClusterChanged(cluster_id, found[0].etag if found else "")
    return found[0]


async def get_clusters(tx: Transaction, library_id: str, cluster_ids: Sequence[str]) -> list[Cluster]:
    """Those of these clusters that have live members, most first; one statement."""
    statement, live = _select_clusters(library_id)
    rows = await tx.rows(
        statement.where(clusters.c.cluster_id == func.any(list(cluster_ids))).order_by(
            live.c.face_count.desc(), clusters.c.cluster_id
        )
    )
    return [_cluster(row) for row in rows]


async def set_state(tx: Transaction, clock: Clock, library_id: str, cluster_id: str, state: ClusterState) -> None:
    """Show a cluster, or put it away."""
    await tx.execute(
        update(clusters)
        .where(clusters.c.library_id == library_id, clusters.c.cluster_id == cluster_id)
        .values(state=state.value, version=clusters.c.version + 1, updated_at=clock.now())
    )


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
            _first_face("faces.quality * cluster_members.confidence DESC").label("cover_face_id"),
            func.min(assets.c.captured_at).label("first_captured"),
            func.max(assets.c.captured_at).label("last_captured"),
            func.md5(
                func.string_agg(cast(cluster_members.c.face_id, Text), text("',' ORDER BY cluster_members.face_id"))
            ).label("digest"),
        )
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
    )


def _select_clusters(library_id: str) -> tuple[Select[Any], FromClause]:
    """Clusters with the figures of their live members, without those that have none; and the figures by themselves.

    ``size`` is how many faces a cluster had when it was last written.
    """
    typical = "(cluster_members.face_id = clusters.medoid_face_id) IS TRUE DESC, cluster_members.confidence DESC"
    live = (
        summarise_members(cluster_members.c.cluster_id == clusters.c.cluster_id)
        .add_columns(_first_face(typical).label("medoid_face_id"))
        .lateral("live")
    )
    kept = [
        clusters.c[name]
        for name in (
            "cluster_id",
            "library_id",
            "state",
            "number",
            "run_id",
            "created_at",
            "updated_at",
            "separation",
        )
    ]
    figures = [column for column in live.c if column.name != "cluster_id"]
    statement = select(*kept, clusters.c.face_count.label("size"), *figures).join(live, true())
    return statement.where(clusters.c.library_id == library_id), live


def _first_face(order: str) -> ColumnElement[UUID]:
    """The first face of a group in an order, among equals that with the smallest id."""
    face: ColumnElement[UUID] = func.array_agg(
        text(f"cluster_members.face_id ORDER BY {order}, cluster_members.face_id")
    )[1]
    return face


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


def _cluster(row: Row[Any]) -> Cluster:
    return Cluster(
        cluster_id=row.cluster_id,
        library_id=row.library_id,
        state=ClusterState(row.state),
        number=row.number,
        face_count=row.face_count,
        cohesion=float(row.cohesion),
        cover_face_id=row.cover_face_id,
        first_captured=row.first_captured,
        last_captured=row.last_captured,
        run_id=row.run_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        etag=row.digest,
        medoid_face_id=row.medoid_face_id,
        separation=row.separation,
    )
