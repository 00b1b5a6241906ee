"""The detection service's job: looking at the photos of a session."""

from __future__ import annotations

from contextlib import aclosing
from uuid import UUID

from services.detection.domain.activating import agree_on_model, refuse_other_model
from services.detection.domain.flow import read_batches
from services.detection.domain.model import (
    DetectionDeps,
    OptionOverrides,
    PhotoFailed,
    PhotoFound,
    PhotoLook,
    PhotoOutcome,
)
from services.detection.domain.ports import PhotoLooker
from services.detection.domain.storing import store_looks
from services.detection.repository.session_photos import count_outcomes, list_pending_photos
from shared.db.engine import Database, Transaction
from shared.errors import Reason
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, SliceResults
from shared.rpc.ambient import carrying_request_id


class DetectAssets:
    """``detection.detect_assets``: one slice is some hundred photos of a session.

    Where a slice stands is in ``session_photos``: what is still PENDING is to be done. A batch's faces, its photos'
    outcomes and the renewed lease commit together, so a photo is stored once, however often its worker dies.
    """

    def __init__(self, database: Database, deps: DetectionDeps, looker: PhotoLooker) -> None:
        self._database = database
        self._deps = deps
        self._looker = looker

    async def run(self, run: SliceRun) -> Json:
        with carrying_request_id(str(run.slice.job_id)):
            return await self._run(run)

    async def _run(self, run: SliceRun) -> Json:
        library_id = run.slice.library_id
        session_id = UUID(run.slice.job_spec["session_id"])
        async with self._database.transaction() as tx:
            pending = await list_pending_photos(tx, library_id, session_id, run.slice.ordinal)
        gone: list[PhotoLook] = [
            PhotoFailed(photo.asset_id, Reason.RESOURCE_NOT_FOUND.value, f"asset '{photo.asset_id}' was deleted")
            for photo in pending
            if photo.uri is None
        ]
        present = [photo for photo in pending if photo.uri is not None]
        if gone:
            await self._store(run, session_id, "", gone)
        if not present:
            return {}
        pack = await self._looker.describe_pack(library_id)
        async with self._database.transaction() as tx:
            await agree_on_model(tx, self._deps, library_id, pack)
        looks = self._looker.look_at(library_id, present, OptionOverrides(**run.slice.job_spec["options"]))
        async with aclosing(read_batches(looks, self._deps.settings.session_batch)) as batches:
            async for batch in batches:
                await self._store(run, session_id, pack.model_version, batch)
        return {}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        session_id = UUID(job.spec["session_id"])
        outcomes = (await count_outcomes(tx, [session_id])).get(session_id, {})
        return {
            "photos": sum(outcomes.values()),
            "faces": outcomes.get(PhotoOutcome.FACES, 0),
            "none": outcomes.get(PhotoOutcome.NONE, 0),
            "skipped": outcomes.get(PhotoOutcome.SKIPPED, 0),
            "failed": outcomes.get(PhotoOutcome.FAILED, 0),
        }

    async def _store(self, run: SliceRun, session_id: UUID, model_version: str, looks: list[PhotoLook]) -> None:
        for look in looks:
            if isinstance(look, PhotoFound):
                refuse_other_model(model_version, look.model_version)
        async with run.step() as tx:
            progress = await store_looks(tx, self._deps, run.slice.library_id, session_id, model_version, looks)
            await run.checkpoint(tx, progress)
