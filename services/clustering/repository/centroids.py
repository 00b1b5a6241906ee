"""SQL of ``centroids``, and of the faces they are computed from; each for any number of persons at once.

A row and the entry of the outbox for its point are written in one transaction, and whoever searches or matches by centroids
reads the rows: so there is no moment at which a centroid is missing because its point is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Select, Text, and_, cast, delete, func, insert, literal, select, text
from sqlalchemy.engine import Row

from services.clustering.domain.model import ActiveModel, Centroid, CentroidKind, PersonCentroids, Standing
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_clustering import centroids, centroids_to_compute
from shared.db.tables_detection import face_embeddings, faces
from shared.db.tables_persons import assignments, persons
from shared.errors import NotFound
from shared.faces.embeddings import Vectors, decode_embedding, decode_embeddings, encode_embedding
from shared.faces.modes import ALGORITHM
from shared.ids import IdFactory

STREAM_ROWS = 4096


async def require_persons(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> None:
    """Raise :class:`NotFound` for the first of these that is no person of this library."""
    rows = await tx.rows(
        select(persons.c.person_id).where(
            persons.c.library_id == library_id, persons.c.person_id == func.any(list(person_ids))
        )
    )
    known = {row.person_id for row in rows}
    for person_id in person_ids:
        if person_id not in known:
            raise NotFound("person", str(person_id))


async def read_standings(tx: Transaction, model: ActiveModel, person_ids: Sequence[UUID]) -> list[Standing]:
    """Where each person's centroids stand, in order of id; one statement."""
    members = _members(model).where(assignments.c.person_id == func.any(list(person_ids)))
    now = members.group_by(assignments.c.person_id).subquery("now")
    stored = (
        select(centroids.c.person_id, centroids.c.members_hash, centroids.c.version)
        .where(
            centroids.c.person_id == func.any(list(person_ids)),
            centroids.c.model_version == model.model_version,
            centroids.c.kind == CentroidKind.GLOBAL.value,
        )
        .subquery("stored")
    )
    rows = await tx.rows(
        select(
            persons.c.person_id,
            now.c.members_hash,
            now.c.face_count,
            stored.c.members_hash.label("stored_hash"),
            stored.c.version,
            centroids_to_compute.c.changes,
        )
        .outerjoin(now, now.c.person_id == persons.c.person_id)
        .outerjoin(stored, stored.c.person_id == persons.c.person_id)
        .outerjoin(centroids_to_compute, centroids_to_compute.c.person_id == persons.c.person_id)
        .where(persons.c.person_id == func.any(list(person_ids)))
        .order_by(persons.c.person_id)
    )
    return [
        Standing(
            person_id=row.person_id,
            members_hash=bytes(row.members_hash or b""),
            face_count=row.face_count or 0,
            stored_hash=bytes(row.stored_hash) if row.stored_hash is not None else None,
            stored_version=row.version or 0,
            mark=row.changes,
        )
        for row in rows
    ]


async def read_embeddings(tx: Transaction, model: ActiveModel, standings: Sequence[Standing]) -> Vectors:
    """The embeddings that centroids are of, (N, D) float32 unit rows, by person in the order of ``standings``, and by face.

    One statement, decoded as it comes: memory is the array (2,048 bytes a face at 512 dimensions, 200 MB for somebody with
    100,000 faces) and one slice of rows. ``standings`` must be of the same snapshot, in order of id.
    """
    vectors = np.empty((sum(standing.face_count for standing in standings), model.dimension), dtype=np.float32)
    person_ids = [standing.person_id for standing in standings]
    statement = (
        _members(model)
        .with_only_columns(face_embeddings.c.embedding)
        .where(assignments.c.person_id == func.any(person_ids))
        .order_by(assignments.c.person_id, faces.c.face_id)
    )
    done = 0
    async with tx.connection.stream(statement.execution_options(yield_per=STREAM_ROWS)) as stream:
        async for rows in stream.partitions():
            vectors[done : done + len(rows)] = decode_embeddings([row.embedding for row in rows], model.dimension)
            done += len(rows)
    return vectors


async def replace_centroids(
    tx: Transaction,
    clock: Clock,
    ids: IdFactory,
    library_id: str,
    model: ActiveModel,
    computed: Sequence[PersonCentroids],
) -> list[UUID]:
    """Put new centroids in the place of these persons' old ones; answers the ids of all that came or went."""
    gone = await delete_centroids(
        tx, library_id, [person.standing.person_id for person in computed], model.model_version
    )
    now = clock.now()
    rows: list[dict[str, Any]] = [
        {
            "centroid_id": ids.new_uuid(),
            "library_id": library_id,
            "person_id": person.standing.person_id,
            "model_version": model.model_version,
            "kind": centroid.kind.value,
            "mode": centroid.mode,
            "embedding": encode_embedding(centroid.vector),
            "face_count": centroid.face_count,
            "trimmed_count": centroid.trimmed_count,
            "members_hash": person.standing.members_hash,
            "version": person.standing.stored_version + 1,
            "computed_at": now,
        }
        for person in computed
        for centroid in person.centroids
    ]
    if rows:
        await tx.execute(insert(centroids), rows)
    return [centroid_id for centroid_id, _ in gone] + [row["centroid_id"] for row in rows]


async def delete_centroids(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], model_version: str | None = None
) -> list[tuple[UUID, str]]:
    """Delete centroids of these persons, of one model or all; answers (centroid id, model version) of each."""
    statement = delete(centroids).where(
        centroids.c.library_id == library_id, centroids.c.person_id == func.any(list(person_ids))
    )
    if model_version is not None:
        statement = statement.where(centroids.c.model_version == model_version)
    rows = await tx.rows(statement.returning(centroids.c.centroid_id, centroids.c.model_version))
    return [(row.centroid_id, row.model_version) for row in rows]


async def list_centroids(
    tx: Transaction, library_id: str, model: ActiveModel, request: PageRequest, person_id: UUID | None
) -> Page[Centroid]:
    """Centroids of the active model by person, each person's GLOBAL one first; None = of all persons."""
    statement = _of_model(library_id, model)
    if person_id is not None:
        statement = statement.where(centroids.c.person_id == person_id)
    rows = await tx.rows(keyset(statement, request, _ORDER))
    page = make_page(rows, request, lambda row: row, lambda row: [row.person_id, row.kind, row.mode, row.centroid_id])
    return Page(await _with_staleness(tx, model, page.items), page.next_token)


async def list_centroids_of(
    tx: Transaction, library_id: str, model: ActiveModel, person_ids: Sequence[UUID]
) -> list[Centroid]:
    """All centroids of the active model of these persons, in the order of :func:`list_centroids`."""
    rows = await tx.rows(
        _of_model(library_id, model)
        .where(centroids.c.person_id == func.any(list(person_ids)))
        .order_by(*(key.column.desc() if key.descending else key.column for key in _ORDER))
    )
    return await _with_staleness(tx, model, rows)


_ORDER = (
    SortKey(centroids.c.person_id),
    SortKey(centroids.c.kind, descending=True),
    SortKey(centroids.c.mode),
    SortKey(centroids.c.centroid_id),
)


def _of_model(library_id: str, model: ActiveModel) -> Select[Any]:
    return select(centroids).where(
        centroids.c.library_id == library_id, centroids.c.model_version == model.model_version
    )


async def _with_staleness(tx: Transaction, model: ActiveModel, rows: Sequence[Row[Any]]) -> list[Centroid]:
    shown = sorted({row.person_id for row in rows})
    now = {standing.person_id: standing.members_hash for standing in await read_standings(tx, model, shown)}
    return [_centroid(row, now[row.person_id]) for row in rows]


def _members(model: ActiveModel) -> Select[Any]:
    """The faces a person's centroid is of, hashed and counted: ACTIVE, with an embedding of the model; none of somebody who is
    merged or deleted.

    The hash is :func:`shared.faces.centroid.hash_members` of (face id, version of its assignment) and of (name of the
    formula, 0), which sorts last because it begins with a letter beyond f. The model is in the key of what is stored.
    """
    lines = func.string_agg(
        func.concat(cast(faces.c.face_id, Text), ":", assignments.c.version, "\n"),
        text("'' ORDER BY faces.face_id"),
    )
    return (
        select(
            assignments.c.person_id,
            func.sha256(func.convert_to(func.concat(lines, literal(f"{ALGORITHM}:0\n")), "UTF8")).label("members_hash"),
            func.count().label("face_count"),
        )
        .select_from(assignments)
        .join(
            persons,
            and_(
                persons.c.person_id == assignments.c.person_id,
                persons.c.status != "MERGED",
                persons.c.deleted_at.is_(None),
            ),
        )
        .join(faces, and_(faces.c.face_id == assignments.c.face_id, faces.c.state == "ACTIVE"))
        .join(
            face_embeddings,
            and_(face_embeddings.c.face_id == faces.c.face_id, face_embeddings.c.model_version == model.model_version),
        )
    )


def _centroid(row: Row[Any], members_hash: bytes) -> Centroid:
    return Centroid(
        centroid_id=row.centroid_id,
        library_id=row.library_id,
        person_id=row.person_id,
        kind=CentroidKind(row.kind),
        mode=row.mode,
        model_version=row.model_version,
        version=row.version,
        face_count=row.face_count,
        trimmed_count=row.trimmed_count,
        stale=bytes(row.members_hash) != members_hash,
        computed_at=row.computed_at,
        vector=decode_embedding(bytes(row.embedding)),
    )
