"""What a test sends to PostgreSQL: so that it can say what a call costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import event

from shared.db.engine import Database


@dataclass(frozen=True, slots=True)
class SentStatement:
    """One statement; ``executions`` is how many parameter sets it was sent with."""

    text: str
    executions: int


@contextmanager
def recording_statements(database: Database) -> Iterator[list[SentStatement]]:
    """Every statement sent through ``database`` inside the block, in order."""
    sent: list[SentStatement] = []

    def note(_connection: object, _cursor: object, text: str, parameters: object, _context: object, many: bool) -> None:
        sent.append(SentStatement(text, len(parameters) if many and isinstance(parameters, list | tuple) else 1))

    def note_query(text: str) -> None:
        sent.append(SentStatement(text, 1))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    database.listeners.append(note_query)
    try:
        yield sent
    finally:
        database.listeners.remove(note_query)
        event.remove(engine, "before_cursor_execute", note)
