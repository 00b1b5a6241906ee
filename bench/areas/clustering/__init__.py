"""Groups of generated faces: how good, how fast and in how much memory, beside what else one would group faces with.

Every contender works in a process of its own, on the same float16 rows mapped from a file, after it has grouped a small
collection once, so that imports and compilation are in nobody's seconds. Its memory is the peak of that whole process: the
interpreter, the libraries, the warm-up and the pages of the file that it touched (VmHWM). Nobody is told anything but the
vectors: all faces are of good quality and of a photo each.

One contender needs 10 GB and most of a minute: hdbscan on the matrix of all distances.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from bench.areas.clustering.faces import draw_faces
from bench.areas.clustering.figures import find_exponent, measure_rand, score_groups
from bench.areas.clustering.race import Race, Runs
from bench.options import BenchOptions
from bench.rows import BenchRow, make_row
from services.clustering.grouping.request import GraphMethod
from services.clustering.grouping.thresholds import ThresholdOverrides, resolve_thresholds

SIZES: Final = {"5k": 5_000, "20k": 20_000, "100k": 100_000, "200k": 200_000, "200k+1000": 201_000, "1m": 1_000_000}
LARGEST: Final = "1m"
INCREMENT: Final = "200k+1000"
PARITY_SEEDS: Final = range(5)


def measure(options: BenchOptions) -> list[BenchRow]:
    """Rows ``kith/20k``, ``kith/100k`` and ``kith/200k``, those of its peers where they can follow, and what the grouping is
    held to besides; with the size 1m ``kith/1m``, and ``kith/100k`` once more beside it for the exponent.

    Raises ``ValueError`` for another size.
    """
    if options.size not in (None, LARGEST):
        raise ValueError(f"no such size: {options.size} (there is: {LARGEST})")
    command = options.command("clustering")
    with tempfile.TemporaryDirectory() as folder:
        race = Race(Path(folder), options.repeat, SIZES, draw_faces)
        if options.size == LARGEST:
            return measure_largest(race, command)
        return [*measure_sizes(race, command), *measure_parity(race, command), *measure_increment(race, command)]


def measure_largest(race: Race, command: str) -> list[BenchRow]:
    """A million faces, and what they cost beside a hundred thousand in the same run (``kith/exponent`` ``value``)."""
    smaller, larger = race.run("kith", "100k"), race.run("kith", LARGEST)
    return [
        *_describe(smaller, command),
        *_describe(larger, command),
        make_row("kith/exponent", "value", _find_exponents(smaller, larger), command),
    ]


def measure_sizes(race: Race, command: str) -> list[BenchRow]:
    """Kith up to 200k faces beside its peers, each as far as it can follow.

    ``speed_vs_hdbscan_precomputed`` is how many times the peer's seconds are Kith's, ``memory_vs_hdbscan_precomputed`` which
    share of the peer's peak Kith's is. ``kith/exponent`` ``value_to_200k`` stands in for ``value`` until a million faces are
    measured. ``kith/graph_agreement`` holds the inverted lists against all pairs.
    """
    kith, seed = race.run("kith", "20k"), race.run("hdbscan_precomputed", "20k")
    faster = [theirs / ours for ours, theirs in zip(kith.seconds, seed.seconds, strict=True)]
    smaller = [ours / theirs for ours, theirs in zip(kith.peaks_mb, seed.peaks_mb, strict=True)]
    rows = [
        *_describe(kith, command),
        make_row(kith.row, "speed_vs_hdbscan_precomputed", faster, command),
        make_row(kith.row, "memory_vs_hdbscan_precomputed", smaller, command),
        *_describe(seed, command),
        *_describe(race.run("dbscan_cosine", "20k"), command),
        *_describe(race.run("immich_style", "20k"), command),
        *_describe(race.run("sklearn_hdbscan", "5k"), command),
    ]
    hundred, two_hundred = race.run("kith", "100k"), race.run("kith", "200k")
    lists = race.run("kith", "100k", once=True, graph_method=GraphMethod.INVERTED_LISTS)
    exact = race.run("kith", "100k", once=True, graph_method=GraphMethod.EXACT)
    return [
        *rows,
        *_describe(hundred, command),
        *_describe(two_hundred, command),
        make_row("kith/exponent", "value_to_200k", _find_exponents(hundred, two_hundred), command),
        make_row("kith/graph_agreement", "ari", [measure_rand(lists.labels, exact.labels)], command),
    ]


def measure_parity(race: Race, command: str) -> list[BenchRow]:
    """Is it HDBSCAN? The first groups on an exact graph against the hdbscan library's on euclidean distances."""
    agreements: list[float] = []
    for seed in PARITY_SEEDS:
        ours = race.run("kith", "5k", seed=seed, once=True, first_groups_only=True)
        theirs = race.run("hdbscan_euclidean", "5k", seed=seed, once=True)
        agreements.append(measure_rand(ours.labels, theirs.labels))
    return [
        make_row("kith/hdbscan_parity", "ari_min", [min(agreements)], command),
        make_row("kith/hdbscan_parity", "ari", agreements, command),
    ]


def measure_increment(race: Race, command: str) -> list[BenchRow]:
    """A thousand new faces beside 200k grouped ones, and how what comes of it agrees with a full run over all."""
    known = race.run("kith", INCREMENT, once=True, first=SIZES["200k"])
    vectors = np.load(race.draw(INCREMENT).vectors, mmap_mode="r")
    frozen = resolve_thresholds(vectors[: SIZES["200k"]], None, ThresholdOverrides())
    placed = race.run("kith_increment", INCREMENT, homes=known.labels, thresholds=frozen)
    full = race.run("kith", INCREMENT, once=True)
    row = "kith/increment_1000_into_200k"
    return [
        make_row(row, "seconds", placed.seconds, command),
        make_row(row, "ari", [measure_rand(placed.labels, full.labels)], command),
    ]


def _describe(runs: Runs, command: str) -> list[BenchRow]:
    scores = [score_groups(runs.truth, outcome.labels) for outcome in runs.outcomes]
    return [
        make_row(runs.row, "seconds", runs.seconds, command),
        make_row(runs.row, "peak_mb", runs.peaks_mb, command),
        make_row(runs.row, "pairwise_f1", [score.pairwise_f1 for score in scores], command),
        make_row(runs.row, "pairwise_precision", [score.pairwise_precision for score in scores], command),
        make_row(runs.row, "pairwise_recall", [score.pairwise_recall for score in scores], command),
        make_row(runs.row, "bcubed_f1", [score.bcubed_f1 for score in scores], command),
    ]


def _find_exponents(smaller: Runs, larger: Runs) -> list[float]:
    return [
        find_exponent((len(smaller.truth), less), (len(larger.truth), more))
        for less, more in zip(smaller.seconds, larger.seconds, strict=True)
    ]
