"""Model packs, named and routed by InsightFace.

InsightFace decides which file of a pack is the detector and which the recogniser, and what mean and deviation each
expects, so that a pack that works there works here. Its sessions are dropped again: ours are made from the rewritten
graphs.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils import ensure_available

from services.detection.inference.errors import ModelPackError
from services.detection.inference.manifest import PackManifest, read_manifest
from shared.config import ModelSettings

_KEY_POINT_OUTPUTS = {9: (8, 16, 32), 15: (8, 16, 32, 64, 128)}
_LANDMARK_WIDTH = 10
# What InsightFace says of every pack it offers for download (its model zoo, README).
_INSIGHTFACE_LICENCE = "available for non-commercial research purposes only"


@dataclass(frozen=True, slots=True)
class DetectorModel:
    """An SCRFD with five key points.

    ``strides`` are in input pixels, ``anchors`` per cell. ``fixed_size`` is the square input the graph
    insists on, None if it is free. Input is (pixel - mean) / deviation, RGB.
    """

    path: Path
    sha256: str
    strides: tuple[int, ...]
    anchors: int
    fixed_size: int | None
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class RecogniserModel:
    """An ArcFace-like model: aligned crop of ``side`` x ``side`` pixels to an embedding. Input as with the detector."""

    path: Path
    sha256: str
    side: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A detector and a recogniser that belong together.

    ``version`` names the embedding space, ``[a-z0-9_]``, at most 41 long: the pack's name and the first 8 hex digits of the
    recogniser's SHA-256, so that a retrained model cannot share a collection with the one before. ``licence`` is in its
    publisher's words, empty if unknown.
    """

    name: str
    version: str
    detector: DetectorModel
    recogniser: RecogniserModel
    manifest: PackManifest
    licence: str


def load_pack(settings: ModelSettings) -> ModelPack:
    """Find the pack of ``settings`` (a folder, or an InsightFace pack by name, downloaded if it is not there) and
    read it.

    Raises :class:`ModelPackError` with what is missing.
    """
    folder = _find_folder(settings)
    manifest = read_manifest(folder)
    detector, recogniser = _route_models(folder)
    name = manifest.name or folder.name
    recogniser_model = _describe_recogniser(recogniser)
    return ModelPack(
        name=name,
        version=settings.version or _version_of(name, recogniser_model.sha256),
        detector=_describe_detector(detector),
        recogniser=recogniser_model,
        manifest=manifest,
        licence=manifest.licence or ("" if _is_folder(settings) else _INSIGHTFACE_LICENCE),
    )


def _is_folder(settings: ModelSettings) -> bool:
    return Path(settings.pack).expanduser().is_dir()


def _find_folder(settings: ModelSettings) -> Path:
    if _is_folder(settings):
        return Path(settings.pack).expanduser().resolve()
    if "/" in settings.pack or settings.pack.startswith((".", "~")):
        raise ModelPackError(f"model pack folder '{settings.pack}' does not exist")
    root = settings.root.expanduser()
    try:
        return Path(ensure_available("models", settings.pack, root=str(root)))
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        # requests' exceptions are OSErrors.
        raise ModelPackError(
            f"model pack '{settings.pack}' is not below {root / 'models'} and cannot be downloaded: {error}"
        ) from error


def _route_models(folder: Path) -> tuple[SCRFD, ArcFaceONNX]:
    present = sorted(path.name for path in folder.glob("*.onnx"))
    if not present:
        raise ModelPackError(f"model pack folder '{folder}' has no .onnx file")
    options = onnxruntime.SessionOptions()
    # These sessions only tell shapes; optimising them would be work thrown away.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        routed = FaceAnalysis(
            name=str(folder),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
            sess_options=options,
        )
    except AssertionError as error:
        raise ModelPackError(f"InsightFace finds no detector among {present} of '{folder}'") from error
    except Exception as error:
        # onnxruntime's exceptions share no base of their own, and InsightFace adds what reading a manifest or a graph
        # may raise.
        raise ModelPackError(f"model pack '{folder}' cannot be loaded: {error}") from error
    detector, recogniser = routed.models["detection"], routed.models.get("recognition")
    if recogniser is None:
        raise ModelPackError(f"InsightFace finds no recogniser among {present} of '{folder}'")
    return detector, recogniser


def _describe_detector(detector: SCRFD) -> DetectorModel:
    path = Path(detector.model_file)
    outputs = detector.session.get_outputs()
    strides = _KEY_POINT_OUTPUTS.get(len(outputs))
    if strides is None:
        raise ModelPackError(f"detector {path.name} has {len(outputs)} outputs; an SCRFD with key points has 9 or 15")
    widths = {output.shape[-1] for output in outputs[2 * len(strides) :]}
    if widths != {_LANDMARK_WIDTH}:
        raise ModelPackError(
            f"detector {path.name} does not give 5 key points: its last outputs are {widths} wide, not 10"
        )
    fixed = detector.static_input_size
    if fixed is not None and fixed[0] != fixed[1]:
        raise ModelPackError(f"detector {path.name} wants {fixed[0]} x {fixed[1]} pixels; only square inputs are run")
    return DetectorModel(
        path=path,
        sha256=_sha256(path),
        strides=strides,
        anchors=detector._num_anchors,
        fixed_size=fixed[0] if fixed is not None else None,
        mean=float(detector.input_mean),
        deviation=float(detector.input_std),
    )


def _describe_recogniser(recogniser: ArcFaceONNX) -> RecogniserModel:
    path = Path(recogniser.model_file)
    kind = recogniser.session.get_inputs()[0].type
    if kind != "tensor(float)":
        raise ModelPackError(f"recogniser {path.name} takes {kind}; only float32 input is run")
    side = recogniser.input_size[0]
    if side % 112 and side % 128:
        raise ModelPackError(f"recogniser {path.name} takes {side} px crops; the ArcFace template is for 112 or 128")
    return RecogniserModel(
        path=path,
        sha256=_sha256(path),
        side=side,
        mean=float(recogniser.input_mean),
        deviation=float(recogniser.input_std),
    )


def read_graph(path: Path) -> onnx.ModelProto:
    """Load an ONNX graph with its weights. Raises :class:`ModelPackError` if it is not one."""
    try:
        return onnx.load(str(path))
    except (DecodeError, OSError) as error:
        raise ModelPackError(f"{path.name} is not an ONNX graph: {error}") from error


def _version_of(name: str, sha256: str) -> str:
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:32].rstrip("_")
    return f"{word or 'pack'}_{sha256[:8]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
