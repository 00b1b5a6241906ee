"""How far a run of ClusterFaces is, as its job shows it and keeps it."""

from __future__ import annotations

from services.clustering.grouping.request import Phase
from services.clustering.grouping.request import Progress as GroupingProgress
from shared.db.engine import Transaction
from shared.jobs.execution import SliceRun
from shared.jobs.model import Json, Progress

# How far a grouping is when a phase begins, as a share of the whole: finding neighbours is most of it.
_BEGINS = {Phase.NEIGHBOURS: 0.0, Phase.FORM: 0.7, Phase.MERGE: 0.8, Phase.ATTACH: 0.9, Phase.MEASURE: 0.95}
_ENDS = {Phase.NEIGHBOURS: 0.7, Phase.FORM: 0.8, Phase.MERGE: 0.9, Phase.ATTACH: 0.95, Phase.MEASURE: 1.0}


def share_done(progress: GroupingProgress) -> float:
    """How much of a grouping is done, 0..1."""
    begin, end = _BEGINS[progress.phase], _ENDS[progress.phase]
    return begin + (end - begin) * progress.done / max(1, progress.total)


class RunProgress:
    """Progress in faces, and the position that is kept with it.

    It only grows, and what an earlier worker counted before it died is not counted again.
    """

    def __init__(self, run: SliceRun) -> None:
        self._run = run
        self._position: Json = dict(run.slice.checkpoint)
        self._total = 0

    def kept(self, name: str) -> Json | None:
        """What was kept under this name."""
        found: Json | None = self._position.get(name)
        return found

    async def enter(self, phase: str, *, total: int | None = None) -> None:
        """Begin a phase; ``total`` faces if that is known now."""
        if total is not None:
            # What an earlier phase counted may be of faces that are not there any more.
            total = max(total, self._position.get("counted", 0))
            self._total = total
        await self._run.report(Progress(phase=phase, total=total))

    async def tell(self, share: float) -> None:
        """Count up to this share (0..1) of all faces."""
        counted: int = self._position.get("counted", 0)
        done = int(share * self._total) - counted
        if done > 0:
            async with self._run.step() as tx:
                await self._run.checkpoint(tx, Progress(done=done), {**self._position, "counted": counted + done})
            self._position["counted"] = counted + done

    async def keep(self, name: str, value: Json) -> None:
        """Keep something, in a step of its own."""
        async with self._run.step() as tx:
            await self.keep_in(tx, name, value)

    async def keep_in(self, tx: Transaction, name: str, value: Json) -> None:
        """Keep something, in a step."""
        self._position[name] = value
        await self._run.checkpoint(tx, Progress(), dict(self._position))

    async def end(self, tx: Transaction, result: Json) -> None:
        """Count what is missing to the total, and keep the result, in a step."""
        left = Progress(done=self._total - self._position.get("counted", 0))
        await self._run.checkpoint(tx, left, {"result": result})
