"""SQL of ``matchers``, and of the faces a matcher learns from."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import Select, Text, and_, cast, func, insert, literal, select, update
from sqlalchemy.engine import Row

from services.persons.domain.matcher import (
    Confirmed,
    LibraryModel,
    Matcher,
    MatcherReport,
    NamedPerson,
    TrainingFaces,
)
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.named_locks import lock_until_end
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_detection import face_embeddings, faces, models
from shared.db.tables_persons import LIVING, assignments, matchers, persons
from shared.errors import NotFound
from shared.faces.embeddings import STORED, InvalidEmbedding
from shared.faces.projection import Projection

STREAM_ROWS: Final = 4096
_COLUMNS: Final = [column for column in matchers.c if column.name != "projection"]


async def find_library_model(tx: Transaction, library_id: str) -> LibraryModel | None:
    """The model a library works with; None before its first detection."""
    row = await tx.one_or_none(
        select(models.c.model_version, models.c.dimension).where(
            models.c.library_id == library_id, models.c.state == "ACTIVE"
        )
    )
    return LibraryModel(row.model_version, row.dimension) if row is not None else None


async def count_confirmed(tx: Transaction, library_id: str, model: LibraryModel, min_faces: int) -> Confirmed:
    """How much there is to learn from, in one statement."""
    held = _count_by_person(library_id, model).subquery()
    enough = held.c.faces >= min_faces
    row = (
        await tx.execute(
            select(
                func.count().filter(enough).label("persons"),
                func.coalesce(func.sum(held.c.faces).filter(enough), 0).label("faces"),
                func.count().filter(~enough).label("short_persons"),
            ).select_from(held)
        )
    ).one()
    return Confirmed(row.persons, int(row.faces), row.short_persons)


async def list_confirmed(
    tx: Transaction, library_id: str, model: LibraryModel, min_faces: int, limit: int, *, enough: bool
) -> list[NamedPerson]:
    """Persons with ``enough`` confirmed faces or too few, those with most first, at most ``limit``."""
    held = _count_by_person(library_id, model).subquery()
    rows = await tx.rows(
        select(persons.c.name, held.c.faces)
        .join(held, held.c.person_id == persons.c.person_id)
        .where(held.c.faces >= min_faces if enough else held.c.faces < min_faces)
        .order_by(held.c.faces.desc(), persons.c.name_key, persons.c.person_id)
        .limit(limit)
    )
    return [NamedPerson(row.name, row.faces) for row in rows]


async def read_confirmed(
    tx: Transaction,
    library_id: str,
    model: LibraryModel,
    *,
    min_faces: int,
    max_per_person: int,
    max_faces: int,
    seed: int,
) -> TrainingFaces:
    """Confirmed faces of persons who have ``min_faces`` of them, by one statement, as one stream.

    Where there are more than may be read, the same are read each time: of each person those first in an order the seed
    draws, and of all persons first ``min_faces`` of each, then the next of each. Memory: twice the vectors, 4 D bytes per
    face. Raises :class:`InvalidEmbedding` for a row of another dimension.
    """
    drawn = func.md5(func.concat(cast(assignments.c.face_id, Text), literal(f"/{seed}")))
    ranked = (
        _confirmed(library_id, model)
        .add_columns(
            func.row_number().over(partition_by=assignments.c.person_id, order_by=drawn).label("place"),
            func.count().over(partition_by=assignments.c.person_id).label("held"),
        )
        .subquery()
    )
    turn = func.greatest(ranked.c.place, min_faces)
    chosen = (
        select(ranked.c.person_id, ranked.c.face_id)
        .where(ranked.c.held >= min_faces, ranked.c.place <= max_per_person)
        .order_by(turn, func.md5(func.concat(cast(ranked.c.person_id, Text), literal(f"/{seed}"))), ranked.c.place)
        .limit(max_faces)
        .subquery()
    )
    statement = (
        select(chosen.c.person_id, face_embeddings.c.embedding)
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == chosen.c.face_id,
                face_embeddings.c.model_version == model.model_version,
            ),
        )
        .order_by(chosen.c.person_id, chosen.c.face_id)
    )
    parts = [np.empty((0, model.dimension), STORED)]
    numbers: dict[UUID, int] = {}
    whose: list[int] = []
    async with tx.connection.stream(statement.execution_options(yield_per=STREAM_ROWS)) as stream:
        async for rows in stream.partitions():
            parts.append(_stack([row.embedding for row in rows], model.dimension))
            whose += [numbers.setdefault(row.person_id, len(numbers)) for row in rows]
    return TrainingFaces(np.concatenate(parts), np.array(whose, dtype=np.int64), list(numbers))


async def lock_active_matcher(tx: Transaction, library_id: str) -> str | None:
    """Id of the active matcher, as the ledger writes it; nobody else changes which it is until the transaction ends."""
    await lock_until_end(tx, f"matchers/{library_id}")
    # Read only now: under READ COMMITTED this statement sees what the one we waited for has done.
    found = await tx.scalar(select(matchers.c.matcher_id).where(matchers.c.library_id == library_id, matchers.c.active))
    return str(found) if found is not None else None


async def insert_matcher(
    tx: Transaction,
    clock: Clock,
    matcher_id: UUID,
    library_id: str,
    model: LibraryModel,
    job_id: UUID,
    projection: Projection,
    report: MatcherReport,
) -> None:
    """Add a matcher, not active."""
    await tx.execute(
        insert(matchers),
        {
            "matcher_id": matcher_id,
            "library_id": library_id,
            "model_version": model.model_version,
            "job_id": job_id,
            "input_dimension": projection.input_dimension,
            "dimension": projection.dimension,
            "projection": projection.to_bytes(),
            "report": report.describe(),
            "created_at": clock.now(),
        },
    )


async def get_matcher(tx: Transaction, library_id: str, matcher_id: UUID) -> Matcher:
    """One matcher; raises :class:`NotFound`."""
    row = await tx.one_or_none(
        select(*_COLUMNS).where(matchers.c.library_id == library_id, matchers.c.matcher_id == matcher_id)
    )
    if row is None:
        raise NotFound("matcher", str(matcher_id))
    return _to_matcher(row)


async def get_active_matcher(tx: Transaction, library_id: str) -> Matcher | None:
    """The active matcher of a library, if it has one."""
    row = await tx.one_or_none(select(*_COLUMNS).where(matchers.c.library_id == library_id, matchers.c.active))
    return _to_matcher(row) if row is not None else None


async def list_matchers(tx: Transaction, library_id: str, request: PageRequest) -> Page[Matcher]:
    """Matchers of a library, latest first."""
    statement = select(*_COLUMNS).where(matchers.c.library_id == library_id)
    rows = await tx.rows(keyset(statement, request, [SortKey(matchers.c.matcher_id, descending=True)]))
    return make_page(rows, request, _to_matcher, lambda row: [row.matcher_id])


async def set_active_matcher(tx: Transaction, clock: Clock, library_id: str, matcher_id: str | None) -> None:
    """Make a matcher the active one, or none; after :func:`lock_active_matcher`."""
    await tx.execute(
        update(matchers).where(matchers.c.library_id == library_id, matchers.c.active).values(active=False)
    )
    if matcher_id is not None:
        await tx.execute(
            update(matchers)
            .where(matchers.c.library_id == library_id, matchers.c.matcher_id == UUID(matcher_id))
            .values(active=True, activated_at=clock.now())
        )


def _count_by_person(library_id: str, model: LibraryModel) -> Select[Any]:
    return (
        _confirmed(library_id, model)
        .with_only_columns(assignments.c.person_id, func.count().label("faces"))
        .group_by(assignments.c.person_id)
    )


def _confirmed(library_id: str, model: LibraryModel) -> Select[Any]:
    """Person and face of every assignment a human made, where there is something to learn."""
    return (
        select(assignments.c.person_id, assignments.c.face_id)
        .select_from(assignments)
        .join(persons, persons.c.person_id == assignments.c.person_id)
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == assignments.c.face_id,
                face_embeddings.c.model_version == model.model_version,
            ),
        )
        .where(
            assignments.c.library_id == library_id,
            assignments.c.source == "HUMAN",
            faces.c.state == "ACTIVE",
            LIVING,
        )
    )


def _stack(embeddings: list[bytes], dimension: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    if any(len(data) != dimension * STORED.itemsize for data in embeddings):
        raise InvalidEmbedding(f"not every embedding has {dimension} dimensions")
    return np.frombuffer(b"".join(embeddings), STORED).reshape(len(embeddings), dimension)


def _to_matcher(row: Row[Any]) -> Matcher:
    return Matcher(
        matcher_id=row.matcher_id,
        library_id=row.library_id,
        model_version=row.model_version,
        input_dimension=row.input_dimension,
        dimension=row.dimension,
        active=row.active,
        report=MatcherReport.parse(row.report),
        created_at=row.created_at,
        activated_at=row.activated_at,
    )
