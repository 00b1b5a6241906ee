"""What the use cases need of others: people from the persons service, searches from the vector index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from shared.faces.embeddings import Vectors
from shared.jobs.handing_over import MachineAssignments
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class FacesAssigned:
    """Faces that are the person's now, and those that could not be; or the job that does it, if there are many."""

    face_ids: Sequence[UUID]
    failures: Sequence[ItemFailure]
    job_id: UUID | None = None


class People(MachineAssignments, Protocol):
    """Writes to people. The same ``request_id`` with the same arguments is done once, however often it is called."""

    async def create_person(self, library_id: str, name: str, request_id: UUID) -> UUID:
        """A new person by this name; raises :class:`InvalidRequest` for a name that cannot be."""
        ...

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> FacesAssigned:
        """Give those of at most 200,000 faces that can go to a person, as one change; more than 500 by a job.

        Raises :class:`NotFound` for an unknown person.
        """
        ...


@dataclass(frozen=True, slots=True)
class NearFace:
    """A face the index found; ``cosine`` -1..1."""

    face_id: UUID
    asset_id: str
    cosine: float


class UnassignedFaces(Protocol):
    """Searches among the ACTIVE faces without a person."""

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vectors: Vectors,
        *,
        limit: int,
        min_cosine: float,
        min_quality: float,
        excluded: Sequence[UUID],
        captured_from: datetime | None,
    ) -> list[list[NearFace]]:
        """The ``limit`` nearest faces of each unit vector of (K, D), best first, in one call: K lists.

        Without ``excluded`` faces, and those of photos known to be older than ``captured_from``.
        """
        ...
