"""SQL of merging: who became part of whom, and what two persons disagree on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, func, or_, select

from services.persons.domain.model import Source
from shared.db.engine import Transaction
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.db.tables_suggestions import suggestions


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A face that one of two persons holds and a human has excluded from the other."""

    face_id: UUID
    held_by: UUID
    source: Source


async def list_links(tx: Transaction, person_ids: Collection[UUID]) -> dict[UUID, UUID | None]:
    """Whom each of these persons was merged into, and those in turn, to the ends of all chains (None).

    One statement. Persons that do not exist are left out.
    """
    start = (
        select(persons.c.person_id, persons.c.merged_into)
        .where(persons.c.person_id == func.any(list(person_ids)))
        .cte("chain", recursive=True)
    )
    onward = persons.alias("onward")
    chain = start.union(
        select(onward.c.person_id, onward.c.merged_into).join(start, onward.c.person_id == start.c.merged_into)
    )
    return {row.person_id: row.merged_into for row in await tx.rows(select(chain))}


async def list_contradictions(tx: Transaction, one: UUID, other: UUID) -> list[Contradiction]:
    """Faces that one of two locked persons holds and that are excluded from the other."""
    rows = await tx.rows(
        select(assignments.c.face_id, assignments.c.person_id, assignments.c.source)
        .join(exclusions, exclusions.c.face_id == assignments.c.face_id)
        .where(
            or_(
                and_(assignments.c.person_id == one, exclusions.c.person_id == other),
                and_(assignments.c.person_id == other, exclusions.c.person_id == one),
            )
        )
        .order_by(assignments.c.face_id)
    )
    return [Contradiction(row.face_id, row.person_id, Source(row.source)) for row in rows]


async def count_following(tx: Transaction, person_id: UUID) -> tuple[int, int]:
    """How many prototypes and open questions a person has, to be told of when they follow a merge."""
    row = (
        await tx.rows(
            select(
                select(func.count()).where(prototypes.c.person_id == person_id).scalar_subquery().label("prototypes"),
                select(func.count())
                .where(suggestions.c.person_id == person_id, suggestions.c.state == "PENDING")
                .scalar_subquery()
                .label("suggestions"),
            )
        )
    )[0]
    return row.prototypes, row.suggestions
