"""What the use cases need from outside, as they see it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from services.detection.domain.model import OptionOverrides, PackDescription, PendingPhoto, PhotoLook


class PhotoLooker(Protocol):
    """A detection server."""

    async def describe_pack(self, library_id: str) -> PackDescription:
        """The model it runs. Raises :class:`KithError`."""
        ...

    def look_at(
        self, library_id: str, photos: Sequence[PendingPhoto], options: OptionOverrides
    ) -> AsyncGenerator[PhotoLook, None]:
        """Look at photos that have a uri, many at once; the answers come as they are ready, in any order.

        Raises :class:`KithError` for what is not a photo's own fault: the server is away, or has too much to do.
        """
        ...
