"""From photo to faces: the detector beside the floor it cannot go below and the loop one would write without it.

Every way is measured in the same run, one after the other and round after round, on the same photos, decode included. Ratios
are of one round each, so that a slow minute of the machine falls on both sides.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from bench.apart import run_apart
from bench.areas.detection.direct import measure_direct
from bench.areas.detection.floor import measure_floor
from bench.areas.detection.peers import measure_face_analysis, measure_http
from bench.areas.detection.photos import gather_photos
from bench.areas.detection.rate import Rate
from bench.areas.detection.service import ask_grpc, read_peak_mb, run_session
from bench.options import BenchOptions
from bench.rows import BenchRow, make_row
from deploy.local.stack import RunningStack, StackOptions, start_stack

CLIENTS = 8
SECONDS = 8.0
SESSION_PHOTOS = 600


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``direct``, ``grpc_8_clients``, ``session_job``, ``face_analysis_get`` and ``http_service``, and the ``floor``."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        photos = gather_photos(options.photos, Path(folder))
        stack_options = StackOptions(
            directory=Path(folder) / "stack", port_base=0, pack=str(options.pack), photos=_folders(photos)
        )
        with start_stack(stack_options) as stack:
            for _ in range(options.repeat):
                _measure_round(options.pack, photos, stack, found)
    command = "make bench AREA=detection"
    return [make_row(row, metric, values, command) for (row, metric), values in found.items()]


def _measure_round(
    pack: Path, photos: list[Path], stack: RunningStack, found: dict[tuple[str, str], list[float]]
) -> None:
    floor, _ = run_apart(measure_floor, pack, photos, SECONDS)
    found["floor", "photos_per_s"].append(floor)
    naive, naive_mb = run_apart(measure_face_analysis, pack, photos, SECONDS)

    def add(row: str, rate: Rate, peak_mb: float) -> None:
        found[row, "photos_per_s"].append(rate.per_second)
        found[row, "ratio_to_floor"].append(rate.per_second / floor)
        found[row, "ratio_to_naive"].append(rate.per_second / naive.per_second)
        found[row, "p50_ms"].append(rate.p50_ms)
        found[row, "p99_ms"].append(rate.p99_ms)
        found[row, "peak_mb"].append(peak_mb)

    add("face_analysis_get", naive, naive_mb)
    add("direct", *run_apart(measure_direct, pack, photos, SECONDS))
    target = stack.addresses["detection"]
    over_grpc, _ = run_apart(ask_grpc, target, photos, CLIENTS, SECONDS)
    add("grpc_8_clients", over_grpc, read_peak_mb(stack, "detection"))
    add("session_job", run_session(target, photos, SESSION_PHOTOS), read_peak_mb(stack, "detection"))
    add("http_service", *measure_http(pack, photos, CLIENTS, SECONDS))


def _folders(photos: list[Path]) -> tuple[Path, ...]:
    return tuple(sorted({path.parent for path in photos}))
