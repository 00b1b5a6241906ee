"""The detection service's part of forgetting a person whose faces go too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.detection.domain.forgetting import forget_faces
from services.detection.domain.model import DetectionDeps
from services.detection.domain.ports import KeptCrops
from services.detection.repository.forgetting import count_faces_of
from shared.db.engine import Database, Transaction
from shared.errors import Reason, Unavailable
from shared.jobs.execution import SliceRun
from shared.jobs.forgetting import Forgotten, Removal, find_forgetting, read_forgotten
from shared.jobs.model import Job, Json, Progress, SliceResults

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class ForgetFacesHandler:
    """``detection.forget_faces``, in one slice: faces batch by batch, then the crops in every server's memory.

    Its checkpoint is what was removed so far. It reports once no face of the person can be found any more.
    """

    database: Database
    deps: DetectionDeps
    crops: KeptCrops

    async def run(self, run: SliceRun) -> Json:
        """Delete the faces of whoever the receipt says, if it says so, until none is left."""
        async with self.database.transaction() as tx:
            forgotten = await read_forgotten(tx, run.slice.library_id, find_forgetting(run.slice.spec))
        removed = Removal.from_json(run.slice.checkpoint)
        if not forgotten.delete_faces:
            return removed.to_json()
        while True:
            removed = await self._delete_faces(run, forgotten, removed)
            removed = await self._sweep_crops(run, removed)
            # Somebody who had begun before may have given them a face while the servers were asked for its crop.
            async with self.database.transaction() as tx:
                if not await count_faces_of(tx, run.slice.library_id, forgotten.person_ids):
                    return removed.to_json()

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """What the only slice removed."""
        return dict(results[0])

    async def _delete_faces(self, run: SliceRun, forgotten: Forgotten, removed: Removal) -> Removal:
        found = BATCH
        while found:
            async with run.step() as tx:
                gone = await forget_faces(tx, self.deps, run.slice.library_id, forgotten.person_ids, BATCH)
                found = gone.found
                rows = {"faces": gone.faces, "face_embeddings": gone.vectors.total()}
                removed = removed.plus(Removal(rows, gone.vectors))
                await run.checkpoint(tx, Progress(done=gone.faces, phase="faces"), removed.to_json())
        return removed

    async def _sweep_crops(self, run: SliceRun, removed: Removal) -> Removal:
        """Drop the crops, and read back that none is left of any face that is gone.

        Raises :class:`Unavailable` while a server does not answer or has cut another one, so that the slice tries again.
        """
        swept = await self.crops.sweep(run.slice.library_id)
        if swept.left:
            raise Unavailable(
                f"the detection servers still keep {swept.left} crops of faces that are gone",
                reason=Reason.SERVICE_UNAVAILABLE,
                metadata={"service": "detection"},
            )
        removed = removed.plus(Removal({"crops": swept.dropped}, {}))
        async with run.step() as tx:
            await run.checkpoint(tx, Progress(phase="crops"), removed.to_json())
        return removed
