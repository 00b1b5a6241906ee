"""SQL that finds names nobody has made trigrams of, and fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, func, select, update

from shared.db.engine import Transaction
from shared.db.tables_persons import persons


async def list_names_without_trigrams(tx: Transaction, after: UUID | None, limit: int) -> list[Row[Any]]:
    """The next persons by id without a trigram, each with ``name_key``; also those whose name has none."""
    page = select(persons.c.person_id, persons.c.name_key).where(func.cardinality(persons.c.name_trigrams) == 0)
    if after is not None:
        page = page.where(persons.c.person_id > after)
    return list(await tx.rows(page.order_by(persons.c.person_id).limit(limit)))


async def fill_trigrams(tx: Transaction, names: Mapping[UUID, tuple[str, list[str]]]) -> None:
    """Give persons the trigrams of a name's key, unless the name is another one by now; locked by id. The etag stays."""
    rows = [{"id": person_id, "key": key, "made": made} for person_id, (key, made) in sorted(names.items())]
    if rows:
        await tx.execute(_FILL, rows)


_FILL = (
    update(persons)
    .where(persons.c.person_id == bindparam("id"), persons.c.name_key == bindparam("key"))
    .values(name_trigrams=bindparam("made"))
)
