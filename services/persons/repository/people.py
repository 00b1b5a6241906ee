"""The people page: persons and unnamed clusters in one order, one query per page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, Text, and_, case, cast, exists, func, literal, or_, select, union_all
from sqlalchemy.engine import Row

from services.persons.domain.model import PeopleEntry, PeopleKind
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import cluster_members, clusters
from shared.db.tables_detection import faces
from shared.db.tables_persons import assignments, persons


@dataclass(frozen=True, slots=True)
class PeopleFilter:
    """What to leave out of the people page."""

    include_hidden: bool = False
    persons_only: bool = False
    min_cluster_faces: int = 0
    include_noise: bool = False


# The order of the page: persons, then clusters, then the faces in no group; each by face count.
_RANK = {PeopleKind.PERSON: 0, PeopleKind.CLUSTER: 1, PeopleKind.NOISE: 2}
_KIND = {rank: kind for kind, rank in _RANK.items()}


async def list_people(tx: Transaction, library_id: str, request: PageRequest, where: PeopleFilter) -> Page[PeopleEntry]:
    """Persons, then unnamed clusters, then (on request) the faces in no group; each most faces first."""
    statuses = ["ACTIVE", "HIDDEN"] if where.include_hidden else ["ACTIVE"]
    parts = [
        select(
            literal(_RANK[PeopleKind.PERSON]).label("rank"),
            cast(persons.c.person_id, Text).label("entry_id"),
            persons.c.name.label("display_name"),
            persons.c.face_count,
            persons.c.cover_face_id,
            persons.c.first_seen,
            persons.c.last_seen,
        ).where(persons.c.library_id == library_id, persons.c.status.in_(statuses), persons.c.deleted_at.is_(None))
    ]
    if not where.persons_only:
        parts.append(_clusters(library_id, where.min_cluster_faces))
        if where.include_noise:
            parts.append(_noise(library_id))
    people = union_all(*parts).subquery("people")
    order = [SortKey(people.c.rank), SortKey(people.c.face_count, descending=True), SortKey(people.c.entry_id)]
    columns = [column for column in people.c if column.name != "cover_face_id"]
    rows = await tx.rows(keyset(select(*columns, _cover(people).label("cover_face_id")), request, order))
    return make_page(rows, request, _entry, lambda row: [row.rank, row.face_count, row.entry_id])


def _cover(people: Subquery) -> ColumnElement[UUID]:
    """The stored cover of an entry; of a cluster whose cover was assigned or put aside since, its best face now.

    Beside the union, not in it: so it is looked up for the rows of the page alone.
    """
    stands = exists().where(faces.c.face_id == people.c.cover_face_id, faces.c.state == "ACTIVE")
    assigned = exists().where(assignments.c.face_id == people.c.cover_face_id)
    best = (
        select(cluster_members.c.face_id)
        .join(faces, faces.c.face_id == cluster_members.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == cluster_members.c.face_id)
        .where(
            cluster_members.c.cluster_id == people.c.entry_id,
            assignments.c.face_id.is_(None),
            faces.c.state == "ACTIVE",
        )
        .order_by((faces.c.quality * cluster_members.c.confidence).desc(), cluster_members.c.face_id)
        .limit(1)
        .scalar_subquery()
    )
    renewed = and_(people.c.rank == _RANK[PeopleKind.CLUSTER], or_(~stands, assigned))
    return case((renewed, best), else_=people.c.cover_face_id)


def _clusters(library_id: str, min_faces: int) -> Any:
    # Members that were assigned or put aside since count for nothing.
    live = (
        select(cluster_members.c.cluster_id, func.count().label("faces"))
        .join(faces, faces.c.face_id == cluster_members.c.face_id)
        .outerjoin(assignments, assignments.c.face_id == cluster_members.c.face_id)
        .where(cluster_members.c.library_id == library_id, assignments.c.face_id.is_(None), faces.c.state == "ACTIVE")
        .group_by(cluster_members.c.cluster_id)
        .subquery("live")
    )
    return (
        select(
            literal(_RANK[PeopleKind.CLUSTER]),
            clusters.c.cluster_id,
            func.concat("Unnamed ", clusters.c.number),
            live.c.faces,
            clusters.c.cover_face_id,
            clusters.c.first_captured,
            clusters.c.last_captured,
        )
        .join(live, live.c.cluster_id == clusters.c.cluster_id)
        .where(clusters.c.library_id == library_id, clusters.c.state == "ACTIVE", live.c.faces >= max(1, min_faces))
    )


def _noise(library_id: str) -> Any:
    grouped = exists().where(cluster_members.c.face_id == faces.c.face_id)
    assigned = exists().where(assignments.c.face_id == faces.c.face_id)
    return select(
        literal(_RANK[PeopleKind.NOISE]),
        literal("noise"),
        literal("In no group"),
        func.count(),
        literal(None).cast(faces.c.face_id.type),
        literal(None).cast(clusters.c.first_captured.type),
        literal(None).cast(clusters.c.last_captured.type),
    ).where(faces.c.library_id == library_id, faces.c.state == "ACTIVE", ~grouped, ~assigned)


def _entry(row: Row[Any]) -> PeopleEntry:
    return PeopleEntry(
        kind=_KIND[row.rank],
        entry_id=row.entry_id,
        display_name=row.display_name,
        face_count=row.face_count,
        cover_face_id=row.cover_face_id,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
    )
