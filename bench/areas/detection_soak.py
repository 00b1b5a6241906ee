"""Does the detector's memory stay where it is? A session of twenty thousand photos, and the server's memory all along."""

from __future__ import annotations

import statistics
import tempfile
import threading
from pathlib import Path

import psutil

from bench.areas.detection.photos import gather_photos
from bench.areas.detection.service import run_session
from bench.options import BenchOptions
from bench.rows import BenchRow, make_row
from deploy.local.directory import StackDirectory
from deploy.local.stack import StackOptions, start_stack
from deploy.local.supervisor import StackState

PHOTOS = 20_000
# Pools, arenas and caches are as large as they get after so many; what comes later must stay level.
WARM_UP = 2_000
SAMPLE_S = 0.5
MB = 1 << 20


def measure(options: BenchOptions) -> list[BenchRow]:
    """Row ``soak``: median and largest deviation of the detector's resident memory after warm-up, and the rate."""
    rates: list[float] = []
    medians: list[float] = []
    deviations: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        photos = gather_photos(options, Path(folder))
        stack_options = StackOptions(
            directory=Path(folder) / "stack",
            port_base=0,
            pack=str(options.pack),
            photos=tuple(sorted({path.parent for path in photos})),
        )
        for _ in range(options.repeat):
            with start_stack(stack_options) as stack:
                target = stack.addresses["detection"]
                run_session(target, photos, WARM_UP)
                with ResidentMemory(_find_pid(stack.directory)) as memory:
                    rate = run_session(target, photos, PHOTOS - WARM_UP)
            middle = statistics.median(memory.samples)
            rates.append(rate.per_second)
            medians.append(middle)
            deviations.append(max(abs(sample - middle) for sample in memory.samples) / middle)
    command = options.command("detection_soak")
    return [
        make_row("soak", "photos_per_s", rates, command),
        make_row("soak", "median_mb", medians, command),
        make_row("soak", "largest_deviation", deviations, command),
    ]


class ResidentMemory:
    """Samples one process's resident memory, in MB, in a thread, as long as it is entered."""

    def __init__(self, pid: int) -> None:
        self.samples: list[float] = []
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> ResidentMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.samples.append(self._process.memory_info().rss / MB)
            if self._ended.wait(SAMPLE_S):
                return


def _find_pid(directory: StackDirectory) -> int:
    state = StackState.from_json(directory.state.read_text(encoding="utf-8"))
    pid = next(process.pid for process in state.processes if process.name == "detection")
    if pid is None:
        raise RuntimeError("the detection server does not run")
    return pid
