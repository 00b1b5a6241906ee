"""What the domain needs from other services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from shared.db.outbox import PointKind


class Grouping(Protocol):
    """The clustering service's jobs."""

    async def start(self, library_id: str, request_id: UUID) -> UUID:
        """Group the unassigned faces of a library again; answers the job's id, the same for the same ``request_id``."""
        ...


class PersonPoints(Protocol):
    """What Qdrant holds of persons."""

    def name_collection(self, kind: PointKind, model_version: str) -> str:
        """The collection of one kind of points of one model."""
        ...

    async def count(self, kind: PointKind, library_id: str, model_version: str, person_ids: Sequence[UUID]) -> int:
        """How many points of a collection are of these persons, as Qdrant says itself; 0 where there is no collection."""
        ...
