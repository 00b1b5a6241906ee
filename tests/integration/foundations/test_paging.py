"""Keyset pages over a real table that others write to meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select
from sqlalchemy.dialects.postgresql import REAL

from shared.db.pagination import SortKey, keyset, make_page, read_page_request
from shared.foundation import Foundation

ROWS = Table(
    "test_rows",
    MetaData(),
    Column("row_id", Integer, primary_key=True),
    Column("score", REAL, nullable=False),
    Column("name", Text, nullable=False),
)


@dataclass(frozen=True)
class Values:
    """What a row sorts by besides its id. Few values, so that ties are many."""

    score: float
    name: str


# 0.1 is not the same number as REAL and as double.
VALUES = st.builds(Values, st.sampled_from([0.1, 0.5, -1.0]), st.sampled_from(["a", "b"]))
DIRECTIONS = st.tuples(st.booleans(), st.booleans(), st.booleans())


@pytest.fixture
async def rows_table(base: Foundation) -> None:
    async with base.database.engine.begin() as connection:
        await connection.run_sync(ROWS.create)


@pytest.mark.usefixtures("rows_table")
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    there=st.lists(VALUES, min_size=1, max_size=9),
    added=st.lists(st.lists(VALUES, max_size=3), max_size=6),
    directions=DIRECTIONS,
    size=st.integers(1, 4),
)
async def test_no_row_that_was_there_is_skipped_or_repeated(
    base: Foundation,
    there: list[Values],
    added: list[list[Values]],
    directions: tuple[bool, bool, bool],
    size: int,
) -> None:
    columns = (ROWS.c.score, ROWS.c.name, ROWS.c.row_id)
    order = [SortKey(column, descending) for column, descending in zip(columns, directions, strict=True)]
    # Ids of the rows that come later lie before, between and after those that were there.
    new_ids = iter([5, 1001, 15, 1, 1002, 25, 3, 35, 45, 1003, 55, 65, 75, 85, 95, 2, 4, 6])
    seen: list[int] = []
    async with base.database.transaction() as tx:
        await tx.execute(ROWS.delete())
        known = [10 * (index + 1) for index in range(len(there))]
        await tx.execute(insert(ROWS), [_row(row_id, row) for row_id, row in zip(known, there, strict=True)])
        token, batches = "", iter(added)
        while True:
            request = read_page_request(size, token, default=50, maximum=500, filters=directions)
            rows = await tx.rows(keyset(select(ROWS), request, order))
            page = make_page(rows, request, lambda row: row.row_id, lambda row: [row.score, row.name, row.row_id])
            assert len(page.items) <= size
            seen += page.items
            token = page.next_token
            if not token:
                break
            for values in next(batches, []):
                await tx.execute(insert(ROWS), _row(next(new_ids), values))
        assert len(seen) == len(set(seen))
        assert set(known) <= set(seen)


def _row(row_id: int, values: Values) -> dict[str, object]:
    return {"row_id": row_id, "score": values.score, "name": values.name}
