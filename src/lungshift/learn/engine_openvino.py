"""A checkpoint's network in OpenVINO, made straight from its weights: the engine on a CPU. torch is not imported.

One image is computed at a time, in whatever size it comes: a batch is no quicker and takes more memory, and a slice's result
does not depend on those beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
from jaxtyping import Float32

from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.machine import Precision, threads_here
from lungshift.learn.settings import NetworkSettings
from lungshift.memory import keep_freed_memory

_GROUPS = 8
_EPSILON = 1e-5
_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_KEPT_PRIMITIVES = 300
"""How many compiled operations are kept for sizes seen before, about forty a size. Neighbouring slices often share theirs; with all kept a
process would grow by 2 MiB for each of the hundreds of sizes of frames around lungs."""
_CONVERTER = "openvino.tools.ovc"


@dataclass(frozen=True, eq=False)
class OpenVinoEngine:
    """An ``Engine`` of OpenVINO on the CPU; one thread of the program at a time may use it."""

    checkpoint: Checkpoint
    precision: Precision
    threads: int
    batch: int = 1

    @classmethod
    def start(cls, checkpoint: Checkpoint, precision: Precision, threads: int | None = None) -> OpenVinoEngine:
        """Make and compile the network.

        Args:
            checkpoint: Its weights.
            precision: ``bf16`` becomes ``fp32`` on a processor that has no such instructions; ``describe`` says so.
            threads: By default ``OMP_NUM_THREADS``, or every core that the process may use.

        Raises:
            CheckpointError: The weights do not fit the network.
        """
        checkpoint.require_fitting_weights()
        keep_freed_memory()
        engine = cls(checkpoint, precision, threads or threads_here())
        engine._whole  # noqa: B018 — compiled now and not in the middle of the first scan
        return engine

    def logits(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n row column"]:
        """The network's answer to each image, before the sigmoid."""
        return self._run(self._whole, images)[:, 0]

    def bottom(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n feature r c"]:
        """The features at the bottom of the U."""
        return self._run(self._down, images)

    def describe(self) -> dict[str, str]:
        """What computes, for the manifest of a run; the precision is that which the processor has."""
        ov = import_openvino()
        used = str(self._whole.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name())
        return {
            "engine": f"openvino {metadata.version('openvino')}",
            "device": "cpu",
            "precision": next((ours for ours, theirs in _PRECISIONS.items() if theirs == used), used),
            "threads": str(self.threads),
            "instructions": " ".join(sorted(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))),
        }

    @cached_property
    def _whole(self) -> Any:
        return self._compile(bottom=False)

    @cached_property
    def _down(self) -> Any:
        return self._compile(bottom=True)

    def _compile(self, *, bottom: bool) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes of one thread would all take the first core
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_PRIMITIVES,
        }
        model = build_model(self.checkpoint.network, self.checkpoint.weights, bottom=bottom)
        return import_openvino().Core().compile_model(model, "CPU", settings).create_infer_request()

    def _run(self, request: Any, images: np.ndarray) -> np.ndarray:
        answers = []
        for image in images:
            request.infer({0: np.ascontiguousarray(image[None], dtype=np.float32)}, share_inputs=True)
            answers.append(request.get_output_tensor(0).data[0].copy())
        return answers[0][None] if len(answers) == 1 else np.stack(answers)


def build_model(network: NetworkSettings, weights: Mapping[str, np.ndarray], *, bottom: bool = False) -> Any:
    """``learn.unet.UNet`` as an OpenVINO model (1, channel, row, column) → (1, 1, row, column), or down to its bottom.

    Batch norm is folded into the convolution before it; dropout does nothing in prediction and is left out.
    """
    ov = import_openvino()
    layers = _Layers(ov.opset13, network, weights)
    x = image = layers.op.parameter([1, network.channels, -1, -1], np.float32, name="image")
    skips = []
    for level in range(network.levels):
        skips.append(layers.two_convolutions(x, f"down.{level}"))
        x = layers.halve(skips[-1])
    x = layers.two_convolutions(x, f"down.{network.levels}")
    if not bottom:
        for step in range(network.levels):
            x = layers.op.concat([skips.pop(), layers.grow(x, f"grow.{step}")], 1)
            x = layers.two_convolutions(x, f"up.{step}")
        x = layers.convolution(x, layers.weight("last.weight"), layers.weight("last.bias"))
    return ov.Model([layers.op.result(x)], [image], "unet")


@dataclass(frozen=True, eq=False)
class _Layers:
    """The parts of the U-Net as OpenVINO's operations, each with its weights."""

    op: Any
    network: NetworkSettings
    weights: Mapping[str, np.ndarray]

    def weight(self, name: str) -> np.ndarray:
        """A weight in double precision, so that folding rounds once."""
        return np.asarray(self.weights[name], dtype=np.float64)

    def two_convolutions(self, x: Any, block: str) -> Any:
        """Twice a 3x3 convolution, its normalisation and ReLU."""
        for at in (0, 3):
            x = self.op.relu(self._normalised(x, f"{block}.{at}", f"{block}.{at + 1}"))
        return x

    def _normalised(self, x: Any, convolution: str, norm: str) -> Any:
        kernel, kind = self.weight(f"{convolution}.weight"), self.network.norm
        if kind == "none":
            return self.convolution(x, kernel, self.weight(f"{convolution}.bias"))
        scale, shift = self.weight(f"{norm}.weight"), self.weight(f"{norm}.bias")
        if kind == "batch":
            scale = scale / np.sqrt(self.weight(f"{norm}.running_var") + _EPSILON)
            shift = shift - self.weight(f"{norm}.running_mean") * scale
            return self.convolution(x, kernel * scale[:, None, None, None], shift)
        x = self.convolution(x, kernel)
        if kind == "group":
            groups = min(_GROUPS, len(scale))
            return self.op.group_normalization(x, _single(scale), _single(shift), groups, _EPSILON)
        x = self.op.mvn(x, np.array([2, 3]), True, _EPSILON, "inside_sqrt")
        return self._each_channel(self.op.multiply(x, _single(scale[:, None, None])), shift)

    def convolution(self, x: Any, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
        """A convolution that keeps rows and columns."""
        pad = [kernel.shape[-1] // 2] * 2
        x = self.op.convolution(x, _single(kernel), [1, 1], pad, pad, [1, 1])
        return x if bias is None else self._each_channel(x, bias)

    def halve(self, x: Any) -> Any:
        """The maximum of each 2x2 pixels."""
        return self.op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)

    def grow(self, x: Any, name: str) -> Any:
        """The transposed 2x2 convolution that doubles rows and columns."""
        kernel = _single(self.weight(f"{name}.weight"))
        x = self.op.convolution_backprop_data(x, kernel, [2, 2], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1])
        return self._each_channel(x, self.weight(f"{name}.bias"))

    def _each_channel(self, x: Any, shift: np.ndarray) -> Any:
        return self.op.add(x, _single(shift[None, :, None, None]))


def _single(weight: np.ndarray) -> np.ndarray:
    return weight.astype(np.float32)


def import_openvino() -> Any:
    """OpenVINO without its model converter.

    ``import openvino`` imports the converter, which reports each import to a server of its maker unless somebody has opted out. No
    model is converted here, and nothing may leave a hospital unasked; OpenVINO does without where the converter cannot be imported.
    """
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        import openvino

        return openvino
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python's way to say that it is not there
    try:
        import openvino
    finally:
        del sys.modules[_CONVERTER]
    return openvino
