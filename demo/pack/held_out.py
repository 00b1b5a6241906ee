"""Runs a pack over a drawn album with InsightFace's own loading code, and measures it against the truth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.drawing import AlbumPhoto, AlbumTruth
from demo.pack.alignment import crop_face
from shared.config import QualitySettings
from shared.faces.quality import measure_quality

MATCH_OVERLAP = 0.5
DETECTION_SIZE = (640, 640)
DETECTION_FLOOR = 0.5
_BATCH = 64


@dataclass(frozen=True, slots=True)
class SeenFaces:
    """Faces a detector found in an album: aligned crops (n, 112, 112, 3) BGR, and what is known of each.

    `people` (n,) counts the album's people from 0; strangers go on from there, one number each; -1 is no face at
    all. `photos` (n,) is the photo's number, `quality` (n,) what Kith would measure.
    `missed` are drawn faces that nothing was found for.
    """

    crops: NDArray[np.uint8]
    people: NDArray[np.int64]
    photos: NDArray[np.int64]
    quality: NDArray[np.float64]
    known: int
    drawn: int
    missed: int

    @property
    def recall(self) -> float:
        """Share of drawn faces found."""
        return 1 - self.missed / self.drawn

    @property
    def precision(self) -> float:
        """Share of found faces that are drawn ones."""
        return float((self.people >= 0).mean())


@dataclass(frozen=True, slots=True)
class FoundFaces(SeenFaces):
    """Faces a pack found in an album: beside the rest, unit embeddings (n, d) float32."""

    embeddings: NDArray[np.float32]

    @property
    def true_faces(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Embeddings and people without the false finds."""
        real = self.people >= 0
        return self.embeddings[real], self.people[real]


def _match(boxes: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each found box (n, 4) the index of the drawn one (m, 4) it overlaps by half, each once, best first; or -1."""
    owner = np.full(len(boxes), -1, np.int64)
    if not len(boxes) or not len(truth):
        return owner
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)[:, None] + (truth[:, 2:] - truth[:, :2]).prod(-1)[None]
    ious = shared / (area - shared)
    while ious.max() >= MATCH_OVERLAP:
        found, drawn = np.unravel_index(int(ious.argmax()), ious.shape)
        owner[found] = drawn
        ious[found], ious[:, drawn] = -1, -1
    return owner


def fit_score_floor(detector_file: Path, album: Path, truth: AlbumTruth) -> float:
    """The score from which on faces and false finds part best on an album: the middle of the highest F1."""
    from insightface.model_zoo import get_model

    detector = get_model(str(detector_file), providers=["CPUExecutionProvider"])
    detector.prepare(ctx_id=-1, input_size=DETECTION_SIZE, det_thresh=0.4)
    scores: list[float] = []
    right: list[bool] = []
    for photo in truth.photos:
        found, _ = detector.detect(np.asarray(cv2.imread(str(album / photo.file)), np.uint8))
        owner = _match(np.asarray(found[:, :4], np.float32), _drawn_boxes(photo))
        scores += found[:, 4].tolist()
        right += (owner >= 0).tolist()
    drawn = sum(len(photo.faces) for photo in truth.photos)
    score, good = np.array(scores), np.array(right)
    floors = np.arange(0.4, 0.8, 0.01)
    f1 = np.array([2 * good[score >= floor].sum() / (drawn + (score >= floor).sum()) for floor in floors])
    return round(float(np.median(floors[f1 >= f1.max() - 0.001])), 3)


def see_faces(detector_file: Path, album: Path, truth: AlbumTruth) -> SeenFaces:
    """Detects and aligns every face of an album, as Kith does."""
    from insightface.model_zoo import get_model

    detector = get_model(str(detector_file), providers=["CPUExecutionProvider"])
    detector.prepare(ctx_id=-1, input_size=DETECTION_SIZE, det_thresh=DETECTION_FLOOR)
    numbers = {person.name: number for number, person in enumerate(truth.people)}
    crops: list[NDArray[np.uint8]] = []
    quality: list[float] = []
    rows: list[tuple[int, int]] = []
    drawn = missed = 0
    strangers = len(numbers)
    for number, photo in enumerate(truth.photos):
        image = np.asarray(cv2.imread(str(album / photo.file)), np.uint8)
        found, landmarks = detector.detect(image)
        owner = _match(np.asarray(found[:, :4], np.float32), _drawn_boxes(photo))
        labels = []
        for face in photo.faces:
            labels.append(strangers if face.person is None else numbers[face.person])
            strangers += face.person is None
        drawn += len(photo.faces)
        missed += len(photo.faces) - int((owner >= 0).sum())
        for marks, box, drawn_face in zip(landmarks, found, owner, strict=True):
            crop = crop_face(image, marks)
            crops.append(crop)
            measured = measure_quality(landmarks=marks, crop=crop, confidence=float(box[4]), settings=QualitySettings())
            quality.append(measured.overall)
            person = labels[drawn_face] if drawn_face >= 0 else -1
            rows.append((person, number))
    people, photos = np.array(rows, np.int64).T
    return SeenFaces(np.stack(crops), people, photos, np.array(quality), len(numbers), drawn, missed)


def embed_faces(recogniser_file: Path, seen: SeenFaces) -> FoundFaces:
    """Embeds the faces a detector found."""
    from insightface.model_zoo import get_model

    recogniser = get_model(str(recogniser_file), providers=["CPUExecutionProvider"])
    crops = list(seen.crops)
    parts = [recogniser.get_feat(crops[first : first + _BATCH]) for first in range(0, len(crops), _BATCH)]
    stacked = np.concatenate(parts)
    unit = (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)
    known = {field.name: getattr(seen, field.name) for field in fields(SeenFaces)}
    return FoundFaces(**known, embeddings=unit)


def find_faces(pack: Path, album: Path, truth: AlbumTruth) -> FoundFaces:
    """Detects and embeds every face of an album with the pack in a folder of that path."""
    return embed_faces(pack / "rec_kith.onnx", see_faces(pack / "det_kith.onnx", album, truth))


def _drawn_boxes(photo: AlbumPhoto) -> NDArray[np.float32]:
    boxes = np.array([face.box for face in photo.faces], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def pair_scores(faces: FoundFaces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of all pairs of the same person, and of all pairs of different people (strangers among them)."""
    embeddings, people = faces.true_faces
    cosine = embeddings @ embeddings.T
    upper = np.triu(np.ones(cosine.shape, bool), 1)
    same = people[:, None] == people[None, :]
    return cosine[upper & same], cosine[upper & ~same]


def accept_rate(genuine: NDArray[np.float32], impostor: NDArray[np.float32], false_rate: float) -> tuple[float, float]:
    """Share of genuine pairs accepted at a false accept rate, and the cosine that gives that rate."""
    floor = float(np.quantile(impostor, 1 - false_rate))
    return float((genuine > floor).mean()), floor


def pairwise_f1(people: NDArray[np.int64], clusters: NDArray[np.int64]) -> tuple[float, float, float]:
    """Precision, recall and F1 over pairs of faces put together; noise (-1) counts as clusters of one."""
    alone = clusters < 0
    clusters = clusters.copy()
    clusters[alone] = clusters.max(initial=0) + 1 + np.arange(alone.sum())
    table: dict[tuple[int, int], int] = {}
    for pair in zip(people.tolist(), clusters.tolist(), strict=True):
        table[pair] = table.get(pair, 0) + 1

    def pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both = pairs(np.array(list(table.values())))
    together = pairs(np.unique(clusters, return_counts=True)[1])
    belonging = pairs(np.unique(people, return_counts=True)[1])
    precision, recall = both / max(together, 1), both / max(belonging, 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)
