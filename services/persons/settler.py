"""The settler: brings people up to their faces, soon after the change that did not do it itself.

It runs in every persons worker; any number may run at once. A person is settled some moments after their first change, and
with it all that came meanwhile: so one who gets fifty faces a second is settled twice, and not fifty times.

In one transaction: the persons are locked, then taken out of the queue, then read; the outbox comes last. Writers who hold
the person cannot come in between; detection, which need not hold them, see :func:`shared.db.people_queue.take_people`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from services.persons.domain.model import PersonsDeps
from services.persons.domain.settling import settle_locked
from services.persons.repository.persons import lock_persons
from shared.db.engine import DATABASE_FAILURES, Database
from shared.db.notify import Channel, Listener
from shared.db.people_queue import WaitingPerson, list_waiting_people, put_off_person, take_people

log = structlog.get_logger(__name__)

LOOKED_AT: Final = 500
"""So many of the queue are read at a time."""

PEOPLE_TOGETHER: Final = 20
FACES_TOGETHER: Final = 1000
"""Settled in one transaction, as a round trip costs more than a person with few faces; all are locked while it lasts."""

DELAY_PER_FACE: Final = timedelta(microseconds=50)
"""Longer is waited for who has many faces: settling takes some 6 microseconds a face, and holds the person all the while."""

RETRY_S: Final = 5.0
"""A person who could not be settled is tried again after so long."""


class Settler:
    """One process's settler."""

    def __init__(self, database: Database, listener: Listener, deps: PersonsDeps) -> None:
        self._database = database
        self._listener = listener
        self._deps = deps
        self._delay = timedelta(seconds=deps.settings.settle_interval_s)

    async def run(self) -> None:
        """Settle until cancelled. PostgreSQL is waited for while it is away; nothing else stops it."""
        async with self._listener.subscribe(Channel.PEOPLE) as people:
            while True:
                try:
                    pause = await self.settle_due()
                except DATABASE_FAILURES as error:
                    log.warning("settler_waits", error=type(error).__name__)
                    pause = self._deps.settings.settle_poll_s
                if pause is None:
                    await people.wait(self._deps.settings.settle_poll_s)
                else:
                    await asyncio.sleep(min(pause, self._deps.settings.settle_poll_s))

    async def settle_due(self) -> float | None:
        """Settle everybody whose time has come; answers in how many seconds to look again, None with nobody left."""
        while True:
            async with self._database.transaction() as tx:
                waiting = await list_waiting_people(tx, LOOKED_AT, self._delay, DELAY_PER_FACE)
            now = self._deps.clock.now()
            due = [person for person in waiting if person.due_at <= now]
            if not due:
                return (waiting[0].due_at - now).total_seconds() if waiting else None
            for library_id, person_ids in _group(due):
                await self._settle(library_id, person_ids)

    async def _settle(self, library_id: str, person_ids: Collection[UUID]) -> None:
        """Settle a group: together those nobody holds, and then one by one, and waiting for their turn, the others."""
        left = set(person_ids)
        try:
            left -= await self._settle_free(library_id, left)
        except Exception as error:
            # One who cannot be settled must not hold up the others: each by itself, and that one aside.
            expected = isinstance(error, DATABASE_FAILURES)
            log.warning("people_settled_singly", error=type(error).__name__, exc_info=not expected)
        for person_id in sorted(left):
            await self._settle_one(library_id, person_id)

    async def _settle_free(self, library_id: str, person_ids: Collection[UUID]) -> set[UUID]:
        async with self._database.transaction() as tx:
            locked = await lock_persons(tx, library_id, person_ids, skip_locked=True)
            taken = await take_people(tx, locked.keys())
            await settle_locked(tx, self._deps, library_id, taken)
        return set(locked)

    async def _settle_one(self, library_id: str, person_id: UUID) -> None:
        try:
            async with self._database.transaction() as tx:
                locked = await lock_persons(tx, library_id, [person_id])
                # Taken even if there is no such person any more.
                taken = await take_people(tx, [person_id])
                await settle_locked(tx, self._deps, library_id, taken & locked.keys())
        except Exception:
            log.exception("person_not_settled", person_id=str(person_id))
            async with self._database.transaction() as tx:
                await put_off_person(tx, person_id, self._deps.clock.now() + timedelta(seconds=RETRY_S))


def _group(people: Sequence[WaitingPerson]) -> Iterator[tuple[str, list[UUID]]]:
    """Persons to be settled in one transaction, by library: some with few faces, or one with many."""
    for library_id in dict.fromkeys(person.library_id for person in people):
        group: list[UUID] = []
        faces = 0
        for person in people:
            if person.library_id != library_id:
                continue
            if group and (len(group) == PEOPLE_TOGETHER or faces + person.face_count > FACES_TOGETHER):
                yield library_id, group
                group, faces = [], 0
            group.append(person.person_id)
            faces += person.face_count
        yield library_id, group
