"""The detection service's job: looking at the photos of a session."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from uuid import UUID

import structlog

from services.detection.domain.activating import refuse_changed_model, settle_on_model
from services.detection.domain.breaking import note_break
from services.detection.domain.flow import read_batches
from services.detection.domain.model import (
    DetectionDeps,
    OptionOverrides,
    PackDescription,
    PendingPhoto,
    PhotoFailed,
    PhotoFound,
    PhotoLook,
    PhotoOutcome,
)
from services.detection.domain.ports import DetectorBroke, PhotoLooker
from services.detection.domain.sessions import recount_session
from services.detection.domain.storing import store_looks
from services.detection.repository.session_photos import list_pending_photos
from shared.db.engine import Database, Transaction
from shared.errors import Reason
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, SliceResults
from shared.rpc.ambient import carrying_request_id

log = structlog.get_logger(__name__)


class DetectAssets:
    """``detection.detect_assets``: one slice is some hundred photos of a session.

    Where a slice stands is in ``session_photos``: what is still PENDING is to be done. A batch's faces, its photos'
    outcomes and the renewed lease commit together, so a photo is stored once, however often its worker dies. If a detector
    dies, the photos it had in hand are looked at last, one by one.
    """

    def __init__(self, database: Database, deps: DetectionDeps, looker: PhotoLooker, trial: asyncio.Lock) -> None:
        """``trial`` is held while a photo is on trial: by this handler and every other of the process."""
        self._database = database
        self._deps = deps
        self._looker = looker
        self.trial = trial

    async def run(self, run: SliceRun) -> Json:
        with carrying_request_id(str(run.slice.job_id)):
            return await self._run(run)

    async def _run(self, run: SliceRun) -> Json:
        library_id = run.slice.library_id
        session_id = UUID(run.slice.job_spec["session_id"])
        while pending := await self._read_pending(run, session_id):
            # Also what waits for a detector after one broke off: while there is none, the slice is given back.
            pack = await self._looker.describe_pack(library_id)
            async with self._database.transaction() as tx:
                await settle_on_model(tx, self._deps, library_id, pack)
            if photos := [photo for photo in pending if not photo.breaks]:
                await self._look_at(run, session_id, pack, photos, alone=False)
            else:
                async with self.trial:
                    await self._look_at(run, session_id, pack, pending, alone=True)
        return {}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        outcomes = await recount_session(tx, UUID(job.spec["session_id"]))
        return {
            "photos": sum(outcomes.values()),
            "faces": outcomes.get(PhotoOutcome.FACES, 0),
            "none": outcomes.get(PhotoOutcome.NONE, 0),
            "skipped": outcomes.get(PhotoOutcome.SKIPPED, 0),
            "failed": outcomes.get(PhotoOutcome.FAILED, 0),
        }

    async def _read_pending(self, run: SliceRun, session_id: UUID) -> list[PendingPhoto]:
        """What of the slice is still to be looked at; photos whose asset is gone are failed at once."""
        async with self._database.transaction() as tx:
            pending = await list_pending_photos(tx, run.slice.library_id, session_id, run.slice.ordinal)
        gone: list[PhotoLook] = [
            PhotoFailed(photo.asset_id, Reason.RESOURCE_NOT_FOUND.value, f"asset '{photo.asset_id}' was deleted")
            for photo in pending
            if photo.uri is None
        ]
        if gone:
            await self._store(run, session_id, "", gone)
        return [photo for photo in pending if photo.uri is not None]

    async def _look_at(
        self, run: SliceRun, session_id: UUID, pack: PackDescription, photos: list[PendingPhoto], *, alone: bool
    ) -> None:
        """Look at photos and store what becomes of them, until all are done or the detector breaks off."""
        library_id = run.slice.library_id
        options = OptionOverrides(**run.slice.job_spec["options"])
        looks = self._looker.look_at(library_id, photos, options, alone=alone)
        try:
            async with aclosing(read_batches(looks, self._deps.settings.session_batch)) as batches:
                async for batch in batches:
                    await self._store(run, session_id, pack.model_version, batch)
        except DetectorBroke as broke:
            log.warning("detector_broke", photos=broke.in_hand, alone=alone)
            async with run.step() as tx:
                progress = await note_break(tx, self._deps, library_id, session_id, broke.in_hand, alone=alone)
                await run.checkpoint(tx, progress)

    async def _store(self, run: SliceRun, session_id: UUID, model_version: str, looks: list[PhotoLook]) -> None:
        for look in looks:
            if isinstance(look, PhotoFound):
                refuse_changed_model(model_version, look.model_version)
        async with run.step() as tx:
            progress = await store_looks(tx, self._deps, run.slice.library_id, session_id, model_version, looks)
            await run.checkpoint(tx, progress)
