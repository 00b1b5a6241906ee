"""One supervised process: start, wait until ready, restart when it dies, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from deploy.local.directory import StackDirectory
from deploy.local.errors import StartFailedError
from deploy.local.plan import ProcessSpec, RestartPolicy, child_argv
from deploy.local.readiness import NotReadyError, check_ready

READY_POLL_S = 0.05
MAX_DOUBLINGS = 20
TAIL_LINES = 20
_TAIL_BYTES = 32 * 1024

log = logging.getLogger("kith.stack")


class State(StrEnum):
    """Where a process is in its life. ``RUNNING`` has been ready; ``DONE`` is a process that runs once, and did."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A row of ``state.json``. ``pid`` is None while there is no process; ``since`` is a Unix time in seconds."""

    name: str
    state: State
    pid: int | None
    log: str
    restarts: int
    since: float
    detail: str = ""


class SupervisedProcess:
    """Keeps one :class:`ProcessSpec` alive.

    :meth:`keep` runs as a task for the whole life of the stack, owns the process all that time, and raises
    ``StartFailedError`` if the process cannot be started while ``starting()`` says that the stack as a whole has not
    been ready yet. ``changed`` is called after each change of :attr:`state`.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        policy: RestartPolicy,
        directory: StackDirectory,
        lock: int,
        dependencies: Sequence[SupervisedProcess],
        starting: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self._policy = policy
        self._directory = directory
        self._lock = lock
        self._dependencies = dependencies
        self._starting = starting
        self._changed = changed
        self._stopping = asyncio.Event()
        self._log_start = 0
        self.state = ProcessState(spec.name, State.WAITING, None, str(directory.log(spec.name)), 0, time.time())

    async def keep(self) -> None:
        """Run until :meth:`stop`, or until done if it runs once."""
        for dependency in self._dependencies:
            await self._wait_unless_stopping(dependency.ready.wait())
        failures = 0
        while not self._stopping.is_set():
            child = await self._spawn()
            began = time.monotonic()
            reason = await self._become_ready(child)
            was_ready = reason is None
            if was_ready:
                self._set(State.RUNNING, pid=child.pid)
                self.ready.set()
                log.info("%s is ready after %.2f s", self.spec.name, time.monotonic() - began)
                began = time.monotonic()
                await self._wait_unless_stopping(child.wait())
            await self._end(child)
            if self.spec.runs_once and child.returncode == 0:
                self._set(State.DONE)
                self.ready.set()
                return
            if not self._stopping.is_set():
                healthy = was_ready and time.monotonic() - began >= self._policy.max_pause_s
                failures = 1 if healthy else failures + 1
                await self._pause_or_fail(failures, reason or describe_exit(child.returncode))
        self._set(State.STOPPED)

    def stop(self) -> None:
        """Make :meth:`keep` end the process (asked first, killed after its grace) and return."""
        self._stopping.set()

    async def _spawn(self) -> asyncio.subprocess.Process:
        spec = self.spec
        argv = child_argv(spec.argv, parent=os.getpid(), death_signal=spec.stop_signal, identity=spec.identity)
        output = self._directory.open_log(spec.name)
        try:
            self._log_start = os.fstat(output).st_size
            # The lock goes along, so that the directory counts as taken until the last child is gone.
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **spec.env},
                cwd=spec.cwd,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        finally:
            os.close(output)
        self._set(State.STARTING, pid=child.pid)
        return child

    async def _become_ready(self, child: asyncio.subprocess.Process) -> str | None:
        """None when ready; otherwise why not, and then the process has ended, is to be stopped, or took too long."""
        answer = "it was never asked"
        deadline = time.monotonic() + self._policy.ready_timeout_s
        while child.returncode is None and not self._stopping.is_set():
            if not self.spec.runs_once:
                try:
                    await check_ready(self.spec.ready)
                    return None
                except NotReadyError as error:
                    answer = str(error)
            if time.monotonic() > deadline:
                return f"not ready after {self._policy.ready_timeout_s:g} s ({answer})"
            await self._wait_unless_stopping(child.wait(), timeout_s=READY_POLL_S)
        return describe_exit(child.returncode)

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """See the process off if it still runs, and then whatever it left behind in its process group."""
        if child.returncode is None:
            log.info("stopping %s (process %d)", self.spec.name, child.pid)
            with suppress(ProcessLookupError):  # it may end by itself right now
                os.kill(child.pid, self.spec.stop_signal)
            try:
                async with asyncio.timeout(self.spec.stop_grace_s):
                    await child.wait()
            except TimeoutError:
                log.warning("%s did not end within %g s: killing it", self.spec.name, self.spec.stop_grace_s)
        # What is left: a child too slow, or the pool workers of one that was killed. Usually the group is empty by now.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()

    async def _pause_or_fail(self, failures: int, reason: str) -> None:
        attempts = 1 if self.spec.runs_once else self._policy.start_attempts
        if self._starting() and failures >= attempts:
            self._set(State.FAILED, detail=reason)
            raise StartFailedError(f"{self.spec.name} does not start: {reason}\n{self._describe_log()}")
        doublings = min(failures - 1, MAX_DOUBLINGS)
        pause = min(self._policy.first_pause_s * 2**doublings, self._policy.max_pause_s)
        log.warning("%s: %s; starting it again in %.2f s", self.spec.name, reason, pause)
        self._set(State.RESTARTING, restarts=self.state.restarts + 1, detail=reason)
        await self._wait_unless_stopping(asyncio.sleep(pause))

    async def _wait_unless_stopping(
        self, wait: Coroutine[None, None, object], *, timeout_s: float | None = None
    ) -> None:
        """Return when ``wait`` has, when the process is to be stopped, or after ``timeout_s``, whichever is first."""
        tasks = {asyncio.ensure_future(wait), asyncio.ensure_future(self._stopping.wait())}
        done, pending = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()

    def _set(self, state: State, *, pid: int | None = None, restarts: int | None = None, detail: str = "") -> None:
        self.state = replace(
            self.state,
            state=state,
            pid=pid,
            restarts=self.state.restarts if restarts is None else restarts,
            since=time.time(),
            detail=detail,
        )
        self._changed()

    def _describe_log(self) -> str:
        path = self._directory.log(self.spec.name)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:]) or "  (it wrote nothing)"
        return f"{tail}\nthe whole log: {path}"


def describe_exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "it is being stopped"
    if code < 0:
        return f"it was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"it exited with status {code}"
