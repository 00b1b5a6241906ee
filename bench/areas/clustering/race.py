"""Contenders on generated faces, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.areas.clustering.apart import Outcome, group_apart
from bench.areas.clustering.faces import DrawnFaces

# More than Kith leaves to the hdbscan library, few enough for everybody to be done in seconds.
WARM_UP_FACES: Final = 2_500
WARM_UP_SEED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Runs:
    """What a contender did in all its runs on the faces whose ``truth`` it is."""

    row: str
    outcomes: Sequence[Outcome]
    truth: npt.NDArray[np.int64]

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """Of the first run."""
        return self.outcomes[0].labels

    @property
    def seconds(self) -> list[float]:
        """Of each run."""
        return [outcome.seconds for outcome in self.outcomes]

    @property
    def peaks_mb(self) -> list[float]:
        """Of each run's process."""
        return [outcome.peak_mb for outcome in self.outcomes]


class Race:
    """Lets contenders run on faces drawn into ``folder``; ``sizes`` are the names of how many there may be."""

    def __init__(
        self,
        folder: Path,
        repeat: int,
        sizes: Mapping[str, int],
        draw: Callable[[Path, int, int], DrawnFaces],
        group: Callable[..., Outcome] = group_apart,
    ) -> None:
        self._folder = folder
        self._repeat = repeat
        self._sizes = sizes
        self._draw = draw
        self._group = group

    def draw(self, size: str, seed: int = 0) -> DrawnFaces:
        """The faces of a size that everybody is given."""
        return self._draw(self._folder, self._sizes[size], seed)

    def run(self, contender: str, size: str, *, seed: int = 0, once: bool = False, **options: Any) -> Runs:
        """Let a contender group ``size`` faces ``repeat`` times, or ``once``; the options are its own."""
        faces = self.draw(size, seed)
        warm_up = self._draw(self._folder, WARM_UP_FACES, WARM_UP_SEED)
        row = f"{contender}/{size}"
        outcomes: list[Outcome] = []
        for _ in range(1 if once else self._repeat):
            outcome = self._group(contender, faces.vectors, warm_up.vectors, **options)
            outcomes.append(outcome)
            print(
                f"{row}{_tell_options(options)}: {outcome.seconds:.1f} s, {outcome.peak_mb:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
        return Runs(row, outcomes, faces.truth)


def _tell_options(options: Mapping[str, Any]) -> str:
    """Those that can be told in a word; arrays and the like by name."""
    told = [f"{name}={value}" if isinstance(value, str | int) else name for name, value in options.items()]
    return f" ({', '.join(told)})" if told else ""
