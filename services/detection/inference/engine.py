"""The engine: one pack, one provider, one queue. Photo in, faces out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import insightface
import numpy as np
import onnxruntime

from services.detection.inference.alignment import align_face, template_for
from services.detection.inference.batcher import Batcher, BatcherLimits, BatcherState
from services.detection.inference.detector import Detections
from services.detection.inference.faces import DetectedFace, DetectOptions, ModelInfo
from services.detection.inference.models import LoadedModels, load_models
from services.detection.inference.packs import ModelPack, load_pack
from services.detection.inference.session import ProviderChoice, choose_provider
from shared.config import DetectionSettings, ModelSettings, QualitySettings, Settings
from shared.faces.boxes import Box
from shared.faces.quality import FaceQuality, measure_quality
from shared.imaging.decode import DecodedImage, Pixels


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    pixels: Pixels
    options: DetectOptions


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A face that passed the detector, with the row of its photo in the batch."""

    photo: int
    box: Box
    landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    confidence: float
    crop: Pixels
    quality: FaceQuality


class FaceEngine:
    """Finds, measures and embeds faces. Build it with :meth:`load`, end it with :meth:`close`."""

    def __init__(
        self,
        pack: ModelPack,
        models: LoadedModels,
        choice: ProviderChoice,
        quality: QualitySettings,
        limits: BatcherLimits,
    ) -> None:
        self._models = models
        self._quality = quality
        self._side = pack.recogniser.side
        self._template = template_for(self._side)
        self._norm_range = pack.manifest.norm_range
        self._info = _describe(pack, models, choice)
        self._batcher: Batcher[_Task, list[DetectedFace]] = Batcher(self._find_faces, limits)

    @classmethod
    async def load(cls, settings: Settings) -> Self:
        """Load the pack of ``settings`` and be ready to infer; takes seconds, in a thread.

        Also limits OpenCV to one thread in this process: it would otherwise start one per core for every
        worker. Raises :class:`ModelPackError` or :class:`ProviderError` with the reason.
        """
        return await asyncio.to_thread(cls._load, settings.model, settings.detection, settings.quality)

    @classmethod
    def _load(cls, model: ModelSettings, detection: DetectionSettings, quality: QualitySettings) -> Self:
        cv2.setNumThreads(1)
        choice = choose_provider(model.provider)
        pack = load_pack(model)
        models = load_models(
            pack,
            choice,
            detection_size=detection.det_size,
            nms_iou=detection.nms_iou,
            batch_max=detection.batch_max,
        )
        # One thread feeds a GPU; on a CPU every core runs photos of its own through the same session.
        limits = BatcherLimits(
            workers=1 if choice.is_gpu else model.threads or _usable_cores(),
            max_batch=models.detector_batch,
            max_wait_s=detection.batch_wait_ms / 1000,
            queue_max=detection.queue_max,
        )
        return cls(pack, models, choice, quality, limits)

    @property
    def info(self) -> ModelInfo:
        """What runs, and where."""
        return self._info

    def state(self) -> BatcherState:
        """The queue as it is now, for metrics."""
        return self._batcher.state()

    async def detect(
        self,
        image: DecodedImage,
        options: DetectOptions,
        *,
        caller: str = "",
        patience_s: float | None = None,
    ) -> list[DetectedFace]:
        """The faces of one upright photo, by falling confidence.

        ``caller`` is the fairness lane (a stream, a job, a client). Cancelling takes the photo back if its
        turn has not come. Raises :class:`Overloaded` if the queue is full or the turn would come later than
        ``patience_s``, :class:`Unavailable` (DRAINING) after :meth:`close`.
        """
        return await self._batcher.submit(_Task(image.pixels, options), caller=caller, patience_s=patience_s)

    async def close(self, *, drain: bool = True) -> None:
        """Finish what waits (or fail it, without ``drain``) and end the threads."""
        await self._batcher.close(drain=drain)

    def _find_faces(self, tasks: Sequence[_Task]) -> list[list[DetectedFace]]:
        found = self._models.detector.detect(
            [task.pixels for task in tasks], [task.options.min_confidence for task in tasks]
        )
        candidates = [
            candidate
            for photo, (task, detections) in enumerate(zip(tasks, found, strict=True))
            for candidate in self._select(photo, task, detections)
        ]
        faces: list[list[DetectedFace]] = [[] for _ in tasks]
        wanted = [self._needs_embedding(tasks[candidate.photo].options) for candidate in candidates]
        crops = [candidate.crop for candidate, want in zip(candidates, wanted, strict=True) if want]
        embedded = iter(zip(*self._models.recogniser.embed(crops), strict=True)) if crops else iter(())
        for candidate, want in zip(candidates, wanted, strict=True):
            options = tasks[candidate.photo].options
            embedding, norm = next(embedded) if want else (None, None)
            quality = candidate.quality
            if norm is not None and self._norm_range is not None:
                quality = self._measure(candidate.landmarks, candidate.crop, candidate.confidence, float(norm))
                if quality.overall < options.min_quality:
                    continue
            faces[candidate.photo].append(
                DetectedFace(
                    box=candidate.box,
                    landmarks=candidate.landmarks,
                    confidence=candidate.confidence,
                    quality=quality,
                    embedding=np.array(embedding) if embedding is not None and options.with_embeddings else None,
                    embedding_norm=float(norm) if norm is not None and options.with_embeddings else None,
                )
            )
        return faces

    def _select(self, photo: int, task: _Task, detections: Detections) -> list[_Candidate]:
        """Faces of one photo that are large and, unless the norm has still to be asked, good enough."""
        options = task.options
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        rows = np.flatnonzero(sides.min(axis=1) >= options.min_face_px)[: options.max_faces]
        chosen: list[_Candidate] = []
        for row in rows:
            landmarks = detections.landmarks[row]
            confidence = float(detections.scores[row])
            crop = align_face(task.pixels, landmarks, self._template, self._side)
            quality = self._measure(landmarks, crop, confidence, None)
            if self._norm_range is None and quality.overall < options.min_quality:
                continue
            left, top = (float(value) for value in detections.boxes[row, :2])
            box = Box(left, top, float(sides[row, 0]), float(sides[row, 1]))
            chosen.append(_Candidate(photo, box, landmarks, confidence, crop, quality))
        return chosen

    def _needs_embedding(self, options: DetectOptions) -> bool:
        # Where the norm is a part of quality it must be known even if nobody wants the vector, or quality
        # would depend on that.
        return options.with_embeddings or self._norm_range is not None

    def _measure(
        self,
        landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
        crop: Pixels,
        confidence: float,
        norm: float | None,
    ) -> FaceQuality:
        return measure_quality(
            landmarks=landmarks,
            crop=crop,
            confidence=confidence,
            settings=self._quality,
            embedding_norm=norm,
            norm_range=self._norm_range,
        )


def _usable_cores() -> int:
    # A container may be bound to fewer cores than the machine has; where that cannot be asked, count the machine's.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _describe(pack: ModelPack, models: LoadedModels, choice: ProviderChoice) -> ModelInfo:
    return ModelInfo(
        pack=pack.name,
        version=pack.version,
        dimension=models.dimension,
        detection_size=models.detection_size,
        detector_sha256=pack.detector.sha256,
        recogniser_sha256=pack.recogniser.sha256,
        provider=choice.provider,
        provider_reason=choice.reason,
        providers=models.providers,
        insightface_version=insightface.__version__,
        onnxruntime_version=onnxruntime.__version__,
        licence=pack.manifest.licence,
        thresholds=dict(pack.manifest.thresholds),
        calibration=dict(pack.manifest.calibration),
        rewrites=models.rewrites,
    )
