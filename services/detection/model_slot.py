"""The model of a server: loading at first, then there. Readiness asks here."""

from __future__ import annotations

from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import ModelInfo
from shared.errors import Unavailable
from shared.vectors.collections import Collections


class ModelSlot:
    """Holds the engine once it is loaded, and answers the readiness checks that depend on it."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._model: ModelInfo | None = None

    def fill(self, engine: FaceEngine) -> None:
        """The model is loaded."""
        self._model = engine.info

    async def check_model(self) -> None:
        """Raise :class:`Unavailable` while the model is loading."""
        self._loaded()

    async def check_collections(self) -> None:
        """Raise unless Qdrant has the collections of the model, in its dimension."""
        model = self._loaded()
        await self._collections.check(model.version, model.dimension)

    def _loaded(self) -> ModelInfo:
        if self._model is None:
            raise Unavailable("the model is loading")
        return self._model
