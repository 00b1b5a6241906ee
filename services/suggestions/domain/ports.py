"""What the domain needs from other services and from Qdrant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from shared.faces.embeddings import Vectors
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class PersonQuery:
    """What to search with for one person.

    ``vectors``: (Q, D) float32, unit length. ``excluded``: faces never to be found. ``birth_year``: photos certainly
    taken in an earlier year are left out; None if unknown.
    """

    person_id: UUID
    vectors: Vectors
    excluded: tuple[UUID, ...] = ()
    birth_year: int | None = None


class FaceSearch(Protocol):
    """Unassigned faces by likeness."""

    async def find_unassigned(
        self, library_id: str, model_version: str, queries: Sequence[PersonQuery], limit: int, min_cosine: float
    ) -> set[UUID]:
        """The active unassigned faces among the ``limit`` nearest of each vector, in as few calls as their number allows."""
        ...


@dataclass(frozen=True, slots=True)
class FacesWithin:
    """What one search found: the faces, and the cosine ``reach`` from which on no face is missing among them."""

    face_ids: set[UUID]
    reach: float


class FaceCensus(Protocol):
    """All unassigned faces that are like somebody, not only the most alike."""

    async def find_all_unassigned(
        self, library_id: str, model_version: str, query: PersonQuery, limit: int, min_cosine: float
    ) -> FacesWithin:
        """The active unassigned faces of at least ``min_cosine`` to any vector, in one call; ``limit`` bounds each vector's."""
        ...


class CentroidSearch(Protocol):
    """Unassigned faces by likeness to a person's centroids, which the clustering service keeps."""

    async def find_unassigned(self, library_id: str, person_id: UUID, limit: int, min_cosine: float) -> set[UUID]:
        """At most ``limit`` faces, the nearest; none for a person without faces."""
        ...


class PersonSearch(Protocol):
    """People by likeness to a face."""

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vector: Vectors,
        without: Sequence[Collection[UUID]],
        limit: int,
        *,
        without_face: UUID,
    ) -> set[UUID]:
        """The ``limit`` persons nearest to a unit vector (D,) by prototype or mode centroid, once for each collection of
        persons to leave out; the prototype ``without_face`` does not count. As many calls whatever is asked.
        """
        ...


class Assignments(Protocol):
    """The persons service's word on whose face a face is. Both writes may be sent again under the same ``request_id``."""

    async def assign_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        """Give a face to a person as a human's word; answers the change's id, empty if nothing changed.

        Raises the persons service's own :class:`KithError`, e.g. FACE_ALREADY_ASSIGNED.
        """
        ...

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> list[ItemFailure]:
        """Give up to 500 faces to a person as a human's word, those that can go; answers the others, by face.

        Raises what is about the person, or about the call.
        """
        ...

    async def exclude_face(self, library_id: str, face_id: UUID, person_id: UUID, reason: str, request_id: UUID) -> str:
        """Remember that a face is not a person; answers the change's id, empty if it was known."""
        ...
