"""From the start downhill: Adam on hard triplets, held to the start, stopped by persons who are not learnt from.

What is learnt is a square matrix after the start, beginning as the identity, so that every direction has the same scale and
one rate fits all. What is judged and kept is a running average of it (Polyak and Juditsky 1992): single steps of small
batches are noise. Kept is the best average by the tuning persons, the start itself among them: if nothing learnt tells them
apart better, nothing was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.persons.matching.request import People, TrainingOptions
from services.persons.matching.triplets import PersonRows, draw_batch, measure_loss
from shared.faces.embeddings import Vectors, normalise

_MOMENTUM: Final = 0.9
_SCALE_MEMORY: Final = 0.999
_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """``matrix`` (d, d) as it is after ``number`` epochs, and the mean loss of the last."""

    number: int
    matrix: Vectors
    loss: float


def descend(
    vectors: Vectors, people: People, options: TrainingOptions, between_batches: Callable[[], None]
) -> Iterator[Epoch]:
    """Learn from unit vectors (N, d) of ``people`` (N,) in rising order; one answer per epoch."""
    random = np.random.default_rng(options.seed)
    rows = PersonRows.of(people)
    start = np.eye(vectors.shape[1], dtype=np.float32)
    adam = _Adam(start, options.rate)
    average = start.copy()
    steps = max(1, len(vectors) // (options.batch_people * options.faces_each))
    for number in range(1, options.epochs + 1):
        means = rows.find_means(normalise(vectors @ adam.matrix))
        losses = []
        for _ in range(steps):
            between_batches()
            batch, whose = draw_batch(rows, means, random, options)
            loss, gradient = measure_loss(adam.matrix, vectors[batch], whose, options)
            adam.step(gradient + 2 * options.pull * (adam.matrix - start))
            average = options.averaging * average + (1 - options.averaging) * adam.matrix
            losses.append(loss)
        yield Epoch(number, average, float(np.mean(losses)))


class _Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, matrix: Vectors, rate: float) -> None:
        self.matrix = matrix
        self._rate = rate
        self._mean = np.zeros_like(matrix)
        self._square = np.zeros_like(matrix)
        self._steps = 0

    def step(self, gradient: Vectors) -> None:
        self._steps += 1
        self._mean = _MOMENTUM * self._mean + (1 - _MOMENTUM) * gradient
        self._square = _SCALE_MEMORY * self._square + (1 - _SCALE_MEMORY) * gradient**2
        mean = self._mean / (1 - _MOMENTUM**self._steps)
        square = self._square / (1 - _SCALE_MEMORY**self._steps)
        self.matrix = self.matrix - np.float32(self._rate) * mean / (np.sqrt(square) + _EPSILON)
