"""From photo to faces: the detector beside the floor it cannot go below and the loop one would write without it.

All contenders stand ready at once and take short turns on the same photos, decode included, the floor between any two of them.
A ratio is that of one turn to the mean of the floor's turns before and after it, and the figure is the median over all rounds:
so a machine whose speed wanders by a fifth, as those of clouds do, wanders out of it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.apart import Apart, read_peak_mb
from bench.areas.detection.direct import Direct
from bench.areas.detection.floor import Floor
from bench.areas.detection.peers import FaceAnalysisLoop, HttpClients, running_http
from bench.areas.detection.photos import gather_photos
from bench.areas.detection.service import GrpcClients, read_stack_peak_mb, run_session
from bench.options import BenchOptions
from bench.rate import Turn, find_percentiles
from bench.rows import BenchRow, make_row
from deploy.local.stack import RunningStack, StackOptions, start_stack

CLIENTS = 8
ROUNDS = 5
TURN_S = 4.0
# A job of some seconds: what it takes to begin and to end is in the figure, as it is in a real one of thousands.
SESSION_PHOTOS = 500


@dataclass(frozen=True, slots=True)
class Lane:
    """One row: how it takes a turn, and how the peak memory of what works in it is read."""

    row: str
    take_turn: Callable[[], Turn]
    read_peak_mb: Callable[[], float]


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``direct``, ``grpc_8_clients``, ``session_job``, ``face_analysis_get`` and ``http_service``, and the ``floor``.

    What needs no stack runs before there is one: its processes take a few percent of two cores even while they wait.
    """
    rounds = ROUNDS * options.repeat
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        photos = gather_photos(options, Path(folder))
        floor = stack.enter_context(Apart(Floor, options.pack, photos))
        table = Table(lambda: floor.take_turn(TURN_S), options.command("detection"))
        with ExitStack() as alone:
            table.run(_open_peers(options.pack, photos, alone), rounds)
        stack_options = StackOptions(
            directory=Path(folder) / "stack",
            port_base=0,
            pack=str(options.pack),
            photos=tuple(sorted({path.parent for path in photos})),
        )
        with start_stack(stack_options) as kith, ExitStack() as clients:
            table.run(_open_service(kith, photos, clients), rounds)
            return table.make_rows()


def _open_peers(pack: Path, photos: list[Path], stack: ExitStack) -> list[Lane]:
    naive = stack.enter_context(Apart(FaceAnalysisLoop, pack, photos))
    direct = stack.enter_context(Apart(Direct, pack, photos))
    port, pid = stack.enter_context(running_http(pack))
    posting = stack.enter_context(Apart(HttpClients, port, photos, CLIENTS))
    return [
        Lane("face_analysis_get", lambda: naive.take_turn(TURN_S), naive.read_peak_mb),
        Lane("direct", lambda: direct.take_turn(TURN_S), direct.read_peak_mb),
        Lane("http_service", lambda: posting.take_turn(TURN_S), lambda: read_peak_mb(pid)),
    ]


def _open_service(kith: RunningStack, photos: list[Path], stack: ExitStack) -> list[Lane]:
    target = kith.addresses["detection"]
    clients = stack.enter_context(Apart(GrpcClients, target, photos, CLIENTS))

    def read_peak() -> float:
        return read_stack_peak_mb(kith, "detection")

    return [
        Lane("grpc_8_clients", lambda: clients.take_turn(TURN_S), read_peak),
        Lane("session_job", lambda: run_session(target, photos, SESSION_PHOTOS), read_peak),
    ]


class Table:
    """Lanes in turns between turns of the floor, and the rows that come of it."""

    def __init__(self, floor: Callable[[], Turn], command: str) -> None:
        self._floor = floor
        self._command = command
        self._floors: list[float] = []
        self._turns: dict[str, list[Turn]] = defaultdict(list)
        self._ratios: dict[str, list[float]] = defaultdict(list)
        self._peaks: dict[str, float] = {}

    def run(self, lanes: Sequence[Lane], rounds: int) -> None:
        """Warm every lane up once, then let each have its turn, round after round."""
        for lane in lanes:
            lane.take_turn()
        for _ in range(rounds):
            before = self._floor().per_second
            for lane in lanes:
                turn = lane.take_turn()
                after = self._floor().per_second
                self._turns[lane.row].append(turn)
                self._ratios[lane.row].append(turn.per_second / statistics.mean((before, after)))
                self._floors.append(after)
                before = after
        self._peaks |= {lane.row: lane.read_peak_mb() for lane in lanes}

    def make_rows(self) -> list[BenchRow]:
        """The figures of all lanes; against the plain loop by way of the floor, which both were measured beside."""
        naive = statistics.median(self._ratios["face_analysis_get"])
        rows = [make_row("floor", "photos_per_s", self._floors, self._command)]
        for row, turns in self._turns.items():
            ratios = self._ratios[row]
            p50, p99 = find_percentiles(turns)
            rows += [
                make_row(row, "photos_per_s", [turn.per_second for turn in turns], self._command),
                make_row(row, "ratio_to_floor", ratios, self._command),
                make_row(row, "ratio_to_naive", [ratio / naive for ratio in ratios], self._command),
                make_row(row, "p50_ms", [p50], self._command),
                make_row(row, "p99_ms", [p99], self._command),
                make_row(row, "peak_mb", [self._peaks[row]], self._command),
            ]
        return rows
