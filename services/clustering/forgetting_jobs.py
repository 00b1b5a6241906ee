"""The clustering service's part of forgetting a person: their centroids of every model, kept ones too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from services.clustering.domain.averaging import forget_centroids
from services.clustering.domain.model import ClusteringDeps
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.forgetting import Removal, find_forgetting, read_forgotten
from shared.jobs.model import Job, Json, Progress, SliceResults


@dataclass(frozen=True, slots=True)
class ForgetCentroidsHandler:
    """``clustering.forget_person``, in one step: a person has few centroids."""

    database: Database
    deps: ClusteringDeps

    async def run(self, run: SliceRun) -> Json:
        """Delete them; their points are tombstoned in the same transaction."""
        if run.slice.checkpoint:
            return dict(run.slice.checkpoint)
        async with run.step() as tx:
            people = (await read_forgotten(tx, run.slice.library_id, find_forgetting(run.slice.spec))).person_ids
            gone = await forget_centroids(tx, self.deps, run.slice.library_id, people)
            removed = Removal({"centroids": len(gone)}, Counter(version for _, version in gone)).to_json()
            await run.checkpoint(tx, Progress(done=len(gone), phase="centroids"), removed)
        return removed

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """What the only slice removed."""
        return dict(results[0])
