"""Handlers of this service's jobs."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.suggestions.domain.asking import make_pair_questions
from services.suggestions.domain.discovering import FindMore, make_finder
from services.suggestions.domain.following import follow_people
from services.suggestions.domain.model import SuggestionMethod, SuggestionsDeps
from services.suggestions.domain.ports import CentroidSearch, FaceSearch
from services.suggestions.repository.questions import store_questions
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Job, Json, Progress, SliceResults

COUNTS = ("candidates", "created", "kept")
FOLLOWED = ("moved", "opened", "expired")


@dataclass(frozen=True, slots=True)
class FindMoreHandler:
    """``suggestions.find_more``. A slice names its persons; its checkpoint, how many are done and what was counted."""

    database: Database
    deps: SuggestionsDeps
    faces: FaceSearch
    centroids: CentroidSearch

    async def run(self, run: SliceRun) -> Json:
        """Look for faces of the slice's persons, a batch at a time."""
        job = run.slice.job_spec
        person_ids = [UUID(person_id) for person_id in run.slice.spec["person_ids"]]
        command = FindMore(
            library_id=run.slice.library_id,
            person_ids=person_ids,
            method=SuggestionMethod(job["method"]),
            max_per_person=job["max_per_person"],
            min_confidence=job["min_confidence"],
        )
        counts = {name: run.slice.checkpoint.get(name, 0) for name in COUNTS}
        start = run.slice.checkpoint.get("persons", 0)
        finder = await make_finder(self.database, self.deps, self.faces, self.centroids, command)
        if finder is None:
            left = len(person_ids) - start
            async with run.step() as tx:
                progress = Progress(done=left, skipped=left)
                await run.checkpoint(tx, progress, {"persons": len(person_ids), **counts})
            return {"persons": len(person_ids), **counts}
        for at in range(start, len(person_ids), finder.batch_persons):
            batch = person_ids[at : at + finder.batch_persons]
            found = await finder.find(batch)
            async with run.step() as tx:
                stored = await finder.store(tx, run.slice.job_id, batch, found)
                counts["candidates"] += found.candidates
                counts["created"] += stored.created
                counts["kept"] += stored.kept
                # A person merged, deleted or left without faces since the job was asked for.
                skipped = sum(not finder.knows(person_id) for person_id in batch)
                progress = Progress(done=len(batch), skipped=skipped, phase="search")
                await run.checkpoint(tx, progress, {"persons": at + len(batch), **counts})
        return {"persons": len(person_ids), **counts}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        return {name: sum(result[name] for result in results) for name in ("persons", *COUNTS)}


@dataclass(frozen=True, slots=True)
class FollowPeopleHandler:
    """``suggestions.follow_people``. A slice names persons; its checkpoint, the last question looked at and the counts."""

    database: Database
    deps: SuggestionsDeps

    async def run(self, run: SliceRun) -> Json:
        """Set the questions about the slice's persons right, a batch at a time."""
        person_ids = [UUID(person_id) for person_id in run.slice.spec["person_ids"]]
        counts = {name: run.slice.checkpoint.get(name, 0) for name in FOLLOWED}
        at = run.slice.checkpoint.get("after")
        after = UUID(at) if at else None
        ended = False
        while not ended:
            async with run.step() as tx:
                batch = await follow_people(tx, self.deps, run.slice.library_id, person_ids, after)
                for name in FOLLOWED:
                    counts[name] += getattr(batch.following, name)
                after, ended = batch.last, batch.is_last
                position = {"after": str(after) if after else "", **counts}
                await run.checkpoint(tx, Progress(done=batch.looked_at, phase="follow"), position)
        return dict(counts)

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        return {name: sum(result[name] for result in results) for name in FOLLOWED}


@dataclass(frozen=True, slots=True)
class AskPairsHandler:
    """``suggestions.ask_pairs``. A slice holds pairs, asked about in one step; its checkpoint, how many are open."""

    database: Database
    deps: SuggestionsDeps

    async def run(self, run: SliceRun) -> Json:
        """Ask about the slice's pairs."""
        if "asked" in run.slice.checkpoint:
            return {"asked": run.slice.checkpoint["asked"]}
        pairs = run.slice.spec["pairs"]
        confidences = {(UUID(face_id), UUID(person_id)): confidence for face_id, person_id, confidence in pairs}
        questions = await make_pair_questions(self.database, self.deps, run.slice.library_id, confidences)
        async with run.step() as tx:
            asked = await store_questions(
                tx, self.deps, run.slice.library_id, run.slice.job_id, SuggestionMethod.PROTOTYPES, questions
            )
            progress = Progress(done=len(pairs), skipped=len(pairs) - len(asked), phase="ask")
            await run.checkpoint(tx, progress, {"asked": len(asked)})
        return {"asked": len(asked)}

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices asked."""
        return {"asked": sum(result["asked"] for result in results)}
