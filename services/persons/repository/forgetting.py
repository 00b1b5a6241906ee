"""SQL that removes a person: what they hold, and in the end their own row; and that looks whether anything is left.

People who are being forgotten are marked deleted, so nothing new comes to them; every step that takes something away locks
their rows, in order of id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update

from services.persons.domain.model import Person
from services.persons.repository.persons import lock_persons
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.outbox import PointKind
from shared.db.people_queue import take_people
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import face_embeddings, models
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.db.tables_shared import people_to_settle, vector_outbox
from shared.db.tables_suggestions import auto_finds, reviews, suggestions
from shared.errors import Contention, NotFound

_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Released:
    """Faces that are nobody's now, how many of them were prototypes, and how many vectors each model has of them."""

    face_ids: list[UUID]
    prototypes: int
    vectors: Counter[str]


async def lock_with_parts(tx: Transaction, library_id: str, person_id: UUID) -> list[Person]:
    """Lock a person and everybody who became part of them, over however many merges; the person first.

    Raises :class:`NotFound`, and :class:`Contention` if others are being merged into them faster than they can be locked.
    """
    locked: dict[UUID, Person] = {}
    for _ in range(_LOOKS):
        wanted = await _list_parts(tx, library_id, person_id)
        if not wanted:
            raise NotFound("person", str(person_id))
        # Whoever becomes part of somebody locks both: once all are locked, there are no more.
        if wanted <= locked.keys():
            return [locked[person_id], *(locked[part] for part in sorted(wanted - {person_id}))]
        locked = await lock_persons(tx, library_id, wanted)
    raise Contention("others are being merged into this person: try again")


async def list_names(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> list[str]:
    """The names of those of these persons who are still there."""
    rows = await tx.rows(
        select(persons.c.name).where(
            persons.c.library_id == library_id, persons.c.person_id == func.any(list(person_ids))
        )
    )
    return [row.name for row in rows]


async def release_faces(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> Released:
    """Take up to ``limit`` faces from these persons, who are locked first."""
    await lock_persons(tx, library_id, person_ids)
    rows = await tx.rows(
        select(assignments.c.face_id)
        .where(assignments.c.person_id == func.any(list(person_ids)))
        .order_by(assignments.c.face_id)
        .limit(limit)
    )
    face_ids = [row.face_id for row in rows]
    if not face_ids:
        return Released([], 0, Counter())
    gone = await tx.execute(delete(prototypes).where(prototypes.c.face_id == func.any(face_ids)))
    await tx.execute(delete(assignments).where(assignments.c.face_id == func.any(face_ids)))
    vectors = await tx.rows(
        select(face_embeddings.c.model_version, func.count().label("vectors"))
        .where(face_embeddings.c.face_id == func.any(face_ids))
        .group_by(face_embeddings.c.model_version)
    )
    return Released(face_ids, gone.rowcount, Counter({row.model_version: row.vectors for row in vectors}))


async def drop_exclusions(tx: Transaction, library_id: str, person_ids: Sequence[UUID], limit: int) -> int:
    """Remove up to ``limit`` exclusions from these persons, who are locked first; answers how many."""
    await lock_persons(tx, library_id, person_ids)
    some = select(exclusions.c.exclusion_id).where(exclusions.c.person_id == func.any(list(person_ids))).limit(limit)
    return (await tx.execute(delete(exclusions).where(exclusions.c.exclusion_id.in_(some)))).rowcount


async def mark_deleted(tx: Transaction, clock: Clock, person_ids: Sequence[UUID]) -> None:
    """Put locked persons away, so that nobody works with them any more; whoever is away already stays so since then."""
    now = clock.now()
    await tx.execute(
        update(persons)
        .where(persons.c.person_id == func.any(list(person_ids)))
        .values(deleted_at=func.coalesce(persons.c.deleted_at, now), updated_at=now, version=persons.c.version + 1)
    )


async def remove_persons(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> dict[str, int] | None:
    """Remove the rows of these persons, and answer how many by table; None, and nothing is removed, if one holds anything."""
    among = list(person_ids)
    # Against being referred to, too: whoever is about to add something to them waits, and then finds nobody.
    await tx.execute(
        select(persons.c.person_id)
        .where(persons.c.library_id == library_id, persons.c.person_id == func.any(among))
        .order_by(persons.c.person_id)
        .with_for_update()
    )
    if any((await count_held(tx, person_ids)).values()):
        return None
    waiting = await take_people(tx, person_ids)
    gone = await tx.execute(
        delete(persons).where(persons.c.library_id == library_id, persons.c.person_id == func.any(among))
    )
    return {"people_to_settle": len(waiting), "persons": gone.rowcount}


async def count_held(tx: Transaction, person_ids: Sequence[UUID]) -> dict[str, int]:
    """How many rows of the tables that refer to persons are of these, by table; one statement."""
    among = list(person_ids)
    conditions = {
        "assignments": assignments.c.person_id == func.any(among),
        "prototypes": prototypes.c.person_id == func.any(among),
        "exclusions": exclusions.c.person_id == func.any(among),
        "centroids": centroids.c.person_id == func.any(among),
        "suggestions": or_(suggestions.c.person_id == func.any(among), suggestions.c.moved_from == func.any(among)),
        "reviews": reviews.c.person_id == func.any(among),
    }
    return await _count(tx, conditions)


async def count_rest(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> dict[str, int]:
    """The same of the persons themselves, and of mentions in the evidence for others; one statement, which reads it all."""
    among = list(person_ids)
    names = [str(person_id) for person_id in person_ids]
    conditions = {
        "persons": persons.c.person_id == func.any(among),
        "people_to_settle": people_to_settle.c.person_id == func.any(among),
        "auto_finds": auto_finds.c.person_id == func.any(among),
        "suggestions": (suggestions.c.library_id == library_id)
        & (suggestions.c.evidence["runner_up_person_id"].astext == func.any(names)),
        "reviews": (reviews.c.library_id == library_id)
        & (reviews.c.evidence["runner_up_person_id"].astext == func.any(names)),
    }
    return await _count(tx, conditions)


async def list_models(tx: Transaction, library_id: str) -> list[str]:
    """Every model a library has or had vectors of."""
    rows = await tx.rows(
        select(models.c.model_version).where(models.c.library_id == library_id).order_by(models.c.model_version)
    )
    return [row.model_version for row in rows]


async def count_tombstones(
    tx: Transaction, kind: PointKind, library_id: str, model_version: str, until: datetime
) -> int:
    """How many points of a collection have no row any more and wait to be deleted, and did ``until`` then already."""
    if kind is PointKind.FACE:
        row = exists().where(
            face_embeddings.c.face_id == vector_outbox.c.point_id,
            face_embeddings.c.model_version == vector_outbox.c.model_version,
        )
    else:
        row = exists().where(centroids.c.centroid_id == vector_outbox.c.point_id)
    found: int = await tx.scalar(
        select(func.count())
        .select_from(vector_outbox)
        .where(
            vector_outbox.c.library_id == library_id,
            vector_outbox.c.kind == kind.value,
            vector_outbox.c.model_version == model_version,
            vector_outbox.c.queued_at <= until,
            ~row,
        )
    )
    return found


async def _count(tx: Transaction, conditions: Mapping[str, ColumnElement[bool]]) -> dict[str, int]:
    """How many rows there are of each condition, by its name; one statement."""
    counts = [
        select(func.count()).where(condition).scalar_subquery().label(table) for table, condition in conditions.items()
    ]
    (row,) = await tx.rows(select(*counts))
    return dict(row._mapping)


async def _list_parts(tx: Transaction, library_id: str, person_id: UUID) -> set[UUID]:
    parts = (
        select(persons.c.person_id)
        .where(persons.c.library_id == library_id, persons.c.person_id == person_id)
        .cte("parts", recursive=True)
    )
    merged = persons.alias("merged")
    parts = parts.union(select(merged.c.person_id).join(parts, merged.c.merged_into == parts.c.person_id))
    return {row.person_id for row in await tx.rows(select(parts.c.person_id))}
