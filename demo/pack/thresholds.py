"""The cosines a pack carries: fitted on validation people, whom neither the networks nor the demo ever see.

The clustering measured here is the house's own in small: HDBSCAN on chord distances cut at `link_floor`, clusters
merged by their centroids above `merge`, noise attached to a centroid above `attach` that leads by `attach_margin`,
merged again. Suggestions are measured as best match over up to eight prototypes of each person.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import hdbscan
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from demo.pack.held_out import FoundFaces, pair_scores, pairwise_f1

PROTOTYPES = 8
SUGGEST_PRECISION = 0.95
ASSIGN_PRECISION = 0.995


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Cosines; what each is for is in the module's docstring, how each was fitted in the pack's README."""

    knn_floor: float
    link_floor: float
    merge: float
    attach: float
    attach_margin: float
    suggest_floor: float
    assign_floor: float


def _sums(embeddings: NDArray[np.float32], clusters: NDArray[np.int64]) -> NDArray[np.float32]:
    sums = np.zeros((clusters.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(sums, clusters[clusters >= 0], embeddings[clusters >= 0])
    return sums


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _merge(embeddings: NDArray[np.float32], clusters: NDArray[np.int64], floor: float) -> NDArray[np.int64]:
    """Joins the two clusters with the closest centroids until none are closer than the floor."""
    sums = _sums(embeddings, clusters)
    owner = np.arange(len(sums))
    cosine = _unit(sums) @ _unit(sums).T
    np.fill_diagonal(cosine, -1)
    while cosine.max() >= floor:
        first, second = sorted(np.unravel_index(int(cosine.argmax()), cosine.shape))
        sums[first] += sums[second]
        owner[owner == second] = first
        row = _unit(sums) @ _unit(sums[first : first + 1])[0]
        row[cosine[first] == -1] = -1
        cosine[first], cosine[:, first] = row, row
        cosine[second], cosine[:, second], cosine[first, first] = -1, -1, -1
    numbers = np.unique(owner, return_inverse=True)[1]
    return np.where(clusters >= 0, numbers[clusters], -1)


def cluster_faces(
    embeddings: NDArray[np.float32], link_floor: float, merge: float, attach: float, attach_margin: float
) -> NDArray[np.int64]:
    """Cluster numbers (n,), -1 for noise, of unit embeddings (n, d)."""
    return refine_clusters(embeddings, link_faces(embeddings, link_floor), merge, attach, attach_margin)


def link_faces(embeddings: NDArray[np.float32], link_floor: float) -> NDArray[np.int64]:
    """HDBSCAN on chord distances. Cutting them off makes every group be born at the floor, as a forest of a graph is."""
    cosine = np.clip(embeddings @ embeddings.T, -1, 1).astype(np.float64)
    chord = np.minimum(np.sqrt(2 - 2 * cosine), np.sqrt(2 - 2 * link_floor))
    np.fill_diagonal(chord, 0)
    found = hdbscan.HDBSCAN(metric="precomputed", min_cluster_size=3, min_samples=3).fit_predict(chord)
    return np.asarray(found, np.int64)


def refine_clusters(
    embeddings: NDArray[np.float32], clusters: NDArray[np.int64], merge: float, attach: float, attach_margin: float
) -> NDArray[np.int64]:
    """Merge, attach noise, merge again."""
    if clusters.max() < 0:
        return clusters
    clusters = _merge(embeddings, clusters, merge)
    noise = np.flatnonzero(clusters < 0)
    if len(noise):
        cosine = embeddings[noise] @ _unit(_sums(embeddings, clusters)).T
        best = cosine.argmax(axis=1)
        cosine = np.sort(cosine, axis=1)
        lead = cosine[:, -1] - (cosine[:, -2] if cosine.shape[1] > 1 else -1)
        near = (cosine[:, -1] > attach) & (lead > attach_margin)
        clusters[noise[near]] = best[near]
    return _merge(embeddings, clusters, merge)


def match_probes(faces: FoundFaces, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores (probes, people) of the unnamed half of the faces and all strangers, and which of them are right."""
    embeddings, people = faces.true_faces
    order = np.random.default_rng(seed).permutation(len(people))
    embeddings, people = embeddings[order], people[order]
    gallery = np.zeros(len(people), bool)
    prototypes = []
    for person in range(faces.known):
        own = np.flatnonzero(people == person)
        chosen = own[: min(PROTOTYPES, len(own) // 2)]
        gallery[own[: len(own) // 2]] = True
        prototypes.append(embeddings[chosen])
    named = [person for person in range(faces.known) if len(prototypes[person])]
    probes = embeddings[~gallery]
    scores = np.stack([(probes @ prototypes[person].T).max(axis=1) for person in named], axis=1)
    return np.asarray(scores, np.float32), people[~gallery][:, None] == np.array(named)[None]


def _floor_for(scores: NDArray[np.float32], right: NDArray[np.bool_], precision: float) -> float:
    """The lowest cosine from which on best matches are right that often."""
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    value, good = scores[rows, best], right[rows, best]
    order = np.argsort(-value)
    share = np.cumsum(good[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    return float(value[order][enough[-1]]) if len(enough) else float(value.max())


def fit_thresholds(faces: FoundFaces, seed: int) -> Thresholds:
    """Searches the clustering's cosines for the best pairwise F1; where several are as good, takes their middle."""
    embeddings, people = faces.true_faces
    _, impostor = pair_scores(faces)
    floors = [float(np.quantile(impostor, 1 - rate)) for rate in (1e-2, 4e-3, 2e-3, 1e-3, 4e-4, 1e-4)]
    trials: list[tuple[float, tuple[float, float, float]]] = []
    for link in floors:
        linked = link_faces(embeddings, link)
        for merge, attach in product(np.arange(0.4, 0.86, 0.05), np.arange(0.3, 0.76, 0.05)):
            clusters = refine_clusters(embeddings, linked, float(merge), float(attach), 0.05)
            trials.append((pairwise_f1(people, clusters)[2], (link, float(merge), float(attach))))
    best = max(score for score, _ in trials)
    good = np.array([values for score, values in trials if score >= best - 0.003])
    middle = np.median(good, axis=0)
    link, merge, attach = good[np.abs(good - middle).sum(axis=1).argmin()]
    scores, right = match_probes(faces, seed)
    suggest = _floor_for(scores, right, SUGGEST_PRECISION)
    return Thresholds(
        knn_floor=round(float(link) - 0.15, 3),
        link_floor=round(float(link), 3),
        merge=round(float(merge), 3),
        attach=round(float(attach), 3),
        attach_margin=0.05,
        suggest_floor=round(suggest, 3),
        assign_floor=round(max(suggest, _floor_for(scores, right, ASSIGN_PRECISION)), 3),
    )


def fit_calibration(faces: FoundFaces, seed: int) -> dict[str, float]:
    """Slope and intercept of P(same person) = 1 / (1 + exp(-(slope * cosine + intercept))), both kinds weighing the same."""
    scores, right = match_probes(faces, seed)
    fit = LogisticRegression(C=100.0, class_weight="balanced").fit(scores.reshape(-1, 1), right.ravel())
    return {"slope": round(float(fit.coef_[0, 0]), 3), "intercept": round(float(fit.intercept_[0]), 3)}
