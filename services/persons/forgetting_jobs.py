"""``persons.forget_person``: takes a person out of every store, stage by stage, and reads each store back.

Every step is small and can be done again; where the job stands, and what it has removed, is its checkpoint, in which nobody is
named. Other services take the person out of their own tables, by jobs this one leaves to them and waits for. What is written of
the person meanwhile, by whoever had begun before, is found when the stores are read back: then all stages are done again, a few
times; and only when nothing was found anywhere the receipt is completed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from services.persons.domain.forgetting import DONE, Position
from services.persons.domain.model import PersonsDeps
from services.persons.domain.ports import PersonPoints
from services.persons.repository import forgetting as rows
from services.persons.repository.forgetting_ledger import (
    count_in_ledger,
    list_former_names,
    lock_changes_about,
    scrub_changes,
)
from services.persons.repository.forgetting_texts import scrub_reasons
from services.persons.repository.receipts import StoreReceipt, complete_receipts
from shared.db.engine import Database, Transaction
from shared.db.idempotency import count_answers_about, forget_answers_about
from shared.db.long_work import allow_long_work
from shared.db.outbox import PointKind, queue_faces
from shared.errors import KithError, Reason, Unavailable
from shared.jobs.execution import SliceRun
from shared.jobs.forgetting import (
    FORGET_CENTROIDS,
    FORGET_FACES,
    FORGET_SUGGESTIONS,
    Forgotten,
    Removal,
    add_counts,
    leave_forgetting,
    read_forgotten,
)
from shared.jobs.model import Job, JobState, Json, Progress, SliceResults
from shared.jobs.scrubbing import count_jobs_about, find_jobs_about, scrub_jobs
from shared.jobs.watch import JobWatch
from shared.traces import Traces

ROUNDS: Final = 5
ROWS_AT_ONCE: Final = 1000
JOBS_AT_ONCE: Final = 100
CHANGES_AT_ONCE: Final = 1000
LEDGER_FACES_AT_ONCE: Final = 20_000
POLL_S: Final = 0.05
PART_WAIT_S: Final = 60.0
STALLED_S: Final = 60.0

Stage = Callable[[SliceRun, Forgotten, Position], Awaitable[Position]]


class ForgetPersonHandler:
    """Runs the job, in one slice."""

    def __init__(
        self,
        database: Database,
        deps: PersonsDeps,
        watch: JobWatch,
        points: PersonPoints,
        stalled_s: float = STALLED_S,
    ) -> None:
        """``stalled_s``: how long Qdrant may confirm nothing before the slice gives up, to try again."""
        self._database = database
        self._deps = deps
        self._watch = watch
        self._points = points
        self._stalled_s = stalled_s
        self._stages: dict[str, Stage] = {
            "suggestions": self._leave_suggestions,
            "centroids": self._leave_centroids,
            "faces": self._leave_faces,
            "assignments": self._release_faces,
            "exclusions": self._drop_exclusions,
            "answers": self._forget_answers,
            "jobs": self._scrub_jobs,
            "reasons": self._scrub_reasons,
            "ledger": self._scrub_ledger,
            "person": self._remove_person,
            "verify": self._verify,
        }

    async def run(self, run: SliceRun) -> Json:
        """Go on from where the checkpoint says, to the end.

        Raises :class:`KithError` naming the stores that will not be clean, or the other service's job that failed, and
        :class:`Unavailable` while another service or Qdrant does not get on.
        """
        async with self._database.transaction() as tx:
            forgotten = await read_forgotten(tx, run.slice.library_id, run.slice.job_id)
        position = Position.parse(run.slice.checkpoint, run.slice.spec)
        while position.stage != DONE:
            position = await self._stages[position.stage](run, forgotten, position)
        return {"stores": list(position.stores)}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Complete the receipt, in the transaction that ends the job."""
        stores = [StoreReceipt.from_json(store) for store in results[0]["stores"]]
        await complete_receipts(tx, self._deps.clock, job.library_id, job.job_id, stores)
        return dict(results[0])

    async def _leave_suggestions(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        return await self._leave(run, at, FORGET_SUGGESTIONS, PointKind.FACE)

    async def _leave_centroids(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        return await self._leave(run, at, FORGET_CENTROIDS, PointKind.CENTROID)

    async def _leave_faces(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        if forgotten.delete_faces:
            return await self._leave(run, at, FORGET_FACES, PointKind.FACE)
        async with run.step() as tx:
            return await self._move(run, tx, at, at.onward())

    async def _leave(self, run: SliceRun, at: Position, kind: str, points: PointKind) -> Position:
        """Leave a part to the service whose tables it is about, and wait for it."""
        library_id = run.slice.library_id
        if not at.part:
            async with run.step() as tx:
                part = await leave_forgetting(
                    tx, self._deps.ids, self._deps.clock, kind, library_id, run.slice.job_id, run.slice.created_by
                )
                at = await self._move(run, tx, at, replace(at, part=str(part.job_id)))
        job = await self._watch.wait(library_id, UUID(at.part), PART_WAIT_S)
        if not job.state.final:
            raise Unavailable(
                f"job '{job.job_id}' of another service has not ended yet", reason=Reason.SERVICE_UNAVAILABLE
            )
        if job.state is not JobState.SUCCEEDED:
            raise KithError(
                f"job '{job.job_id}', which this one waited for, ended {job.state.value}: {job.error_message or 'by hand'}",
                reason=Reason.JOB_FAILED,
            )
        removed = Removal.from_json(job.result or {})
        stores = {_name_store(table): count for table, count in removed.rows.items()}
        stores |= {self._name_points(points, model): count for model, count in removed.points.items()}
        async with run.step() as tx:
            return await self._move(run, tx, at, at.plus(stores).onward())

    async def _release_faces(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        async with run.step() as tx:
            if forgotten.delete_faces:
                # Detection has left none. One that came since is to be deleted as well, and must not stay as nobody's.
                held = (await rows.count_held(tx, forgotten.person_ids))["assignments"]
                return await self._move(run, tx, at, _go_round(at, {"assignments": held}) if held else at.onward())
            freed = await rows.release_faces(tx, run.slice.library_id, forgotten.person_ids, ROWS_AT_ONCE)
            await queue_faces(tx, self._deps.clock, run.slice.library_id, freed.face_ids)
            removed = {"postgres.assignments": len(freed.face_ids), "postgres.prototypes": freed.prototypes}
            removed |= {self._name_points(PointKind.FACE, model): count for model, count in freed.vectors.items()}
            at = at.plus(removed)
            return await self._move(run, tx, at, at if len(freed.face_ids) == ROWS_AT_ONCE else at.onward())

    async def _drop_exclusions(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        async with run.step() as tx:
            gone = await rows.drop_exclusions(tx, run.slice.library_id, forgotten.person_ids, ROWS_AT_ONCE)
            at = at.plus({"postgres.exclusions": gone})
            return await self._move(run, tx, at, at if gone == ROWS_AT_ONCE else at.onward())

    async def _forget_answers(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        """Answers kept for retries."""
        library_id = run.slice.library_id
        async with run.step() as tx:
            await allow_long_work(tx)
            gone = await forget_answers_about(tx, library_id, forgotten.person_ids)
            at = at.plus({"postgres.idempotency_keys": gone})
            return await self._move(run, tx, at, at.onward())

    async def _scrub_jobs(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        library_id, after = run.slice.library_id, UUID(at.after) if at.after else None
        async with run.step() as tx:
            await allow_long_work(tx)
            traces = await _read_traces(tx, library_id, forgotten)
            found = await find_jobs_about(tx, library_id, traces, after, JOBS_AT_ONCE)
            changed = await scrub_jobs(tx, found, traces)
            at = at.plus({_name_store(table): count for table, count in changed.items()})
            last = len(found) < JOBS_AT_ONCE
            return await self._move(run, tx, at, at.onward() if last else replace(at, after=str(found[-1])))

    async def _scrub_reasons(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        library_id, after = run.slice.library_id, UUID(at.after) if at.after else None
        async with run.step() as tx:
            await allow_long_work(tx)
            traces = await _read_traces(tx, library_id, forgotten)
            changed, last = await scrub_reasons(tx, library_id, traces, after, ROWS_AT_ONCE)
            at = at.plus({"postgres.changes": changed})
            return await self._move(run, tx, at, replace(at, after=str(last)) if last else at.onward())

    async def _scrub_ledger(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        library_id, people = run.slice.library_id, forgotten.person_ids
        async with run.step() as tx:
            await allow_long_work(tx)
            found = await lock_changes_about(tx, library_id, people, faces=LEDGER_FACES_AT_ONCE, limit=CHANGES_AT_ONCE)
            gone = await scrub_changes(tx, people, found)
            removed = {
                "changes": gone.changes,
                "change_faces": gone.change_faces,
                "change_exclusions": gone.change_exclusions,
            }
            at = at.plus({_name_store(table): count for table, count in removed.items()})
            return await self._move(run, tx, at, at if found else at.onward())

    async def _remove_person(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        async with run.step() as tx:
            gone = await rows.remove_persons(tx, run.slice.library_id, forgotten.person_ids)
            if gone is not None:
                at = at.plus({_name_store(table): count for table, count in gone.items()})
                return await self._move(run, tx, at, at.onward())
            held = await rows.count_held(tx, forgotten.person_ids)
            return await self._move(run, tx, at, _go_round(at, held))

    async def _verify(self, run: SliceRun, forgotten: Forgotten, at: Position) -> Position:
        """Read every store back. Raises :class:`Unavailable` while Qdrant does not confirm."""
        library_id = run.slice.library_id
        async with self._database.snapshot() as tx:
            await allow_long_work(tx)
            found = await _count_rows(tx, library_id, forgotten)
            models = await rows.list_models(tx, library_id)
        read_at = self._deps.clock.now()
        if any(found.values()):
            async with run.step() as tx:
                return await self._move(run, tx, at, _go_round(at, found))
        verified = {_name_store(table): read_at for table in found}
        if forgotten.delete_faces:
            # Known by their assignments, of which there are none and none was taken away but with its face; detection has
            # counted the faces itself, and read back the crops.
            verified |= {_name_store(table): read_at for table in ("faces", "face_embeddings", "crops")}
        for kind in PointKind:
            for model in models:
                await self._wait_confirmed(kind, library_id, model, forgotten, read_at)
                verified[self._name_points(kind, model)] = self._deps.clock.now()
        stores = [StoreReceipt(store, at.deleted.get(store, 0), when) for store, when in sorted(verified.items())]
        async with run.step() as tx:
            done = replace(at, stores=tuple(store.to_json() for store in stores)).onward()
            return await self._move(run, tx, at, done)

    async def _wait_confirmed(
        self, kind: PointKind, library_id: str, model: str, forgotten: Forgotten, until: datetime
    ) -> None:
        """Until Qdrant holds no point of the person in a collection, and none waits to be deleted that did ``until`` then."""
        clock = asyncio.get_running_loop()
        fewest, got_on = None, clock.time()
        while True:
            async with self._database.transaction() as tx:
                left = await rows.count_tombstones(tx, kind, library_id, model, until)
            left += await self._points.count(kind, library_id, model, forgotten.person_ids)
            if not left:
                return
            if fewest is None or left < fewest:
                fewest, got_on = left, clock.time()
            elif clock.time() - got_on > self._stalled_s:
                raise Unavailable(
                    f"{left} points of '{self._points.name_collection(kind, model)}' have waited for the relay for "
                    f"{self._stalled_s:g} s; its log says why",
                    reason=Reason.STORE_UNAVAILABLE,
                )
            await asyncio.sleep(POLL_S)

    async def _move(self, run: SliceRun, tx: Transaction, before: Position, after: Position) -> Position:
        """Store the new position with the step that led there."""
        first = after.stage != before.stage and after.round == 1
        phase = before.stage if after.stage == DONE else after.stage
        await run.checkpoint(tx, Progress(done=int(first), phase=phase), after.store())
        return after

    def _name_points(self, kind: PointKind, model_version: str) -> str:
        return f"qdrant.{self._points.name_collection(kind, model_version)}"


async def _read_traces(tx: Transaction, library_id: str, forgotten: Forgotten) -> Traces:
    """With every name that is still told anywhere: read anew in each step, so that no checkpoint has to hold one."""
    people = forgotten.person_ids
    names = {*await rows.list_names(tx, library_id, people), *await list_former_names(tx, library_id, people)}
    return Traces.of(people, names)


async def _count_rows(tx: Transaction, library_id: str, forgotten: Forgotten) -> dict[str, int]:
    """How many rows of each table of PostgreSQL still tell of the person, each table read through."""
    people = forgotten.person_ids
    found = await rows.count_held(tx, people)
    for counts in (
        await rows.count_rest(tx, library_id, people),
        await count_in_ledger(tx, library_id, people),
        await count_jobs_about(tx, library_id, people),
        {"idempotency_keys": await count_answers_about(tx, library_id, people)},
    ):
        found = add_counts(found, counts)
    return found


def _go_round(at: Position, found: Mapping[str, Any]) -> Position:
    left = ", ".join(f"{_name_store(table)} ({count})" for table, count in sorted(found.items()) if count)
    if at.round == ROUNDS:
        raise KithError(
            f"after {ROUNDS} rounds the person is still found in {left}; ForgetPerson again goes on",
            reason=Reason.JOB_FAILED,
        )
    return at.again()


def _name_store(table: str) -> str:
    return "detection.crops" if table == "crops" else f"postgres.{table}"
