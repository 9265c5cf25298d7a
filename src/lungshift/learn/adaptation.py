"""Fitting a network to scans without their labels: batch-norm statistics, and TENT. Nothing here reads a lesion mask.

A batch holds slices drawn at random, in one frame around the lungs of all, as in training: batches of lungs of one size
would each be normalised to themselves, and the statistics of all would fit none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lungshift.errors import ProtocolError
from lungshift.files import digest
from lungshift.learn.checkpoint import Checkpoint, weight_checksums
from lungshift.learn.data import make_images
from lungshift.learn.machine import describe_software, start_fabric
from lungshift.learn.pictures import SliceSet, cut_slices
from lungshift.learn.prediction import require_pictures
from lungshift.learn.unet import UNet

_BATCH = 8


def adapt_batch_norm(checkpoint: Checkpoint, slices: SliceSet, *, device: str = "auto") -> Checkpoint:
    """The network with the running mean and variance of its batch norms computed anew over these slices.

    Each is the plain average over batches; weights stay as they are. After Li et al., *Revisiting batch normalization for
    practical domain adaptation*, 2016, and Schneider et al., *Improving robustness against common corruptions by covariate
    shift adaptation*, NeurIPS 2020.

    Args:
        checkpoint: What is adapted; it stays as it is.
        slices: Of the scans to adapt to; those without lung, which are never looked at, are left out.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ProtocolError: The network has no batch norm, or no slice has lung.
        CheckpointError: The slices were prepared at another size than the checkpoint's.
    """
    fitting = _Fitting.of(checkpoint, slices, device)
    fitting.renew_statistics()
    return fitting.checkpoint("batch_norm")


def adapt_tent(
    checkpoint: Checkpoint, slices: SliceSet, *, steps: int = 1, learning_rate: float = 1e-3, device: str = "auto"
) -> Checkpoint:
    """The network whose batch norms were changed until it is surer of these slices, and that has their statistics.

    The entropy of the predictions is minimised over scale and shift of the batch norms alone, by Adam, with the
    statistics of each batch; inside the lung mask where the network sees one, else over all pixels. After Wang et al.,
    *Tent: fully test-time adaptation by entropy minimization*, ICLR 2021. It is episodic where every scan starts from the
    same checkpoint.

    Args:
        checkpoint: What is adapted; it stays as it is.
        slices: Of the scans to adapt to, such as one scan's.
        steps: Passes over the slices.
        learning_rate: Of Adam.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ProtocolError: The network has no batch norm, no slice has lung, or settings that do nothing.
        CheckpointError: The slices were prepared at another size than the checkpoint's.
    """
    if steps < 1 or learning_rate <= 0:
        raise ProtocolError(f"TENT takes 1 pass or more at a learning rate above 0; got {steps} and {learning_rate}.")
    fitting = _Fitting.of(checkpoint, slices, device)
    fitting.sharpen(steps, learning_rate)
    fitting.renew_statistics()
    return fitting.checkpoint("tent", steps, learning_rate)


@dataclass(frozen=True, eq=False)
class _Fitting:
    """A network that is being fitted, which changes in place, and the batches of slices that it is fitted to."""

    start: Checkpoint
    slices: SliceSet
    network: UNet
    norms: list[nn.BatchNorm2d]
    batches: list[list[int]]
    fabric: Fabric

    @classmethod
    def of(cls, start: Checkpoint, slices: SliceSet, device: str) -> _Fitting:
        require_pictures(start, slices)
        alive = np.flatnonzero(slices.boxes.any(axis=1))
        if not len(alive):
            raise ProtocolError(f"None of {len(slices)} slices has lung, so there is nothing to adapt to.")
        fabric = start_fabric(device, "fp32", start.seed)
        network: UNet = fabric.to_device(start.build().requires_grad_(False))
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        if not norms:
            raise ProtocolError(
                f"This adaptation changes batch norms and the network has none (norm is {start.network.norm!r}); train one "
                "with norm = 'batch', or match histograms instead."
            )
        order = np.random.default_rng(start.seed).permutation(alive)
        parts = np.array_split(order, -(-len(order) // _BATCH))  # of one size, as all count alike in the average
        return cls(start, slices, network, norms, [part.tolist() for part in parts], fabric)

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What the network sees (n, channel, row, column), and the lungs (n, 1, row, column)."""
        for chosen in self.batches:
            hu, masks = cut_slices(self.slices, chosen, self.start.network, lesion=False)
            images = make_images(hu, masks[:, 0], self.start.network)
            yield self.fabric.to_device((images, torch.from_numpy(masks)))

    def renew_statistics(self) -> None:
        """Running statistics from nothing; momentum None is the plain average over batches."""
        for norm in self.norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for images, _ in self.images():
                self.network(images)

    def sharpen(self, steps: int, learning_rate: float) -> None:
        """Minimise the entropy of the predictions by scale and shift of the batch norms."""
        for norm in self.norms:
            norm.train().requires_grad_(True)
        scales = [weight for norm in self.norms for weight in norm.parameters()]
        optimiser = torch.optim.Adam(scales, lr=learning_rate)
        for _ in range(steps):
            for images, lung in self.images():
                inside = lung if self.start.network.lung_channel else torch.ones_like(lung)
                loss = (_entropy(self.network(images)) * inside).sum() / inside.sum().clamp_min(1)
                optimiser.zero_grad()
                self.fabric.backward(loss)
                optimiser.step()

    def checkpoint(self, *how: object) -> Checkpoint:
        """The network as it is now; it was not trained on labels of these slices."""
        start = self.start
        weights = {name: tensor.numpy(force=True).copy() for name, tensor in self.network.state_dict().items()}
        made_of = (how, start.fingerprint, sorted(weight_checksums(start.weights).items()), self.slices.contents)
        return replace(
            start,
            weights=weights,
            trained_on=self.slices.describe("unlabelled"),
            made_with=describe_software(),
            parent=start.describe(),
            fingerprint=digest(made_of),
        )


def _entropy(logits: Tensor) -> Tensor:
    """Of the two outcomes of each pixel, in nats."""
    return binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
