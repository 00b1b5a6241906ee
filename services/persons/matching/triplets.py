"""Hard triplets: who is drawn into a batch, and what the loss of a batch is.

Persons who lie near each other are drawn together, and in a batch each face is held against the faces of others nearest to
it. For an anchor a, a face p of the same person and a face n of another, with cosines c, the loss is the smooth triplet loss
``log(1 + exp(s (c_an - c_ap + m))) / s`` (Schroff et al. 2015 with a soft hinge), its mean taken over all triplets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.persons.matching.request import People, TrainingOptions
from shared.faces.embeddings import Vectors, normalise

_DRAWN_TOGETHER = 4


@dataclass(frozen=True, slots=True, eq=False)
class PersonRows:
    """Where each person's rows are, in faces sorted by person: ``first`` (P,), ``sizes`` (P,)."""

    first: npt.NDArray[np.intp]
    sizes: npt.NDArray[np.intp]

    @classmethod
    def of(cls, people: People) -> PersonRows:
        """From ``people`` (N,) in rising order."""
        _, first, sizes = np.unique(people, return_index=True, return_counts=True)
        return cls(first, sizes)

    def find_means(self, vectors: Vectors) -> Vectors:
        """Each person's mean direction (P, d)."""
        return normalise(np.add.reduceat(vectors, self.first, axis=0))


def draw_batch(
    rows: PersonRows, means: Vectors, random: np.random.Generator, options: TrainingOptions
) -> tuple[npt.NDArray[np.intp], People]:
    """Rows of a batch (B,) and whose each is: some persons at random, each with those nearest to them now."""
    people = len(rows.sizes)
    seeds = random.choice(people, min(people, options.batch_people // _DRAWN_TOGETHER), replace=False)
    near = np.argpartition(-(means[seeds] @ means.T), min(people, _DRAWN_TOGETHER) - 1, axis=1)[:, :_DRAWN_TOGETHER]
    drawn = np.unique(near)
    faces = [
        rows.first[person] + random.permutation(rows.sizes[person])[: options.faces_each] for person in drawn.tolist()
    ]
    return np.concatenate(faces), np.repeat(drawn, [len(some) for some in faces])


def measure_loss(matrix: Vectors, vectors: Vectors, people: People, options: TrainingOptions) -> tuple[float, Vectors]:
    """Loss of a batch ``vectors`` (B, d) of ``people`` (B,), and its gradient by ``matrix`` (d, e).

    Zero, both, for a batch without a pair of one person or without a second person.
    """
    projected = vectors @ matrix
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    units = projected / lengths
    cosines = units @ units.T
    same = people[:, None] == people[None, :]
    others = int((~same).sum(axis=1).min())
    anchors, positives = np.nonzero(same & ~np.eye(len(people), dtype=np.bool_))
    if not others or not len(anchors):
        return 0.0, np.zeros_like(matrix)
    hardest = min(options.hardest, others)
    negatives = np.argpartition(np.where(same, np.inf, -cosines), hardest - 1, axis=1)[:, :hardest][anchors]
    excess = cosines[anchors[:, None], negatives] - cosines[anchors, positives][:, None] + options.margin
    scaled = (options.sharpness * excess).astype(np.float64)
    loss = float(np.logaddexp(0.0, scaled).mean()) / options.sharpness
    weights = (0.5 * (1.0 + np.tanh(0.5 * scaled)) / scaled.size).astype(np.float32)
    by_cosine = np.zeros_like(cosines)
    np.add.at(by_cosine, (np.repeat(anchors, hardest), negatives.ravel()), weights.ravel())
    np.add.at(by_cosine, (anchors, positives), -weights.sum(axis=1))
    by_unit = (by_cosine + by_cosine.T) @ units
    # Of the unit vector only what lies across it can change.
    by_projected = (by_unit - (by_unit * units).sum(axis=1, keepdims=True) * units) / lengths
    return loss, vectors.T @ by_projected
