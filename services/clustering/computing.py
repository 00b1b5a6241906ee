"""Brings centroids up to people's faces, soon after the change.

It runs in every clustering worker; any number may run at once. Who changed stands in ``centroids_to_compute``, so nothing is
looked for. A person is computed some moments after their first change, and with it all that came meanwhile.

Persons are claimed in a short transaction and computed with none open, so that no writer ever waits for the CPU. A worker that
dies leaves its claims to the others, when the lease runs out; one that overruns it does no harm, since what two have computed
of the same faces is stored once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from services.clustering.domain.averaging import compute_stale, store_computed
from services.clustering.domain.model import ClusteringDeps
from services.clustering.repository.centroid_queue import (
    ClaimedPerson,
    Pace,
    claim_people,
    clear_people,
    count_people,
    find_next_due,
    list_outdated_libraries,
    note_formula,
    put_off_people,
    queue_library,
    release_people,
)
from services.clustering.repository.unassigned import find_active_model
from shared.clock import Clock
from shared.db.engine import DATABASE_FAILURES, Database
from shared.faces.modes import ALGORITHM
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

PEOPLE_TOGETHER: Final = 50
"""Claimed and stored at once, as a round trip costs more than a person with few faces."""

DELAY_PER_FACE: Final = timedelta(microseconds=200)
"""Longer is waited for who has many faces: computing takes some 20 microseconds a face, so this keeps it below a tenth."""

LEASE: Final = timedelta(seconds=60)

RETRY: Final = timedelta(seconds=60)
"""Somebody who could not be computed is tried again after so long."""

QUEUED_TOGETHER: Final = 500
"""So many of a library's people are queued in one transaction, which holds them."""

LIBRARIES_EVERY: Final = timedelta(seconds=15)
"""How often it is looked whether a library works with another model now."""

MEASURE_S: Final = 5.0


class CentroidComputer:
    """One process's computer of centroids."""

    def __init__(self, database: Database, deps: ClusteringDeps) -> None:
        self._database = database
        self._deps = deps
        self._pace = Pace(timedelta(seconds=deps.settings.centroid_interval_s), DELAY_PER_FACE)
        self._poll_s = deps.settings.centroid_poll_s

    async def run(self) -> None:
        """Compute until cancelled. PostgreSQL is waited for while it is away; nothing else stops it."""
        look_at = self._deps.clock.now()
        while True:
            pause = self._poll_s
            try:
                if self._deps.clock.now() >= look_at:
                    await self.queue_outdated()
                    look_at = self._deps.clock.now() + LIBRARIES_EVERY
                pause = self.choose_pause(await self.compute_due())
            except DATABASE_FAILURES as error:
                log.warning("centroids_wait", error=type(error).__name__)
            await asyncio.sleep(pause)

    def choose_pause(self, due_at: datetime | None) -> float:
        """Seconds to wait when the next is due then.

        One that is due already is held by somebody else: to ask at once, again and again, would not have it sooner.
        """
        left = (due_at - self._deps.clock.now()).total_seconds() if due_at is not None else self._poll_s
        return min(left, self._poll_s) if left > 0 else self._poll_s

    async def queue_outdated(self) -> None:
        """Queue everybody of the libraries that work with another model than when that was last done, or with another formula.

        So a cut-over, a roll-back, a new formula and the first version that has the queue make all centroids due. The next who
        looks does it again from the start if this process dies.
        """
        async with self._database.transaction() as tx:
            outdated = await list_outdated_libraries(tx, ALGORITHM)
        for library_id, model_version in outdated:
            last: UUID | None = None
            while True:
                async with self._database.transaction() as tx:
                    last = await queue_library(tx, self._deps.clock, library_id, last, QUEUED_TOGETHER)
                    if last is None:
                        await note_formula(tx, library_id, model_version, ALGORITHM)
                        break

    async def compute_due(self) -> datetime | None:
        """Compute everybody whose time has come; answers when the next will be due, None with nobody left."""
        while True:
            claimed_at = self._deps.clock.now()
            async with self._database.transaction() as tx:
                claimed = await claim_people(tx, self._deps.clock, PEOPLE_TOGETHER, self._pace, LEASE)
                if not claimed:
                    return await find_next_due(tx, self._pace)
            groups: dict[str, list[ClaimedPerson]] = defaultdict(list)
            for person in claimed:
                groups[person.library_id].append(person)
            for library_id, people in groups.items():
                await self._compute(library_id, people, claimed_at)

    async def _compute(self, library_id: str, people: Sequence[ClaimedPerson], claimed_at: datetime) -> None:
        """Compute persons of a library: together, and if that fails one by one, as nobody is to be held up by another."""
        try:
            await self._compute_together(library_id, people, claimed_at)
        except DATABASE_FAILURES:
            raise
        except Exception:
            if len(people) > 1:
                for person in people:
                    await self._compute(library_id, [person], claimed_at)
                return
            log.exception("centroids_not_computed", person_id=str(people[0].person_id))
            async with self._database.transaction() as tx:
                await put_off_people(tx, [people[0].person_id], self._deps.clock.now() + RETRY)

    async def _compute_together(self, library_id: str, people: Sequence[ClaimedPerson], claimed_at: datetime) -> None:
        person_ids = [person.person_id for person in people]
        async with self._database.transaction() as tx:
            model = await find_active_model(tx, library_id)
            if model is None:
                # Without a model there are no centroids; the first one makes everybody due.
                await clear_people(tx, {person.person_id: person.mark for person in people})
                return
        computation = await compute_stale(self._database, model, person_ids)
        async with self._database.transaction() as tx:
            await store_computed(tx, self._deps, library_id, model, computation)
            await release_people(tx, person_ids, claimed_at)


async def measure_waiting(database: Database, clock: Clock, metrics: Metrics) -> None:
    """Show how far centroids are behind people's faces."""
    while True:
        try:
            async with database.transaction() as tx:
                waiting, oldest = await count_people(tx)
            metrics.centroids_to_compute.set(waiting)
            metrics.centroids_to_compute_seconds.set((clock.now() - oldest).total_seconds() if oldest else 0)
        except DATABASE_FAILURES as error:
            log.warning("centroids_not_measured", error=type(error).__name__)
        await asyncio.sleep(MEASURE_S)
