"""The one ``MetaData`` of all tables, and the column types they share."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TIMESTAMP = DateTime(timezone=True)


def library_column(*, primary_key: bool = False) -> Column[str]:
    """``library_id``: every row belongs to exactly one library."""
    return Column("library_id", Text, primary_key=primary_key, nullable=False)


def one_of(column: str, *values: str) -> CheckConstraint:
    """A text column that holds only these words; cheaper to extend than an enum type."""
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=column)
