"""onnxruntime sessions, one way per provider, and never on another provider than was chosen.

Left to itself onnxruntime answers a missing or broken CUDA by running on the CPU, and says so only in its
log. Here the fall-back to the CPU is forbidden in the session, the provider is checked after it is made, and
only AUTO may choose, once, aloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from services.detection.inference.errors import ProviderError
from shared.config import Provider

_NAMES = {
    Provider.CPU: "CPUExecutionProvider",
    Provider.CUDA: "CUDAExecutionProvider",
    Provider.TENSORRT: "TensorrtExecutionProvider",
}


class Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` this house uses. ``run`` may be called from several threads at
    once.
    """

    def run(self, output_names: Sequence[str] | None, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]: ...

    def get_inputs(self) -> list[Any]: ...

    def get_outputs(self) -> list[Any]: ...

    def get_providers(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """Where inference runs, and why. ``provider`` is never AUTO."""

    provider: Provider
    reason: str

    @property
    def is_gpu(self) -> bool:
        return self.provider is not Provider.CPU


def choose_provider(requested: Provider, available: Sequence[str] | None = None) -> ProviderChoice:
    """Decide the provider. ``available`` is onnxruntime's list, asked for if None.

    AUTO takes CUDA when this build has it and a trial session runs on a device, else the CPU, and says which
    and why. Any other request is met or refused: raises :class:`ProviderError`.
    """
    offered = list(onnxruntime.get_available_providers() if available is None else available)
    if requested is not Provider.AUTO:
        if _NAMES[requested] not in offered:
            raise ProviderError(f"{_NAMES[requested]} was asked for, but this onnxruntime build offers only {offered}")
        return ProviderChoice(requested, "set by KITH_MODEL_PROVIDER")
    if _NAMES[Provider.CUDA] not in offered:
        return ProviderChoice(Provider.CPU, "this onnxruntime build has no CUDA provider")
    try:
        open_session(_trial_graph(), Provider.CUDA)
    except ProviderError as error:
        return ProviderChoice(Provider.CPU, f"CUDA was tried and failed: {error}")
    return ProviderChoice(Provider.CUDA, "a CUDA device answers")


def open_session(model: onnx.ModelProto, provider: Provider, cache: Path | None = None) -> Session:
    """A session for ``model`` on exactly ``provider`` (not AUTO). Raises :class:`ProviderError` if it would run
    elsewhere.

    ``cache`` is the folder in which TensorRT keeps what it compiled; without one it compiles at every start.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # One thread per run and several runs at once beats several threads per run, and threads that spin steal from each
    # other.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if provider is not Provider.CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        _preload_cuda()
    try:
        session: Session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=list_providers(provider, cache)
        )
    except Exception as error:
        # onnxruntime raises a dozen types of its own for this, with RuntimeError and ValueError among them.
        raise ProviderError(f"no session on {_NAMES[provider]}: {error}") from error
    first = session.get_providers()[0]
    if first != _NAMES[provider]:
        raise ProviderError(f"{_NAMES[provider]} was asked for, onnxruntime took {first}")
    return session


def list_providers(provider: Provider, cache: Path | None) -> list[tuple[str, dict[str, str]]]:
    """What onnxruntime is told to run on, best first, with its options."""
    cuda = (
        _NAMES[Provider.CUDA],
        {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
    )
    match provider:
        case Provider.CUDA:
            return [cuda]
        case Provider.TENSORRT:
            # TensorRT leaves what it cannot compile to CUDA, which is still the GPU.
            kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)} if cache is not None else {}
            return [(_NAMES[Provider.TENSORRT], kept), cuda]
        case _:
            return [(_NAMES[Provider.CPU], {})]


def _preload_cuda() -> None:
    # The GPU wheel finds the CUDA libraries of the environment's nvidia packages only when asked to.
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()


def _trial_graph() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "trial", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
