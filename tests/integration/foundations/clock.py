"""A clock that stands still until a test moves it, so that leases and retention need no waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class StillClock:
    """Starts now, since some times are compared with rows that PostgreSQL or another clock has dated."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now += timedelta(seconds=seconds)
