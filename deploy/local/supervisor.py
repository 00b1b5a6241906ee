"""The supervisor: runs a plan's processes in order, keeps them alive, tells their state, and stops them in reverse.

``python -m deploy.local.supervisor DIRECTORY LOCK`` is started by the guard (``guard.py``); LOCK is the number of the
descriptor that holds the directory's lock. What it knows is in two files of the directory: ``state.json`` (always: each
process and its state, and why the start failed) and ``stack.json`` (while the stack is ready: what clients need).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.local.directory import StackDirectory, write_private
from deploy.local.errors import StartFailedError
from deploy.local.memory import PeakMemory
from deploy.local.plan import Plan
from deploy.local.process import ProcessState, State, SupervisedProcess

MEMORY_SAMPLE_S = 0.5

log = logging.getLogger("kith.stack")


@dataclass(frozen=True, slots=True)
class StackState:
    """``state.json``. ``ready`` once every process has been; ``failure`` is why the start was given up."""

    supervisor_pid: int
    ready: bool
    stopping: bool
    failure: str | None
    processes: tuple[ProcessState, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> StackState:
        fields = json.loads(text)
        rows = (ProcessState(**{**row, "state": State(row["state"])}) for row in fields.pop("processes"))
        return StackState(**fields, processes=tuple(rows))


class Supervisor:
    """Runs ``plan`` in ``directory``; ``lock`` is the descriptor of the directory's lock, which children inherit.

    Start children from the main thread only: their lives are tied to the thread that started them.
    """

    def __init__(self, plan: Plan, directory: StackDirectory, lock: int) -> None:
        self._plan = plan
        self._directory = directory
        self._layers = plan.layers()
        self._stop = asyncio.Event()
        self._ready = False
        self._failure: str | None = None
        self._memory = PeakMemory()
        self._processes: dict[str, SupervisedProcess] = {}
        specs = {spec.name: spec for spec in plan.processes}
        for name in (name for layer in self._layers for name in layer):
            self._processes[name] = SupervisedProcess(
                specs[name],
                policy=plan.restarts,
                directory=directory,
                lock=lock,
                dependencies=[self._processes[dep] for dep in specs[name].after],
                starting=lambda: not self._ready,
                changed=self._publish,
            )

    def request_stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Run until :meth:`request_stop`. Raises ``StartFailedError``, with everything stopped, if one cannot start."""
        self._publish()
        tasks = {name: asyncio.create_task(process.keep()) for name, process in self._processes.items()}
        sampler = asyncio.create_task(self._sample_memory())
        try:
            await self._watch([*tasks.values(), sampler])
        except Exception as error:
            self._failure = str(error) if isinstance(error, StartFailedError) else f"{type(error).__name__}: {error}"
            log.error("giving up: %s", self._failure)
            raise
        finally:
            sampler.cancel()
            self._stop.set()
            for layer in reversed(self._layers):
                for name in layer:
                    self._processes[name].stop()
                await asyncio.wait([tasks[name] for name in layer])
            self._write_peaks()
            self._directory.stack.unlink(missing_ok=True)
            self._publish()

    async def _watch(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Return when asked to stop; raise what a process raised; publish the stack when all are ready."""
        all_ready = asyncio.gather(*(process.ready.wait() for process in self._processes.values()))
        stop = asyncio.create_task(self._stop.wait())
        pending: set[asyncio.Future[Any]] = {*tasks, all_ready, stop}
        try:
            while not self._stop.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if all_ready in done:
                    self._ready = True
                    log.info("the stack is ready")
                    self._publish()
        finally:
            all_ready.cancel()
            stop.cancel()

    async def _sample_memory(self) -> None:
        while True:
            rows = [process.state for process in self._processes.values()]
            leaders = {row.name: row.pid for row in rows if row.pid is not None}
            # A walk through /proc, some milliseconds long: not on the loop.
            if await asyncio.to_thread(self._memory.sample, leaders):
                self._write_peaks()
            await asyncio.sleep(MEMORY_SAMPLE_S)

    def _write_peaks(self) -> None:
        write_private(self._directory.peak_rss, json.dumps(self._memory.peaks, indent=1))

    def _publish(self) -> None:
        states = [process.state for process in self._processes.values()]
        if self._ready and not self._stop.is_set():
            write_private(self._directory.stack, json.dumps(self._describe(states), indent=1))
        state = StackState(os.getpid(), self._ready, self._stop.is_set(), self._failure, tuple(states))
        write_private(self._directory.state, state.to_json())

    def _describe(self, states: Sequence[ProcessState]) -> dict[str, object]:
        plan = self._plan
        rows = [
            {"name": row.name, "pid": row.pid, "log": row.log, "restarts": row.restarts}
            for row in states
            if row.state is not State.DONE
        ]
        return {
            "supervisor_pid": os.getpid(),
            "port_base": plan.port_base,
            "processes": rows,
            "addresses": dict(plan.addresses),
            "health": dict(plan.health),
            "metrics": dict(plan.metrics),
            "database_url": plan.database_url,
            "redis_url": plan.redis_url,
            "qdrant_url": plan.qdrant_url,
            "env": dict(plan.env),
        }


async def supervise(directory: StackDirectory, lock: int) -> int:
    """Run the plan in ``directory`` until SIGTERM or SIGINT; the exit status."""
    plan = Plan.from_json(directory.plan.read_text(encoding="utf-8"))
    supervisor = Supervisor(plan, directory, lock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop)
    try:
        await supervisor.run()
    except StartFailedError:
        return 1
    return 0


def main(argv: Sequence[str]) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    root, lock = argv
    return asyncio.run(supervise(StackDirectory(Path(root)), int(lock)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
