"""Conditions that several queries share."""

from __future__ import annotations

from sqlalchemy import ColumnElement

from services.detection.domain.model import TimeSpan


def within(column: ColumnElement[object], span: TimeSpan) -> list[ColumnElement[bool]]:
    """That ``column`` lies in ``span``; nothing for a span open at both ends."""
    conditions: list[ColumnElement[bool]] = []
    if span.start is not None:
        conditions.append(column >= span.start)
    if span.end is not None:
        conditions.append(column < span.end)
    return conditions
