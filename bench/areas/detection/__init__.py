"""From photo to faces: the detector beside the floor it cannot go below and the loop one would write without it.

All contenders stand ready at once and take short turns on the same photos, decode included, the floor between any two of them.
A ratio is that of one turn to the mean of the floor's turns before and after it, and the figure is the median over all rounds:
so a machine whose speed wanders by a fifth, as those of clouds do, wanders out of it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
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
from deploy.local.stack import StackOptions, start_stack

CLIENTS = 8
ROUNDS = 5
TURN_S = 3.0
# A job of some seconds: what it takes to begin and to end is in the figure, as it is in a real one of thousands.
SESSION_PHOTOS = 500

TakeTurn = Callable[[], Turn]
ReadPeak = Callable[[], float]


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``direct``, ``grpc_8_clients``, ``session_job``, ``face_analysis_get`` and ``http_service``, and the ``floor``."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        photos = gather_photos(options, Path(folder))
        stack_options = StackOptions(
            directory=Path(folder) / "stack",
            port_base=0,
            pack=str(options.pack),
            photos=tuple(sorted({path.parent for path in photos})),
        )
        kith = stack.enter_context(start_stack(stack_options))
        target = kith.addresses["detection"]
        port, http_pid = stack.enter_context(running_http(options.pack))
        floor = stack.enter_context(Apart(Floor, options.pack, photos))
        naive = stack.enter_context(Apart(FaceAnalysisLoop, options.pack, photos))
        direct = stack.enter_context(Apart(Direct, options.pack, photos))
        clients = stack.enter_context(Apart(GrpcClients, target, photos, CLIENTS))
        posting = stack.enter_context(Apart(HttpClients, port, photos, CLIENTS))
        contenders: dict[str, tuple[TakeTurn, ReadPeak]] = {
            "face_analysis_get": (lambda: naive.take_turn(TURN_S), naive.read_peak_mb),
            "direct": (lambda: direct.take_turn(TURN_S), direct.read_peak_mb),
            "grpc_8_clients": (lambda: clients.take_turn(TURN_S), lambda: read_stack_peak_mb(kith, "detection")),
            "session_job": (
                lambda: run_session(target, photos, SESSION_PHOTOS),
                lambda: read_stack_peak_mb(kith, "detection"),
            ),
            "http_service": (lambda: posting.take_turn(TURN_S), lambda: read_peak_mb(http_pid)),
        }
        return _run(contenders, lambda: floor.take_turn(TURN_S), ROUNDS * options.repeat)


def _run(contenders: dict[str, tuple[TakeTurn, ReadPeak]], floor: TakeTurn, rounds: int) -> list[BenchRow]:
    turns: dict[str, list[Turn]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    floors: list[float] = []
    for take_turn, _ in contenders.values():
        take_turn()
    for _ in range(rounds):
        before = floor().per_second
        for name, (take_turn, _) in contenders.items():
            turn = take_turn()
            after = floor().per_second
            turns[name].append(turn)
            ratios[name].append(turn.per_second / statistics.mean((before, after)))
            floors.append(after)
            before = after
    command = "make bench AREA=detection"
    rows = [make_row("floor", "photos_per_s", floors, command)]
    naive = ratios["face_analysis_get"]
    for name, (_, read_peak) in contenders.items():
        p50, p99 = find_percentiles(turns[name])
        to_naive = [ratio / loop for ratio, loop in zip(ratios[name], naive, strict=True)]
        rows += [
            make_row(name, "photos_per_s", [turn.per_second for turn in turns[name]], command),
            make_row(name, "ratio_to_floor", ratios[name], command),
            make_row(name, "ratio_to_naive", to_naive, command),
            make_row(name, "p50_ms", [p50], command),
            make_row(name, "p99_ms", [p99], command),
            make_row(name, "peak_mb", [read_peak()], command),
        ]
    return rows
