"""The people page: persons, unnamed clusters and what is left over, in one order, one query per page.

Each part of the page is cut to the room that the parts before it have left, so that a page of persons never looks at the
clusters, nor a page of clusters at the faces in no group. Clusters stand in the order of their size when they were last
grouped, which an index has and which does not move while their faces are being named; what an entry shows is of now, and
looked up for the clusters of the page alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Row
from sqlalchemy.types import Text

from services.persons.domain.model import PeopleEntry, PeopleKind
from shared.db.engine import Reader
from shared.db.pagination import Page, PageRequest, make_page
from shared.db.query import Query


@dataclass(frozen=True, slots=True)
class PeopleFilter:
    """What is on the people page."""

    include_hidden: bool = False
    persons_only: bool = False
    min_cluster_faces: int = 0
    include_noise: bool = False
    include_ignored: bool = False


# The order of the page's parts.
_KINDS = tuple(PeopleKind)
_RANK = {kind: rank for rank, kind in enumerate(_KINDS)}


async def list_people(reader: Reader, library_id: str, request: PageRequest, where: PeopleFilter) -> Page[PeopleEntry]:
    """Persons, then unnamed clusters, each most faces first; then, on request, the faces in no group and the ignored ones."""
    values: dict[str, Any] = {"library_id": library_id, "room": request.size + 1}
    place = None
    if request.after is not None:
        rank, values["size"], entry_id = request.after
        place = _KINDS[rank]
        values["entry_id"] = UUID(entry_id) if place is PeopleKind.PERSON else entry_id
    parts = tuple(_list_parts(where, place))
    if PeopleKind.PERSON in parts:
        values["statuses"] = ["ACTIVE", "HIDDEN"] if where.include_hidden else ["ACTIVE"]
    if PeopleKind.CLUSTER in parts:
        values["least"] = max(1, where.min_cluster_faces)
    rows = await reader.rows(_make_statement(parts, place), values) if parts else []
    return make_page(rows, request, _entry, lambda row: [row.rank, row.size, row.entry_id])


def _list_parts(where: PeopleFilter, place: PeopleKind | None) -> Iterator[PeopleKind]:
    """The parts of the page that have entries after ``place``, in order."""
    asked = {
        PeopleKind.PERSON: True,
        PeopleKind.CLUSTER: not where.persons_only,
        PeopleKind.NOISE: where.include_noise and not where.persons_only,
        PeopleKind.IGNORED: where.include_ignored and not where.persons_only,
    }
    for kind in _KINDS:
        begun = place is not None and _RANK[kind] <= _RANK[place]
        # Of persons and clusters there may be more; the others are one entry each.
        more = kind is place and kind in {PeopleKind.PERSON, PeopleKind.CLUSTER}
        if asked[kind] and (more or not begun):
            yield kind


@cache
def _make_statement(parts: tuple[PeopleKind, ...], place: PeopleKind | None) -> Query:
    """The query of a page that begins after an entry of the kind ``place``, or (None) at the beginning."""
    ctes = []
    room = "CAST(:room AS integer)"
    for kind in parts:
        after = _AFTER[kind] if kind is place else ""
        ctes.append(f"{kind.value.lower()} AS MATERIALIZED ({_PARTS[kind].format(after=after)} LIMIT {room})")
        room += f" - (SELECT count(*) FROM {kind.value.lower()})"
    union = " UNION ALL ".join(f"SELECT * FROM {kind.value.lower()}" for kind in parts)
    statement = text(
        f'WITH {", ".join(ctes)} SELECT * FROM ({union}) AS people ORDER BY rank, size DESC, entry_id COLLATE "C" DESC'
    )
    typed: list[BindParameter[Any]] = []
    if PeopleKind.PERSON in parts:
        typed.append(bindparam("statuses", type_=ARRAY(Text())))
    if place in parts:
        typed.append(bindparam("entry_id", type_=Uuid() if place is PeopleKind.PERSON else Text()))
    return Query(statement.bindparams(*typed))


_AFTER = {
    PeopleKind.PERSON: "AND (face_count, person_id) < (:size, :entry_id)",
    PeopleKind.CLUSTER: "AND (clusters.face_count, clusters.cluster_id) < (:size, :entry_id)",
}

_PERSONS = """
    SELECT 0 AS rank, face_count AS size, person_id::text AS entry_id, name AS display_name,
        face_count, cover_face_id, first_seen, last_seen
    FROM persons
    WHERE library_id = :library_id AND status = ANY(:statuses) AND deleted_at IS NULL {after}
    ORDER BY persons.face_count DESC, person_id DESC
"""

# Members that were assigned or put aside since count for nothing. The cover is chosen as clustering chooses it: the best by
# quality and confidence together.
_CLUSTERS = """
    SELECT 1 AS rank, clusters.face_count AS size, cluster_id AS entry_id, 'Unnamed ' || number AS display_name,
        live.face_count::integer AS face_count, live.cover_face_id, live.first_seen, live.last_seen
    FROM clusters
    CROSS JOIN LATERAL (
        SELECT count(*) AS face_count, min(assets.captured_at) AS first_seen, max(assets.captured_at) AS last_seen,
            (array_agg(member.face_id ORDER BY faces.quality * member.confidence DESC, member.face_id))[1] AS cover_face_id
        FROM cluster_members AS member
        JOIN faces ON faces.face_id = member.face_id
        JOIN assets ON assets.library_id = faces.library_id AND assets.asset_id = faces.asset_id
        WHERE member.cluster_id = clusters.cluster_id AND faces.state = 'ACTIVE'
            AND NOT EXISTS (SELECT FROM assignments WHERE assignments.face_id = member.face_id)
    ) AS live
    WHERE library_id = :library_id AND state = 'ACTIVE' AND clusters.face_count >= :least AND live.face_count >= :least
        {after}
    ORDER BY clusters.face_count DESC, cluster_id DESC
"""

_LEFT_OVER = """
    SELECT {rank} AS rank, 0 AS size, '{entry_id}' AS entry_id, '{name}' AS display_name, count(*)::integer AS face_count,
        CAST(NULL AS uuid) AS cover_face_id, CAST(NULL AS timestamptz) AS first_seen, CAST(NULL AS timestamptz) AS last_seen
    FROM faces WHERE library_id = :library_id AND {which}
"""

_PARTS = {
    PeopleKind.PERSON: _PERSONS,
    PeopleKind.CLUSTER: _CLUSTERS,
    PeopleKind.NOISE: _LEFT_OVER.format(
        rank=_RANK[PeopleKind.NOISE],
        entry_id="noise",
        name="In no group",
        which="""state = 'ACTIVE'
            AND NOT EXISTS (SELECT FROM cluster_members WHERE cluster_members.face_id = faces.face_id)
            AND NOT EXISTS (SELECT FROM assignments WHERE assignments.face_id = faces.face_id)""",
    ),
    PeopleKind.IGNORED: _LEFT_OVER.format(
        rank=_RANK[PeopleKind.IGNORED],
        entry_id="ignored",
        name="Ignored",
        # Said twice, so that the index of the faces put aside fits.
        which="state <> 'ACTIVE' AND state = 'IGNORED'",
    ),
}


def _entry(row: Row[Any]) -> PeopleEntry:
    return PeopleEntry(
        kind=_KINDS[row.rank],
        entry_id=row.entry_id,
        display_name=row.display_name,
        face_count=row.face_count,
        cover_face_id=row.cover_face_id,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
    )
