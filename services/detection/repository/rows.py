"""Many rows in one statement: columns as arrays, which PostgreSQL makes a table of.

One statement whose text does not depend on the number of rows: it is compiled and planned once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TableValuedAlias, column, func, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

Types = Mapping[str, TypeEngine[Any]]
"""Columns of such a table, in order, with their types."""


def table_of(name: str, types: Types, rows: Sequence[Sequence[Any]]) -> TableValuedAlias:
    """A table ``name`` of ``rows``, whose values are in the order of ``types``. No value may itself be an array."""
    columns = [list(values) for values in zip(*rows, strict=True)] if rows else [[] for _ in types]
    arrays = [literal(values, ARRAY(kind)) for values, kind in zip(columns, types.values(), strict=True)]
    labels = [column(label, kind) for label, kind in types.items()]
    return func.unnest(*arrays).table_valued(*labels, name=name).render_derived()
