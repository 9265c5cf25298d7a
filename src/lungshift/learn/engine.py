"""What computes a checkpoint's network for prediction: OpenVINO on a CPU, torch on a graphics card or where OpenVINO is missing."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32

from lungshift.errors import ProtocolError
from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.machine import Precision, find_device


@runtime_checkable
class Engine(Protocol):
    """A network that is ready to compute. Rows and columns of its images divide by 2 to the power of its levels."""

    @property
    def batch(self) -> int:
        """How many images at once it computes quickest."""

    def logits(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n row column"]:
        """The network's answer to each image, before the sigmoid."""

    def bottom(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n feature r c"]:
        """The features at the bottom of the U."""

    def describe(self) -> dict[str, str]:
        """What computes, for the manifest of a run: engine with version, device, precision, threads, instructions."""


def start_engine(checkpoint: Checkpoint, device: str = "auto", precision: str = "bf16") -> Engine:
    """The engine for a device: OpenVINO on a CPU, else torch.

    Args:
        checkpoint: The network.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``bf16`` (where the processor has it) or ``fp32``.

    Raises:
        MissingError: The device is not there.
        CheckpointError: The weights do not fit the network.
        ProtocolError: There is no such precision.
    """
    kind = _precision(precision)
    if name_engine(device).startswith("openvino"):
        from lungshift.learn.engine_openvino import OpenVinoEngine

        return OpenVinoEngine.start(checkpoint, kind)
    from lungshift.learn.engine_torch import TorchEngine

    return TorchEngine.start(checkpoint, device, kind)


def name_engine(device: str = "auto") -> str:
    """What ``start_engine`` would start for a device, with its version, for the manifest of a study."""
    name = "openvino" if find_device(device) == "cpu" and find_spec("openvino") else "torch"
    return f"{name} {metadata.version(name)}"


def _precision(name: str) -> Precision:
    for known in get_args(Precision):
        if name == known:
            return known
    raise ProtocolError(f"Precision is one of {', '.join(get_args(Precision))}; got {name!r}.")
