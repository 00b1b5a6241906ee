"""What a piece of work sends to PostgreSQL and to Qdrant, counted where it is sent."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from qdrant_client import AsyncQdrantClient
from sqlalchemy import event

from shared.foundation import Foundation

# The bookkeeping of jobs: claims, checkpoints, progress, and the notes to who watches them.
_MACHINERY: Final = re.compile(r"\b(jobs|job_slices|job_failures)\b|pg_notify")


@dataclass(slots=True)
class Sent:
    """Texts of statements, and names of Qdrant's calls, in order; ``searching``: the seconds these took together."""

    statements: list[str] = field(default_factory=list)
    qdrant_calls: list[str] = field(default_factory=list)
    searching: float = 0.0


def list_own(statements: Sequence[str]) -> list[str]:
    """Those that are not of the machinery of jobs."""
    return [each for each in statements if not _MACHINERY.search(each)]


@contextmanager
def counting(base: Foundation) -> Iterator[tuple[Foundation, Sent]]:
    """The foundation to work with inside the block, and what is sent through it. A statement sent with several sets of
    parameters counts as one: it is one round trip. BEGIN and COMMIT do not count.
    """
    sent = Sent()

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.statements.append(statement)

    engine = base.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    base.database.listeners.append(sent.statements.append)
    try:
        yield replace(base, qdrant=cast(AsyncQdrantClient, _Noting(base.qdrant, sent))), sent
    finally:
        base.database.listeners.remove(sent.statements.append)
        event.remove(engine, "before_cursor_execute", note)


class _Noting:
    """A client whose calls are noted."""

    def __init__(self, client: AsyncQdrantClient, sent: Sent) -> None:
        self._client = client
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._sent.qdrant_calls.append(name)
            begun = time.perf_counter()
            try:
                return await found(*args, **kwargs)
            finally:
                self._sent.searching += time.perf_counter() - begun

        return call
