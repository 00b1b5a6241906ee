"""The engine: one pack, one provider, one queue. Photo in, faces out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import cv2
import insightface
import onnxruntime

from services.detection.inference.batcher import Batcher, BatcherLimits, BatcherState, Turn
from services.detection.inference.faces import DetectedFace, DetectOptions, GivenFace, ModelInfo
from services.detection.inference.models import LoadedModels, load_models
from services.detection.inference.packs import ModelPack, load_pack
from services.detection.inference.pipeline import FacePipeline, LookTask, MeasureTask, Task
from services.detection.inference.session import ProviderChoice, choose_provider
from shared.config import Provider, Settings
from shared.imaging.decode import DecodedImage
from shared.telemetry.metrics import Metrics

# Given faces per turn in the queue: each may cost a run of the detector, as one photo does.
_GIVEN_PER_TURN = 8


class FaceEngine:
    """Finds, measures and embeds faces. Build it with :meth:`load`, end it with :meth:`close`."""

    def __init__(
        self,
        pack: ModelPack,
        models: LoadedModels,
        choice: ProviderChoice,
        pipeline: FacePipeline,
        limits: BatcherLimits,
        metrics: Metrics,
    ) -> None:
        self._info = _describe(pack, models, choice)
        self._metrics = metrics
        self._batcher: Batcher[Task, list[DetectedFace]] = Batcher(pipeline.process, limits, on_batch=self._count_batch)
        self._show_state()

    @classmethod
    async def load(cls, settings: Settings, metrics: Metrics | None = None) -> Self:
        """Load the pack of ``settings`` and be ready to infer; takes seconds, in a thread.

        What runs, and its queue, is shown in ``metrics``, if given.

        Also limits OpenCV to one thread in this process: it would otherwise start one per core for every
        worker. Raises :class:`ModelPackError` or :class:`ProviderError` with the reason.
        """
        return await asyncio.to_thread(cls._load, settings, metrics or Metrics())

    @classmethod
    def _load(cls, settings: Settings, metrics: Metrics) -> Self:
        model, detection = settings.model, settings.detection
        cv2.setNumThreads(1)
        choice = choose_provider(model.provider)
        pack = load_pack(model)
        models = load_models(
            pack,
            choice,
            detection_size=detection.det_size,
            nms_iou=detection.nms_iou,
            batch_max=detection.batch_max,
            cache=_make_cache(settings.data_dir, pack) if choice.provider is Provider.TENSORRT else None,
        )
        # One thread feeds a GPU; on a CPU every core runs photos of its own through the same session.
        limits = BatcherLimits(
            workers=1 if choice.is_gpu else model.threads or _usable_cores(),
            max_batch=models.detector_batch,
            max_wait_s=detection.batch_wait_ms / 1000,
            queue_max=detection.queue_max,
        )
        pipeline = FacePipeline(
            models.detector,
            models.recogniser,
            settings.quality,
            pack.manifest.norm_range,
            detection.second_pass_min_px,
        )
        return cls(pack, models, choice, pipeline, limits, metrics)

    @property
    def info(self) -> ModelInfo:
        """What runs, and where."""
        return self._info

    def state(self) -> BatcherState:
        """The queue as it is now, for metrics."""
        return self._batcher.state()

    async def detect(self, image: DecodedImage, options: DetectOptions, turn: Turn) -> list[DetectedFace]:
        """The faces of one upright photo, by falling confidence.

        Cancelling takes the photo back if its turn has not come. Raises :class:`Overloaded` as ``turn`` has it,
        :class:`Unavailable` (DRAINING) after :meth:`close`.
        """
        return await self._batcher.submit(LookTask(image.pixels, options), turn)

    async def measure(
        self,
        image: DecodedImage,
        given: Sequence[GivenFace],
        turn: Turn,
        *,
        min_confidence: float,
        with_embeddings: bool = True,
    ) -> list[DetectedFace]:
        """Faces of one upright photo whose boxes are known, each with its centre in the photo; in the order given.

        Where landmarks are missing the detector is asked for them, down to ``min_confidence``. Takes a turn in the
        queue for every few faces, so that a photo of many holds up nobody else. Raises as :meth:`detect`.
        """
        faces: list[DetectedFace] = []
        for start in range(0, len(given), _GIVEN_PER_TURN):
            part = given[start : start + _GIVEN_PER_TURN]
            faces += await self._batcher.submit(MeasureTask(image.pixels, part, min_confidence, with_embeddings), turn)
        return faces

    async def close(self, *, drain: bool = True) -> None:
        """Finish what waits (or fail it, without ``drain``) and end the threads."""
        await self._batcher.close(drain=drain)

    def _count_batch(self, waited_s: Sequence[float]) -> None:
        self._metrics.detector_batch_photos.observe(len(waited_s))
        for seconds in waited_s:
            self._metrics.detector_wait_seconds.observe(seconds)

    def _show_state(self) -> None:
        """The queue is asked whenever somebody looks."""
        self._metrics.detector_waiting.set_function(lambda: self.state().waiting)
        self._metrics.detector_running.set_function(lambda: self.state().running)
        info = self._info
        labels = (info.pack, info.version, info.provider.value, str(info.dimension))
        self._metrics.model_info.labels(*labels).set(1)


def _usable_cores() -> int:
    # A container may be bound to fewer cores than the machine has; where that cannot be asked, count the machine's.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _make_cache(data_dir: Path, pack: ModelPack) -> Path:
    # A folder per pack, so that what was compiled for an old one can be deleted.
    cache = data_dir / "tensorrt" / pack.version
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _describe(pack: ModelPack, models: LoadedModels, choice: ProviderChoice) -> ModelInfo:
    return ModelInfo(
        pack=pack.name,
        version=pack.version,
        dimension=models.dimension,
        detection_size=models.detection_size,
        provider=choice.provider,
        provider_reason=choice.reason,
        providers=models.providers,
        sha256={model.path.name: model.sha256 for model in (pack.detector, pack.recogniser)},
        licence=pack.licence,
        thresholds=dict(pack.manifest.thresholds),
        calibration=dict(pack.manifest.calibration),
        rewrites=models.rewrites,
        runtime={"insightface": insightface.__version__, "onnxruntime": onnxruntime.__version__},
    )
