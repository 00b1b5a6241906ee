"""One piece of work in a process of its own, which ends with it: its memory is that work's and nothing else's."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from bench.apart import read_peak_mb

P = ParamSpec("P")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``labels`` (N,): the group of each face, -1 for none; the seconds of the grouping alone; the peak of the process."""

    labels: npt.NDArray[np.integer]
    seconds: float
    peak_mb: float


def work_apart(work: Callable[P, Answer], *args: P.args, **kwargs: P.kwargs) -> Answer:
    """What ``work``, a function of a module, answers or raises; ``BrokenProcessPool`` if its process was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def group_apart(contender: str, vectors: Path, warm_up: Path, **options: Any) -> Outcome:
    """The outcome of a module of ``contenders`` on the rows of a .npy, after a warm-up on those of another."""
    return work_apart(_group, contender, vectors, warm_up, options)


def _group(contender: str, vectors: Path, warm_up: Path, options: dict[str, Any]) -> Outcome:
    # By name: one contender's libraries must not be in another's memory.
    module = importlib.import_module(f"bench.areas.clustering.contenders.{contender}")
    module.warm_up(np.load(warm_up, mmap_mode="r"))
    rows = np.load(vectors, mmap_mode="r")
    begun = time.perf_counter()
    labels = module.group(rows, **options)
    return Outcome(labels, time.perf_counter() - begun, read_peak_mb())
