"""ImportFaces: a stream of messages, each stored in a transaction of its own while the next is being read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass

from kith.detection.v1 import faces_pb2 as pb
from services.detection.convert.importing import check_size, from_import
from services.detection.domain.importing import (
    FOREIGN_PACK,
    ImportedFaces,
    ImportTally,
    refuse_unknown_model,
    store_imported,
)
from services.detection.domain.model import DetectionDeps, PackDescription
from shared.config import QualitySettings
from shared.db.engine import Database
from shared.errors import InvalidRequest
from shared.ids import parse_library_id, parse_model_version
from shared.vectors.collections import Collections


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the faces of one stream go. ``searched``: when it began, the model was the library's, or the library had none."""

    library_id: str
    model: PackDescription
    searched: bool

    def check_repeats(self, message: pb.ImportFacesRequest) -> None:
        """Raise :class:`InvalidRequest` if a message names another library or model than the first."""
        if message.library_id and message.library_id != self.library_id:
            raise InvalidRequest("library_id must be that of the first message, or empty", field="library_id")
        if message.model_version and message.model_version != self.model.model_version:
            raise InvalidRequest("model_version must be that of the first message, or empty", field="model_version")


class FaceImports:
    """Takes in faces of other systems. ``pack`` is the model of this server."""

    def __init__(
        self,
        database: Database,
        deps: DetectionDeps,
        quality: QualitySettings,
        collections: Collections,
        pack: PackDescription,
        threads: Executor,
    ) -> None:
        self._database = database
        self._deps = deps
        self._quality = quality
        self._collections = collections
        self._pack = pack
        self._threads = threads

    async def take_in(self, messages: AsyncIterator[pb.ImportFacesRequest]) -> ImportTally:
        """Store what a stream brings. What is stored stays, however the stream ends, and can be sent again.

        Raises :class:`InvalidRequest` for a message that breaks the rules, :class:`PreconditionFailed` with
        MODEL_MISMATCH if the library has another model, is cut over to one meanwhile, or Qdrant has no collection of this one.
        """
        tally = ImportTally()
        target: _Target | None = None
        storing: asyncio.Task[ImportTally] | None = None
        number = 0
        try:
            async for message in messages:
                if target is None:
                    target = await self._open(message)
                target.check_repeats(message)
                check_size(message)
                faces, failures = await asyncio.get_running_loop().run_in_executor(
                    self._threads, from_import, message, number, target.model.dimension
                )
                if storing is not None:
                    tally.add(await storing)
                tally.fail(failures)
                storing = asyncio.create_task(self._store(target, faces), name=f"import-{number}")
                number += 1
            if storing is None:
                raise InvalidRequest("the stream holds no message", field="library_id")
            tally.add(await storing)
        except Exception:
            # What came before a message that breaks the rules is stored all the same; if it could not be, that is told.
            if storing is not None:
                await storing
            raise
        except asyncio.CancelledError:
            if storing is not None:
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
            raise
        return tally

    async def _open(self, first: pb.ImportFacesRequest) -> _Target:
        library_id, version = parse_library_id(first.library_id), parse_model_version(first.model_version)
        async with self._database.transaction() as tx:
            searched = await refuse_unknown_model(tx, library_id, version)
        dimension = await self._collections.read_dimension(version)
        ours = self._pack
        if version != ours.model_version or dimension != ours.dimension:
            # Of another house's model nothing more is known: groupings and questions use the usual cosines for it.
            return _Target(library_id, PackDescription(version, FOREIGN_PACK, dimension, {}, {}), searched)
        return _Target(library_id, ours, searched)

    async def _store(self, target: _Target, faces: ImportedFaces) -> ImportTally:
        if not faces.names:
            return ImportTally()
        async with self._database.transaction() as tx:
            return await store_imported(
                tx, self._deps, self._quality, target.library_id, target.model, faces, searched=target.searched
            )
