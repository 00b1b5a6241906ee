"""The detection service's other job: embedding a library's faces again, with another model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing

import structlog

from services.detection.domain.breaking import TRIALS
from services.detection.domain.flow import read_batches
from services.detection.domain.migrating import store_measures
from services.detection.domain.migration import (
    EmbeddingPlace,
    PhotoFaces,
    PhotoMeasure,
    PhotoMeasured,
    PhotoUnmeasured,
)
from services.detection.domain.model import DetectionDeps
from services.detection.domain.ports import DetectorBroke, FaceMeasurer, ModelFleets
from services.detection.domain.shadow_report import ShadowReport, compare_models
from services.detection.repository.confirmed import ConfirmedRows, read_confirmed, read_thresholds
from services.detection.repository.migrations import all_slices_embedded, find_versions, write_report
from services.detection.repository.unembedded import list_unembedded
from shared.db.engine import Database, Transaction
from shared.errors import Reason
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults
from shared.rpc.ambient import carrying_request_id

log = structlog.get_logger(__name__)

_EMBEDDED: Json = {"embedded": True}
_REPORTED: Json = {"embedded": True, "reported": True}


class MigrateModel:
    """``detection.migrate_model``: one slice is a range of photos, the last one to end makes the shadow report.

    What is to be done is what has no vector yet. A batch's vectors, their points' places in the outbox and the renewed lease
    commit together, so no face is embedded twice and none is left out, however often a worker dies. Photos that a detector
    had in hand when it died are measured last, one by one, as in a session.
    """

    def __init__(self, database: Database, deps: DetectionDeps, fleets: ModelFleets, trial: asyncio.Lock) -> None:
        """``trial`` is held while a photo is on trial: by this handler and every other of the process."""
        self._database = database
        self._deps = deps
        self._fleets = fleets
        self.trial = trial

    async def run(self, run: SliceRun) -> Json:
        with carrying_request_id(str(run.slice.job_id)):
            checkpoint = run.slice.checkpoint
            if "embedded" not in checkpoint and "first" in run.slice.spec:
                await self._embed(run, EmbeddingPlace.parse(checkpoint))
            if "reported" not in checkpoint and await self._end_embedding(run):
                await self._report(run)
        return {}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        return {"faces": job.done - job.failed - job.skipped, "failed": job.failed, "skipped": job.skipped}

    async def _embed(self, run: SliceRun, place: EmbeddingPlace) -> None:
        library_id, version = run.slice.library_id, run.slice.job_spec["model_version"]
        first, last = run.slice.spec["first"], run.slice.spec["last"]
        limit = self._deps.settings.session_slice
        while True:
            async with self._database.transaction() as tx:
                photos = await list_unembedded(tx, library_id, version, first, last, place, limit)
            if not photos:
                return
            # Also what waits for a detector after one broke off: while there is none, the slice is given back.
            measurer = await self._fleets.find_measurer(library_id, version)
            trusted = [photo for photo in photos if photo.asset_id not in place.breaks]
            async with AsyncExitStack() as turn:
                if not trusted:
                    await turn.enter_async_context(self.trial)
                # Whoever was on trial when the detector died goes to the end.
                taken = trusted or sorted(photos, key=lambda photo: place.breaks[photo.asset_id])
                place, broke = await self._embed_photos(run, measurer, taken, place, alone=not trusted)
            if not broke and len(taken) == len(photos):
                place = place.behind(photos[-1].asset_id)

    async def _embed_photos(
        self, run: SliceRun, measurer: FaceMeasurer, photos: list[PhotoFaces], place: EmbeddingPlace, *, alone: bool
    ) -> tuple[EmbeddingPlace, bool]:
        """Embed photos and store their vectors, until all are done or the detector breaks off; answers whether it did."""
        measures = measurer.measure(run.slice.library_id, photos, alone=alone)
        try:
            async with aclosing(read_batches(measures, self._deps.settings.session_batch)) as batches:
                async for batch in batches:
                    place = await self._store(run, batch, place)
        except DetectorBroke as broke:
            log.warning("detector_broke", photos=broke.in_hand, alone=alone)
            place = place.with_breaks(broke.in_hand, alone=alone)
            message = f"the detector died {TRIALS} times while it measured this photo alone"
            causes: list[PhotoMeasure] = [
                PhotoUnmeasured(photo, Reason.DETECTOR_CRASHED.value, message)
                for photo in photos
                if photo.asset_id in broke.in_hand and place.breaks[photo.asset_id] > TRIALS
            ]
            return await self._store(run, causes, place), True
        return place, False

    async def _store(self, run: SliceRun, measures: list[PhotoMeasure], place: EmbeddingPlace) -> EmbeddingPlace:
        library_id, version = run.slice.library_id, run.slice.job_spec["model_version"]
        # Of a photo asked for face by face, what has no vector now has failed.
        place = place.with_failed(each.photo.asset_id for each in measures if not isinstance(each, PhotoMeasured))
        async with run.step() as tx:
            progress = await store_measures(tx, self._deps, library_id, version, measures)
            await run.checkpoint(tx, progress, place.describe())
        return place

    async def _end_embedding(self, run: SliceRun) -> bool:
        """Note that this slice has embedded what it could; answers whether it is the last one that has."""
        async with run.step() as tx:
            # It locks the job: of two slices that end together, the later one sees the other's note.
            await run.checkpoint(tx, Progress(), _EMBEDDED)
            return await all_slices_embedded(tx, run.slice.job_id)

    async def _report(self, run: SliceRun) -> None:
        library_id, job_id = run.slice.library_id, run.slice.job_id
        await run.report(Progress(phase="report"))
        async with self._database.snapshot() as tx:
            old, new = await find_versions(tx, library_id, job_id)
            rows = await read_confirmed(tx, library_id, old, new)
            thresholds = await read_thresholds(tx, library_id)
        report = await asyncio.to_thread(_compare, rows, thresholds[old], thresholds[new])
        async with run.step() as tx:
            await write_report(tx, library_id, job_id, report)
            await run.checkpoint(tx, Progress(), _REPORTED)


def _compare(rows: ConfirmedRows, old: Mapping[str, float], new: Mapping[str, float]) -> ShadowReport:
    return compare_models(rows.decode(), old, new)
