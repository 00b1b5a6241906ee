"""What happens to a batch of photos between the queue and the answer: look, align, judge, embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from services.detection.inference.alignment import align_faces, template_for
from services.detection.inference.detector import Detections, Detector
from services.detection.inference.faces import DetectedFace, DetectOptions, GivenFace
from services.detection.inference.given import choose_key_points, view_surroundings
from services.detection.inference.recogniser import Recogniser
from services.detection.inference.tiles import TileGrid
from services.detection.inference.views import View
from shared.config import QualitySettings
from shared.faces.boxes import Box
from shared.faces.quality import FaceQuality, measure_qualities
from shared.imaging.decode import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class LookTask:
    """Find the faces of a photo."""

    pixels: Pixels
    options: DetectOptions

    @property
    def min_quality(self) -> float:
        return self.options.min_quality

    @property
    def with_embeddings(self) -> bool:
        return self.options.with_embeddings


@dataclass(frozen=True, slots=True, eq=False)
class MeasureTask:
    """Measure faces whose place is known: all of them, however bad."""

    pixels: Pixels
    given: Sequence[GivenFace]
    min_confidence: float
    with_embeddings: bool

    @property
    def min_quality(self) -> float:
        return 0.0


Task = LookTask | MeasureTask


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a face is on the photo of which task; ``confidence`` is None if no detector was asked."""

    task: int
    box: Box
    landmarks: NDArray[np.float32]
    confidence: float | None
    given_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Aligned:
    """A face and its crop."""

    place: _Place
    crop: Pixels


class FacePipeline:
    """Takes batches of tasks. May be used by several threads at once."""

    def __init__(
        self,
        detector: Detector,
        recogniser: Recogniser,
        quality: QualitySettings,
        norm_range: tuple[float, float] | None,
        second_pass_min_px: int,
    ) -> None:
        """``norm_range`` is the pack's, if its norm means quality; ``second_pass_min_px`` is the least longer side of a
        photo that may be looked at twice.
        """
        self._detector = detector
        self._recogniser = recogniser
        self._quality = quality
        self._norm_range = norm_range
        self._second_pass_min_px = second_pass_min_px
        self._grid = TileGrid(detector.size)
        self._template = template_for(recogniser.side)

    def process(self, tasks: Sequence[Task]) -> list[list[DetectedFace]]:
        """The faces of each task: found ones by falling confidence, given ones in the order given."""
        aligned = self._align(tasks, self._find_places(tasks))
        qualities: Sequence[FaceQuality] = ()
        if self._norm_range is None:
            # Known before embedding, so that what is too bad costs no run of the recogniser.
            qualities = self._measure(aligned, None)
            good = [_is_good(tasks, *face) for face in zip(aligned, qualities, strict=True)]
            aligned, qualities = list(compress(aligned, good)), list(compress(qualities, good))
        embeddings, norms = self._embed(tasks, aligned)
        if self._norm_range is not None:
            qualities = self._measure(aligned, norms)
        faces: list[list[DetectedFace]] = [[] for _ in tasks]
        for face, quality, embedding, norm in zip(aligned, qualities, embeddings, norms, strict=True):
            if not _is_good(tasks, face, quality):
                continue
            place = face.place
            shown = tasks[place.task].with_embeddings
            faces[place.task].append(
                DetectedFace(
                    box=place.box,
                    landmarks=place.landmarks,
                    confidence=place.confidence or 0.0,
                    quality=quality,
                    embedding=embedding if shown else None,
                    embedding_norm=norm if shown else None,
                    given_id=place.given_id,
                )
            )
        return faces

    def _find_places(self, tasks: Sequence[Task]) -> list[_Place]:
        seen = self._detect([_first_views(task) for task in tasks])
        tiles: list[list[View]] = [
            self._grid.cut(task.pixels, task.options.min_confidence)
            if isinstance(task, LookTask) and self._wants_second_pass(task, found[0])
            else []
            for task, found in zip(tasks, seen, strict=True)
        ]
        seen_again = self._detect(tiles)
        places: list[_Place] = []
        for row, task in enumerate(tasks):
            if isinstance(task, MeasureTask):
                places += _place_given(row, task, seen[row])
                continue
            found = seen[row][0]
            if tiles[row]:
                found = self._grid.merge(task.pixels, found, tiles[row], seen_again[row], self._detector.nms_iou)
            places += _place_found(row, task.options, found)
        return places

    def _detect(self, groups: Sequence[Sequence[View]]) -> list[list[Detections]]:
        """What is seen in each view of each group, in pixels of their photos."""
        views = [view for group in groups for view in group]
        seen = iter(self._detector.detect([view.pixels for view in views], [view.min_score for view in views]))
        return [[view.to_photo(next(seen)) for view in group] for group in groups]

    def _wants_second_pass(self, task: LookTask, found: Detections) -> bool:
        return task.options.second_pass and self._grid.is_wanted(task.pixels, found, self._second_pass_min_px)

    def _align(self, tasks: Sequence[Task], places: Sequence[_Place]) -> list[_Aligned]:
        if not places:
            return []
        photos = [tasks[place.task].pixels for place in places]
        landmarks = np.stack([place.landmarks for place in places])
        crops = align_faces(photos, landmarks, self._template, self._recogniser.side)
        return [_Aligned(place, crop) for place, crop in zip(places, crops, strict=True)]

    def _embed(
        self, tasks: Sequence[Task], faces: Sequence[_Aligned]
    ) -> tuple[list[NDArray[np.float32] | None], list[float]]:
        """Embeddings and their norms; None and 0 for faces nobody wants them of."""
        # Where the norm is a part of quality it must be known even if nobody wants the vector, or quality
        # would depend on that.
        wanted = [self._norm_range is not None or tasks[face.place.task].with_embeddings for face in faces]
        embeddings: list[NDArray[np.float32] | None] = [None] * len(faces)
        norms = [0.0] * len(faces)
        if any(wanted):
            found = self._recogniser.embed([face.crop for face in compress(faces, wanted)])
            for row, embedding, norm in zip(np.flatnonzero(wanted), *found, strict=True):
                # A copy: a row would keep the embeddings of the whole batch in memory.
                embeddings[row], norms[row] = embedding.copy(), float(norm)
        return embeddings, norms

    def _measure(self, faces: Sequence[_Aligned], norms: Sequence[float] | None) -> list[FaceQuality]:
        if not faces:
            return []
        return measure_qualities(
            landmarks=np.stack([face.place.landmarks for face in faces]),
            crops=[face.crop for face in faces],
            confidences=[face.place.confidence for face in faces],
            settings=self._quality,
            embedding_norms=norms,
            norm_range=self._norm_range,
        )


def _is_good(tasks: Sequence[Task], face: _Aligned, quality: FaceQuality) -> bool:
    return quality.overall >= tasks[face.place.task].min_quality


def _first_views(task: Task) -> list[View]:
    if isinstance(task, LookTask):
        return [View(task.pixels, 0, 0, task.options.min_confidence)]
    return [
        view_surroundings(task.pixels, face.box, task.min_confidence) for face in task.given if face.landmarks is None
    ]


def _place_found(row: int, options: DetectOptions, found: Detections) -> list[_Place]:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    kept = np.flatnonzero(sides.min(axis=1) >= options.min_face_px)[: options.max_faces]
    return [
        _Place(
            row,
            Box(*(float(value) for value in (*found.boxes[face, :2], *sides[face]))),
            found.landmarks[face],
            float(found.scores[face]),
        )
        for face in kept
    ]


def _place_given(row: int, task: MeasureTask, seen: Sequence[Detections]) -> list[_Place]:
    looks = iter(seen)
    places: list[_Place] = []
    for face in task.given:
        landmarks, confidence = face.landmarks, None
        if landmarks is None:
            points = choose_key_points(face.box, next(looks))
            landmarks, confidence = points.landmarks, points.confidence
        places.append(_Place(row, face.box, landmarks, confidence, face.given_id))
    return places
