"""A pack turned into a running detector and recogniser: graphs rewritten for the provider, verified, and opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from services.detection.inference.batchable import make_batchable, verify_batch
from services.detection.inference.detector import Detector
from services.detection.inference.errors import ModelPackError, RewriteError
from services.detection.inference.packs import ModelPack, read_graph
from services.detection.inference.probe import as_input, probe_pictures
from services.detection.inference.recogniser import Recogniser
from services.detection.inference.rewrite import replace_prelu, verify_embeddings
from services.detection.inference.session import ProviderChoice, Session, open_session
from shared.config import Provider

_PROBES = 3
_GPU_BUCKETS = (1, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModels:
    """Ready to run.

    ``dimension`` is measured; ``providers`` is where each model file runs, by its name; ``rewrites`` says what was
    changed or refused, in words.
    """

    detector: Detector
    recogniser: Recogniser
    dimension: int
    detection_size: int
    detector_batch: int
    providers: Mapping[str, str]
    rewrites: tuple[str, ...]


def load_models(
    pack: ModelPack,
    choice: ProviderChoice,
    *,
    detection_size: int,
    nms_iou: float,
    batch_max: int,
    cache: Path | None = None,
) -> LoadedModels:
    """Open ``pack`` on the chosen provider. ``cache`` as in :func:`open_session`.

    ``detection_size`` yields to a graph whose input is fixed, as in InsightFace. A rewrite that is refused
    leaves the original graph in place. Raises :class:`ModelPackError` or :class:`ProviderError`.
    """
    size = pack.detector.fixed_size or detection_size
    if size % max(pack.detector.strides):
        raise ModelPackError(
            f"the detector's input of {size} px is no multiple of its stride {max(pack.detector.strides)}"
        )
    notes: list[str] = []
    detector_session, buckets = _open_detector(pack, choice, size, batch_max, cache, notes)
    recogniser_session = _open_recogniser(pack, choice, cache, notes)
    detector = Detector(detector_session, pack.detector, size=size, nms_iou=nms_iou, buckets=buckets)
    recogniser = _wrap_recogniser(recogniser_session, pack, _recogniser_buckets(recogniser_session, choice))
    dimension = _measure_dimension(recogniser, pack)
    _warm_up(detector, buckets, recogniser, pack, choice)
    return LoadedModels(
        detector=detector,
        recogniser=recogniser,
        dimension=dimension,
        detection_size=size,
        detector_batch=buckets[-1],
        providers={
            pack.detector.path.name: detector_session.get_providers()[0],
            pack.recogniser.path.name: recogniser_session.get_providers()[0],
        },
        rewrites=tuple(notes),
    )


def _open_detector(
    pack: ModelPack, choice: ProviderChoice, size: int, batch_max: int, cache: Path | None, notes: list[str]
) -> tuple[Session, tuple[int, ...]]:
    graph = read_graph(pack.detector.path)
    if not choice.is_gpu:
        # On a CPU a batch takes longer than its photos one by one: the caches no longer hold the activations.
        return open_session(graph, choice.provider), (1,)
    batchable = prepare_batchable(graph, pack, size, notes)
    if batchable is None:
        return open_session(graph, choice.provider, cache), (1,)
    return open_session(batchable, choice.provider, cache), _buckets_up_to(batch_max)


def prepare_batchable(graph: onnx.ModelProto, pack: ModelPack, size: int, notes: list[str]) -> onnx.ModelProto | None:
    """The detector's ``graph`` for batches, verified; None if it is refused. ``notes`` is told which, and why."""
    try:
        batchable = make_batchable(graph, size=size, strides=pack.detector.strides, anchors=pack.detector.anchors)
        difference = check_batchable(graph, batchable, pack, size)
    except RewriteError as refusal:
        notes.append(f"detector runs one photo at a time: {refusal}")
        return None
    notes.append(f"detector takes batches (largest difference {difference:.1e} on {_PROBES} probes)")
    return batchable


def check_batchable(original: onnx.ModelProto, batchable: onnx.ModelProto, pack: ModelPack, size: int) -> float:
    """Largest difference between ``original`` run on single probes and ``batchable`` run on all of them, on the CPU.

    On the CPU, because the question is whether the graph is right; a GPU's kernels differ by more than a
    wrong graph may. Raises :class:`RewriteError` if they differ or the rewritten graph does not run.
    """
    pictures = probe_pictures(_PROBES, size)
    blob = as_input(pictures, pack.detector.mean, pack.detector.deviation)
    single = open_session(original, Provider.CPU)
    name = single.get_inputs()[0].name
    expected = [single.run(None, {name: blob[row : row + 1]}) for row in range(_PROBES)]
    try:
        found = open_session(batchable, Provider.CPU).run(None, {name: blob})
    except Exception as error:
        # Whatever onnxruntime raises here, the rewritten graph does not run.
        raise RewriteError(f"the batchable graph does not run: {error}") from error
    return verify_batch(expected, found)


def _open_recogniser(pack: ModelPack, choice: ProviderChoice, cache: Path | None, notes: list[str]) -> Session:
    graph = read_graph(pack.recogniser.path)
    if choice.is_gpu:
        return open_session(graph, choice.provider, cache)
    original = open_session(graph, choice.provider)
    rewritten_graph, count = replace_prelu(graph)
    if not count:
        return original
    rewritten = open_session(rewritten_graph, choice.provider)
    probes = list(probe_pictures(_PROBES, pack.recogniser.side))
    try:
        lowest = verify_embeddings(
            _wrap_recogniser(original, pack, (1,)).run(probes),
            _wrap_recogniser(rewritten, pack, (1,)).run(probes),
        )
    except RewriteError as refusal:
        notes.append(f"recogniser keeps its {count} PRelu: {refusal}")
        return original
    notes.append(f"recogniser runs without its {count} PRelu (lowest cosine {lowest:.8f} on {_PROBES} probes)")
    return rewritten


def _wrap_recogniser(session: Session, pack: ModelPack, buckets: tuple[int, ...]) -> Recogniser:
    model = pack.recogniser
    return Recogniser(session, side=model.side, mean=model.mean, deviation=model.deviation, buckets=buckets)


def _recogniser_buckets(session: Session, choice: ProviderChoice) -> tuple[int, ...]:
    # A number instead of a symbol as first dimension: the export has no batch axis.
    fixed_batch = isinstance(session.get_inputs()[0].shape[0], int)
    return (1,) if fixed_batch or not choice.is_gpu else _GPU_BUCKETS


def _buckets_up_to(batch_max: int) -> tuple[int, ...]:
    return (*(size for size in _GPU_BUCKETS if size < batch_max), batch_max)


def _measure_dimension(recogniser: Recogniser, pack: ModelPack) -> int:
    embeddings, _ = recogniser.embed(list(probe_pictures(1, pack.recogniser.side)))
    dimension = int(embeddings.shape[1])
    declared = pack.manifest.dimension
    if declared is not None and declared != dimension:
        raise ModelPackError(f"pack.json says {declared} dimensions, the recogniser gives {dimension}")
    return dimension


def _warm_up(
    detector: Detector,
    buckets: tuple[int, ...],
    recogniser: Recogniser,
    pack: ModelPack,
    choice: ProviderChoice,
) -> None:
    """Run every batch size once: a GPU picks its kernels for a shape the first time it sees it."""
    for bucket in buckets:
        detector.detect(list(probe_pictures(1, pack.detector.fixed_size or 64)) * bucket, [1.0] * bucket)
    if choice.is_gpu:
        for bucket in _GPU_BUCKETS:
            recogniser.run(list(probe_pictures(1, pack.recogniser.side)) * bucket)
