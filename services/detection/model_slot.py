"""The model of a server: loading at first, then there. Readiness asks here."""

from __future__ import annotations

import asyncio
from typing import Final

from services.detection.inference.engine import FaceEngine
from services.detection.inference.faces import ModelInfo
from shared.errors import Code, Unavailable
from shared.rpc.failures import to_kith_error
from shared.vectors.collections import Collections, DimensionMismatch

# Shorter than a readiness check may take, so that a Qdrant that hangs is away like one that is down.
_ANSWER_S: Final = 2.0


class ModelSlot:
    """Holds the engine once it is loaded, and answers the readiness checks that depend on it."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._model: ModelInfo | None = None

    async def fill(self, engine: FaceEngine) -> None:
        """The model is loaded.

        Raises :class:`DimensionMismatch` if its collections are there in another dimension, which no waiting mends. That
        they are missing, or Qdrant is, is only why the server is not ready yet.
        """
        model = engine.info
        try:
            await self._collections.check(model.version, model.dimension)
        except Exception as error:
            # Whatever else a store that is away makes its client raise is said by the readiness check, until it is back.
            if isinstance(error, DimensionMismatch) or to_kith_error(error) is None:
                raise
        self._model = model

    async def check_model(self) -> None:
        """Raise :class:`Unavailable` while the model is loading."""
        self._loaded()

    async def check_collections(self) -> None:
        """Raise if Qdrant says that it lacks the collections of the model, or has them in another dimension.

        A Qdrant that is away says nothing, and is no reason to stop: what is to be indexed waits in the outbox for it.
        """
        model = self._loaded()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._collections.check(model.version, model.dimension)
        except Exception as error:
            known = to_kith_error(error)
            if known is None or known.code is not Code.UNAVAILABLE:
                raise

    def _loaded(self) -> ModelInfo:
        if self._model is None:
            raise Unavailable("the model is loading")
        return self._model
