"""Persons as callers see them: one, or a page; of a merged one, the survivor at the end of the chain.

The commonest calls of all, so their statements are texts that are put together once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.engine import Row

from services.persons.domain.model import Person, PersonOrder, PersonStatus
from services.persons.repository.persons import to_person
from shared.db.engine import Reader
from shared.db.pagination import Page, PageRequest, make_page
from shared.db.query import Query
from shared.db.tables_persons import persons
from shared.errors import NotFound

# What asyncpg takes for PostgreSQL's -infinity: sorts before any date, and a page token can hold it.
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PersonFilter:
    """Which persons to list, and in what order.

    ``alike`` are the trigrams of a name; of them and a person's together, ``min_likeness`` (0..1) must be common to both.
    LIKENESS is an order only with them.
    """

    statuses: tuple[str, ...] = ("ACTIVE",)
    name_prefix: str = ""
    alike: tuple[str, ...] = ()
    min_likeness: float = 0.0
    has_birth_date: bool | None = None
    show_deleted: bool = False
    order: PersonOrder = PersonOrder.NAME


async def read_person(reader: Reader, library_id: str, person_id: UUID, *, show_deleted: bool = False) -> Person:
    """One person; raises :class:`NotFound`, also for one put away unless ``show_deleted``."""
    row = await reader.one_or_none(_ONE, {"library_id": library_id, "person_id": person_id})
    if row is None or (row.deleted_at is not None and not show_deleted):
        raise NotFound("person", str(person_id))
    return (await _name_survivors(reader, [to_person(row)]))[0]


async def read_survivor(reader: Reader, library_id: str, person_id: UUID) -> Person:
    """A person, or who they are part of now; one statement. Raises :class:`NotFound`, also for one put away."""
    row = await reader.one_or_none(_SURVIVOR, {"library_id": library_id, "person_id": person_id})
    if row is None or row.deleted_at is not None:
        raise NotFound("person", str(person_id))
    return to_person(row)


async def list_persons(reader: Reader, library_id: str, request: PageRequest, where: PersonFilter) -> Page[Person]:
    """Persons that pass the filter."""
    values: dict[str, Any] = {"library_id": library_id, "statuses": where.statuses, "room": request.size + 1}
    if where.name_prefix:
        values["name_prefix"] = where.name_prefix
    if where.alike:
        values |= {
            "alike": where.alike,
            "least": where.min_likeness,
            "probes": _choose_probes(where.alike, where.min_likeness),
        }
    if request.after is not None:
        values["first"], values["person_id"] = request.after
    shape = _Shape(
        frozenset(values), has_birth_date=where.has_birth_date, show_deleted=where.show_deleted, order=where.order
    )
    position = _ORDERS[where.order].position
    page = make_page(
        await reader.rows(_make_list(shape), values), request, to_person, lambda row: [position(row), row.person_id]
    )
    return Page(await _name_survivors(reader, page.items), page.next_token)


def _choose_probes(alike: Sequence[str], least: float) -> list[str]:
    """Trigrams of which every name alike has one at least.

    It has ``least`` of all of ``alike``, so one less than that may be left out: beginnings of words, which most names share.
    """
    spare = math.ceil(least * len(alike)) - 1
    return sorted(alike, key=lambda trigram: len(trigram.lstrip()))[max(0, spare) :]


async def _name_survivors(reader: Reader, found: list[Person]) -> list[Person]:
    """The same persons, the merged ones with who they are part of now; one statement, if there are any."""
    merged = [person.person_id for person in found if person.status is PersonStatus.MERGED]
    if not merged:
        return found
    survivors = await _find_survivors(reader, merged)
    return [
        replace(person, merged_into=survivors.get(person.person_id, person.merged_into))
        if person.merged_into
        else person
        for person in found
    ]


async def _find_survivors(reader: Reader, merged: Collection[UUID]) -> Mapping[UUID, UUID]:
    rows = await reader.rows(_SURVIVORS, {"merged": list(merged)})
    return {row.merged: row.survivor for row in rows}


@dataclass(frozen=True, slots=True)
class _Order:
    """The first column of an order and where a row stands in it. Ids go the same way, so that one index has the order."""

    column: str
    descending: bool
    position: Callable[[Row[Any]], Any]


_ORDERS = {
    PersonOrder.NAME: _Order("name_key", False, lambda row: row.name_key),
    PersonOrder.FACE_COUNT: _Order("face_count", True, lambda row: row.face_count),
    # As its index has it.
    PersonOrder.LAST_SEEN: _Order("coalesce(last_seen, '-infinity')", True, lambda row: row.last_seen or _NEVER),
    PersonOrder.LIKENESS: _Order("likeness", True, lambda row: row.likeness),
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What decides the text of a list's statement: the names of its values, and what is no value in it."""

    values: frozenset[str]
    has_birth_date: bool | None
    show_deleted: bool
    order: PersonOrder


@cache
def _make_list(shape: _Shape) -> Query:
    order = _ORDERS[shape.order]
    direction, beyond = ("DESC", "<") if order.descending else ("ASC", ">")
    columns, tables = _COLUMNS, "persons"
    conditions = ["library_id = :library_id", "status = ANY(:statuses)"]
    if not shape.show_deleted:
        conditions.append("deleted_at IS NULL")
    if shape.has_birth_date is not None:
        conditions.append(f"birth_year IS {'NOT NULL' if shape.has_birth_date else 'NULL'}")
    if "name_prefix" in shape.values:
        conditions.append("name_key ^@ :name_prefix")
    if "alike" in shape.values:
        columns, tables = f"{_COLUMNS}, likeness", _ALIKE
        conditions.append("likeness >= :least")
    if "first" in shape.values:
        conditions.append(f"({order.column}, person_id) {beyond} (:first, :person_id)")
    return _typed(
        f"SELECT {columns} FROM {tables} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {order.column} {direction}, person_id {direction} LIMIT :room"
    )


def _typed(statement: str, *parameters: Any) -> Query:
    return Query(text(statement).bindparams(*parameters).columns(external_ids=JSONB()))


_COLUMNS = ", ".join(f"persons.{name}" for name in persons.c.keys() if name not in {"name_trigrams", "cover_by_hand"})  # noqa: SIM118

# Those with a probe in common, whatever the order asked for; then how many trigrams are common to both names, over all of both.
_ALIKE = """
    (SELECT * FROM persons WHERE library_id = :library_id AND name_trigrams && :probes OFFSET 0) AS persons
    CROSS JOIN LATERAL (
        SELECT count(*) AS common FROM unnest(name_trigrams) AS own (trigram) WHERE trigram = ANY(:alike)
    ) AS counted
    CROSS JOIN LATERAL (
        SELECT common / CAST(cardinality(name_trigrams) + cardinality(:alike) - common AS double precision) AS likeness
    ) AS compared
"""

_ONE = _typed(f"SELECT {_COLUMNS} FROM persons WHERE library_id = :library_id AND person_id = :person_id")

# UNION, so that a circle, which nothing makes, would end.
_SURVIVOR = _typed(
    f"""
    WITH RECURSIVE chain (person_id, merged_into) AS (
        SELECT person_id, merged_into FROM persons WHERE library_id = :library_id AND person_id = :person_id
        UNION
        SELECT persons.person_id, persons.merged_into FROM chain JOIN persons ON persons.person_id = chain.merged_into
    )
    SELECT {_COLUMNS} FROM chain JOIN persons ON persons.person_id = chain.person_id WHERE chain.merged_into IS NULL
    """
)

_SURVIVORS = _typed(
    """
    WITH RECURSIVE chain (merged, survivor) AS (
        SELECT person_id, merged_into FROM persons WHERE person_id = ANY(:merged)
        UNION
        SELECT chain.merged, persons.merged_into
        FROM chain JOIN persons ON persons.person_id = chain.survivor
        WHERE persons.merged_into IS NOT NULL
    )
    SELECT chain.merged, chain.survivor
    FROM chain JOIN persons ON persons.person_id = chain.survivor
    WHERE persons.merged_into IS NULL
    """,
    bindparam("merged", type_=ARRAY(Uuid())),
)
