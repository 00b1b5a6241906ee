"""The doctor's jobs: they find which points of Qdrant have to be written, and the relay writes them.

Both go through one collection page by page. What a page needs is queued in the outbox, in the step that moves the position
on; then the job waits until the relay has written it, and only then counts it as done. So the relay stays the only writer of
points (ADR 0003), no older version can overwrite a newer one however the truth changes meanwhile, the outbox never holds
more than a page of a job, and a job that has SUCCEEDED has mended what is searched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from services.detection.domain.mending import REBUILD_VECTORS, RECONCILE
from shared.clock import Clock
from shared.db.engine import Database, Transaction
from shared.db.outbox import PointKind, count_between, queue_points, raise_versions
from shared.errors import Reason, Unavailable
from shared.jobs.execution import JobHandler, SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults
from shared.vectors.collections import Collections
from shared.vectors.reconcile import PAGE, Comparison, DriftKind, IndexPart, find_strangers
from shared.vectors.truth import page_ids, page_points, read_libraries

# Several batches of the relay: long enough not to notice the wait at its end, short enough to let others between.
REBUILD_PAGE: Final = 2000
POLL_S: Final = 0.02
STALLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Queued:
    """Points of one step in the outbox: from ``first`` to ``last``, none of them queued later than ``at``."""

    first: UUID
    last: UUID
    at: datetime

    @classmethod
    def parse(cls, stored: Sequence[str]) -> Queued:
        """As in a checkpoint."""
        first, last, at = stored
        return cls(UUID(first), UUID(last), datetime.fromisoformat(at))

    def store(self) -> list[str]:
        """For a checkpoint."""
        return [str(self.first), str(self.last), self.at.isoformat()]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a slice stands: in which phase, where its next page begins, and what it has counted.

    ``waiting`` is a page that was queued and may not be written yet, ``pending`` how many points to count as done when it
    is.
    """

    phase: str
    start: UUID | None = None
    waiting: Queued | None = None
    pending: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, checkpoint: Json, first_phase: str) -> Position:
        """The position of a checkpoint; of an empty one, the beginning."""
        if not checkpoint:
            return cls(first_phase)
        waiting = checkpoint["waiting"]
        return cls(
            phase=checkpoint["phase"],
            start=UUID(checkpoint["start"]) if checkpoint["start"] else None,
            waiting=Queued.parse(waiting) if waiting else None,
            pending=checkpoint["pending"],
            counts=checkpoint["counts"],
        )

    def store(self) -> Json:
        """The position as a checkpoint."""
        return {
            "phase": self.phase,
            "start": str(self.start) if self.start else None,
            "waiting": self.waiting.store() if self.waiting else None,
            "pending": self.pending,
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be written of a page, how many points it covers, and where and in which phase the next begins.

    ``next_phase`` is empty after the last page. ``counts`` are added to the slice's.
    """

    point_ids: list[UUID]
    points: int
    counts: Mapping[str, int]
    next_phase: str
    next_start: UUID | None


class PageFinder(Protocol):
    """Which points of a part a job wants written. ``counted``: what its result counts."""

    first_phase: str
    counted: tuple[str, ...]

    async def find(self, part: IndexPart, phase: str, start: UUID | None) -> Page:
        """The page of ``phase`` that begins at ``start``."""
        ...


class DriftFinder:
    """``detection.reconcile``: what differs. Rows against points first, then points against rows.

    What changes while a page is compared may seem to differ; the relay then writes once more what is there.
    """

    first_phase = "compare"
    counted: tuple[str, ...] = ("compared", "upserted", "deleted")

    def __init__(self, database: Database, comparison: Comparison) -> None:
        self._database = database
        self._comparison = comparison

    async def find(self, part: IndexPart, phase: str, start: UUID | None) -> Page:
        return await (
            self._find_drifts(part, start) if phase == self.first_phase else self._find_strangers(part, start)
        )

    async def _find_drifts(self, part: IndexPart, after: UUID | None) -> Page:
        async with self._database.snapshot() as tx:
            rows = await page_points(tx, part.kind, part.model_version, part.library_id, after, PAGE)
        drifts = await self._comparison.find_drifts(part, rows)
        counts = {"compared": len(rows), "upserted": len(drifts)}
        ids = [drift.point_id for drift in drifts]
        if len(rows) < PAGE:
            return Page(ids, len(rows), counts, "strangers", None)
        return Page(ids, len(rows), counts, self.first_phase, rows[-1].point_id)

    async def _find_strangers(self, part: IndexPart, start: UUID | None) -> Page:
        held, following = await self._comparison.page_held(part, start)
        async with self._database.snapshot() as tx:
            libraries = await read_libraries(tx, part.kind, part.model_version, held)
        drifts = find_strangers(part, held, libraries)
        deleted = sum(drift.kind is DriftKind.STRANGER for drift in drifts)
        counts = {"upserted": len(drifts) - deleted, "deleted": deleted}
        # They are none of the points there should be, which the job's total counts.
        return Page([drift.point_id for drift in drifts], 0, counts, "strangers" if following else "", following)


class EveryPoint:
    """``detection.rebuild_vectors``: everything there should be."""

    first_phase = "write"
    counted: tuple[str, ...] = ("upserted",)

    def __init__(self, database: Database, page: int = REBUILD_PAGE) -> None:
        self._database = database
        self._page = page

    async def find(self, part: IndexPart, phase: str, start: UUID | None) -> Page:
        async with self._database.snapshot() as tx:
            ids = await page_ids(tx, part.kind, part.model_version, part.library_id, start, self._page)
        counts = {"upserted": len(ids)}
        if len(ids) < self._page:
            return Page(ids, len(ids), counts, "", None)
        return Page(ids, len(ids), counts, phase, ids[-1])


class MendPoints:
    """Runs a job of the doctor: a slice is one collection."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        collections: Collections,
        comparison: Comparison,
        finder: PageFinder,
        stalled_s: float = STALLED_S,
    ) -> None:
        self._database = database
        self._clock = clock
        self._collections = collections
        self._comparison = comparison
        self._finder = finder
        self._stalled_s = stalled_s

    async def run(self, run: SliceRun) -> Json:
        spec = run.slice.spec
        if not spec:
            return {}
        part = IndexPart(PointKind(spec["kind"]), run.slice.library_id, spec["model_version"])
        await self._collections.check(part.model_version, spec["dimension"])
        newest = await self._comparison.read_newest_version(part)
        async with self._database.transaction() as tx:
            await raise_versions(tx, newest)
        position = Position.parse(run.slice.checkpoint, self._finder.first_phase)
        while position.phase or position.waiting:
            if position.waiting:
                await self._wait_written(part, position.waiting)
                done, position = position.pending, replace(position, waiting=None, pending=0)
                async with run.step() as tx:
                    await run.checkpoint(tx, Progress(done=done), position.store())
            else:
                position = await self._queue_page(run, part, position)
        return dict(position.counts)

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        return {name: sum(int(result.get(name, 0)) for result in results) for name in self._finder.counted}

    async def _queue_page(self, run: SliceRun, part: IndexPart, position: Position) -> Position:
        page = await self._finder.find(part, position.phase, position.start)
        ids = page.point_ids
        counts = {name: position.counts.get(name, 0) + page.counts.get(name, 0) for name in self._finder.counted}
        async with run.step() as tx:
            points = [(point_id, part.model_version) for point_id in ids]
            await queue_points(tx, self._clock, part.kind, part.library_id, points)
            waiting = Queued(min(ids), max(ids), self._clock.now()) if ids else None
            moved = Position(page.next_phase, page.next_start, waiting, page.points if ids else 0, counts)
            progress = Progress(done=0 if ids else page.points, phase=position.phase)
            await run.checkpoint(tx, progress, moved.store())
        return moved

    async def _wait_written(self, part: IndexPart, page: Queued) -> None:
        """Until the relay has written a page, and what others had queued between its points by then.

        Raises :class:`Unavailable` if it has got nowhere for long, as Qdrant is away or refuses a point; the slice then
        tries again, for as long as nobody cancels its job.
        """
        clock = asyncio.get_running_loop()
        fewest, got_on = None, clock.time()
        while True:
            async with self._database.transaction() as tx:
                left = await count_between(
                    tx, part.kind, part.library_id, part.model_version, page.first, page.last, page.at
                )
            if not left:
                return
            if fewest is None or left < fewest:
                fewest, got_on = left, clock.time()
            elif clock.time() - got_on > self._stalled_s:
                raise Unavailable(
                    f"{left} points of '{self._collections.named(part.kind, part.model_version)}' have waited for the "
                    f"relay for {self._stalled_s:g} s; its log says why",
                    reason=Reason.STORE_UNAVAILABLE,
                )
            await asyncio.sleep(POLL_S)


def build_mending(
    database: Database, clock: Clock, collections: Collections, comparison: Comparison
) -> dict[str, JobHandler]:
    """Handlers of the doctor's jobs, by kind."""
    finders: dict[str, PageFinder] = {
        RECONCILE: DriftFinder(database, comparison),
        REBUILD_VECTORS: EveryPoint(database),
    }
    return {kind: MendPoints(database, clock, collections, comparison, finder) for kind, finder in finders.items()}
