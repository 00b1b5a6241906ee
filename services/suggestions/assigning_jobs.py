"""Handler of the job that assigns the faces of known people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.suggestions.domain.assigning import divide_questions, list_handovers, make_search
from services.suggestions.domain.discovering import Found, make_finder
from services.suggestions.domain.model import SuggestionsDeps
from services.suggestions.domain.ports import CentroidSearch, FaceSearch
from shared.db.engine import Database, Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.handing_over import HandoverRounds, MachineAssignments
from shared.jobs.model import Job, Json, Progress, SliceResults

COUNTED: Final = ("persons", "candidates", "assigned", "refused", "suggested")


@dataclass(frozen=True, slots=True)
class AssignKnownHandler:
    """``suggestions.assign_known``. A slice names its persons; its checkpoint, how many are done, what was counted, and the
    assignments that may be under way.
    """

    database: Database
    deps: SuggestionsDeps
    faces: FaceSearch
    centroids: CentroidSearch
    people: MachineAssignments

    async def run(self, run: SliceRun) -> Json:
        """Assign, and ask, for the slice's persons, a batch at a time."""
        held = run.slice
        person_ids = [UUID(person_id) for person_id in held.spec["person_ids"]]
        target, dry_run = held.job_spec["target_precision"], held.job_spec["dry_run"]
        kept = held.checkpoint
        rounds = HandoverRounds(self.people, held.library_id, held.job_id, "suggestions", kept.get("handovers"))
        counts = {name: kept.get(name, 0) for name in ("persons", "candidates", "would_assign", "suggested")}
        # What a worker that died may have sent, before any face is read.
        await rounds.send()
        search = make_search(held.library_id, self.deps)
        finder = await make_finder(self.database, self.deps, self.faces, self.centroids, search)
        if finder is None:
            left, counts["persons"] = len(person_ids) - counts["persons"], len(person_ids)
            async with run.step() as tx:
                await run.checkpoint(tx, Progress(done=left, skipped=left), _stand(counts, rounds))
            return _sum_up(counts, rounds)
        for at in range(counts["persons"], len(person_ids), finder.batch_persons):
            batch = person_ids[at : at + finder.batch_persons]
            looked = await finder.look(batch)
            divided = divide_questions(looked, finder.rules, target)
            rounds.add([] if dry_run else list_handovers(divided.sure))
            while rounds.prepare():
                async with run.step() as tx:
                    await run.checkpoint(tx, Progress(phase="assign"), _stand(counts, rounds))
                await rounds.send()
            questions = await finder.pick(looked, divided.doubtful)
            async with run.step() as tx:
                if dry_run:
                    counts["would_assign"] += len(divided.sure)
                    asked = {(each.face_id, each.person_id) for each in questions}
                    counts["suggested"] += len(asked - looked.open_pairs)
                else:
                    found = Found(questions, len(looked.faces), looked.open_pairs)
                    counts["suggested"] += (await finder.store(tx, held.job_id, batch, found)).created
                counts["candidates"] += len(looked.faces)
                counts["persons"] = at + len(batch)
                # A person merged, deleted or left without faces since the job was asked for.
                skipped = sum(not finder.knows(person_id) for person_id in batch)
                progress = Progress(done=len(batch), skipped=skipped, phase="search")
                await run.checkpoint(tx, progress, _stand(counts, rounds))
        return _sum_up(counts, rounds)

    async def finish(self, tx: Transaction, job: Job, results: SliceResults) -> Json:
        """Add up what the slices counted."""
        return {name: sum(result[name] for result in results) for name in COUNTED}


def _stand(counts: dict[str, int], rounds: HandoverRounds) -> Json:
    return {**counts, "handovers": rounds.position}


def _sum_up(counts: dict[str, int], rounds: HandoverRounds) -> Json:
    """What a slice came to; of a dry run, what it would have."""
    return {
        "persons": counts["persons"],
        "candidates": counts["candidates"],
        "assigned": rounds.assigned + counts["would_assign"],
        "refused": rounds.refused,
        "suggested": counts["suggested"],
    }
