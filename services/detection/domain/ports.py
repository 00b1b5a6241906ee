"""What the use cases need from outside, as they see it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.detection.domain.migration import PhotoFaces, PhotoMeasure
from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoLook
from shared.errors import Reason, Unavailable
from shared.faces.embeddings import Vectors


class DetectorBroke(Unavailable):
    """A detection server went away in the middle. ``in_hand``: the photos, by asset id, that it had and did not answer.

    One of them may be the reason, or none.
    """

    reason = Reason.SERVICE_UNAVAILABLE

    def __init__(self, in_hand: Sequence[str]) -> None:
        super().__init__(f"the detection service broke off with {len(in_hand)} photos in hand")
        self.in_hand = tuple(in_hand)


class PhotoLooker(Protocol):
    """A detection server."""

    async def describe_pack(self, library_id: str) -> PackDescription:
        """The model it runs. Raises :class:`KithError`."""
        ...

    def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides, *, alone: bool = False
    ) -> AsyncGenerator[PhotoLook, None]:
        """Look at photos that have a uri, many at once; the answers come as they are ready, in any order.

        ``alone`` sends each only when the one before it is answered. Raises :class:`KithError` for what is not a photo's
        own fault, after the answers before it: the server is away, or has too much to do; :class:`DetectorBroke` if it
        went away with photos in hand.
        """
        ...


class FaceMeasurer(Protocol):
    """Detection servers that all run one model."""

    def measure(
        self, library_id: str, photos: Sequence[PhotoFaces], *, alone: bool = False
    ) -> AsyncGenerator[PhotoMeasure, None]:
        """Embed faces whose place is known, many photos at once; the answers come as they are ready, in any order.

        ``alone``, and what it raises, are as with :meth:`PhotoLooker.look_at`. Where the request for a photo is refused for
        what it says of a face, the answer is a :class:`PhotoByFace`.
        """
        ...


class ModelFleets(Protocol):
    """The configured detection services, of which each may run another model."""

    async def describe_model(self, library_id: str, model_version: str) -> PackDescription:
        """A model that one of them runs.

        Raises :class:`PreconditionFailed` with MODEL_MISMATCH, naming what runs where, if none does, and
        :class:`Unavailable` or :class:`Overloaded` if one that might does not say.
        """
        ...

    async def find_measurer(self, library_id: str, model_version: str) -> FaceMeasurer:
        """The servers that run this model. Raises as :meth:`describe_model`."""
        ...


class VectorCollections(Protocol):
    """Where vectors are searched."""

    async def check(self, model_version: str, dimension: int) -> None:
        """Raise :class:`PreconditionFailed` unless the collections of a model are there, in this dimension."""
        ...


@dataclass(frozen=True, slots=True)
class NearFace:
    """A face that a search found; ``cosine`` -1..1."""

    face_id: UUID
    cosine: float


class FaceSearch(Protocol):
    """The index of face embeddings. It may be a moment behind PostgreSQL."""

    async def find_nearest(
        self,
        library_id: str,
        model_version: str,
        vector: Vectors,
        *,
        limit: int,
        min_cosine: float,
        unassigned: bool,
        person_id: UUID | None,
        excluded: UUID | None,
    ) -> list[NearFace]:
        """The nearest active faces to a unit vector (D,) of one model, best first; without ``excluded``."""
        ...


@dataclass(frozen=True, slots=True)
class CropsSwept:
    """Crops of faces that are gone: how many were dropped, and how many were there when it was looked again."""

    dropped: int
    left: int


class KeptCrops(Protocol):
    """The crops that detection servers keep in memory."""

    async def sweep(self, library_id: str) -> CropsSwept:
        """Drop those of faces that are gone, on every server. Raises :class:`Unavailable` if one does not answer."""
        ...
