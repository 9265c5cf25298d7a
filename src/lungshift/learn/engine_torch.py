"""A checkpoint's network in torch: the engine on a graphics card, and where OpenVINO is missing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.machine import Precision, name_device, start_fabric
from lungshift.learn.unet import UNet


@dataclass(frozen=True, eq=False)
class TorchEngine:
    """An ``Engine`` of torch, channels-last and with autocast."""

    model: nn.Module
    fabric: Fabric
    precision: Precision
    device: str
    batch: int = 8

    @classmethod
    def start(cls, checkpoint: Checkpoint, device: str, precision: Precision) -> TorchEngine:
        """Build the network and put it on the device.

        Raises:
            MissingError: The device is not there.
            CheckpointError: The weights do not fit the network.
        """
        fabric = start_fabric(device, precision, checkpoint.seed)
        network = checkpoint.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(fabric.setup(network).eval(), fabric, precision, name_device(device))

    def logits(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n row column"]:
        """The network's answer to each image, before the sigmoid."""
        with torch.inference_mode():
            return _as_array(self.model(self._tensor(images))[:, 0])

    def bottom(self, images: Float32[np.ndarray, "n channel row column"]) -> Float32[np.ndarray, "n feature r c"]:
        """The features at the bottom of the U."""
        network, x = cast(UNet, self.model), self._tensor(images)
        with torch.inference_mode():
            for block in network.down[:-1]:
                x = functional.max_pool2d(block(x), 2)
            return _as_array(network.down[-1](x))

    def describe(self) -> dict[str, str]:
        """What computes, for the manifest of a run."""
        return {
            "engine": f"torch {metadata.version('torch')}",
            "device": self.device,
            "precision": self.precision,
            "threads": str(torch.get_num_threads()),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }

    def _tensor(self, images: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.fabric.to_device(tensor))


def _as_array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.float().cpu().numpy())
