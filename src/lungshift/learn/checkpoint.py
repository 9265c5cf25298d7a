"""A trained network on disk: weights as safetensors, and a JSON of everything needed to use them. Nothing is unpickled.

A checkpoint is read, checked and described without torch; only ``build`` makes torch's network of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lungshift.errors import CheckpointError, LungshiftError
from lungshift.files import new_folder, sha256, write_bytes, write_json
from lungshift.learn.history import EpochRecord, History
from lungshift.learn.settings import NetworkSettings, Target
from lungshift.learn.shapes import first_difference, weight_shapes
from lungshift.prepare.grid import Interpolation
from lungshift.prepare.windows import Window

if TYPE_CHECKING:
    from lungshift.learn.unet import UNet

_FORMAT = 1
_WEIGHTS = "weights.safetensors"
_DESCRIPTION = "checkpoint.json"


@dataclass(frozen=True)
class Decision:
    """How probabilities become a mask; chosen on validation slices, never on those tested.

    Attributes:
        threshold: Probability from which a pixel is lesion.
        min_pixels: A slice with fewer lesion pixels than this has none.
        flips: Whether the prediction is averaged with that of the mirrored slice.
        inside_lung: Whether only pixels of the lung mask can be lesion.
    """

    threshold: float = 0.5
    min_pixels: int = 0
    flips: bool = False
    inside_lung: bool = False


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network with all that prediction needs.

    Attributes:
        weights: The network's state by name, float32; tensors of torch are taken too, on the CPU, and become arrays.
        network: What the network is and sees.
        size: Rows and columns of the picture that a slice is resized to.
        interpolation: How CT values are resized.
        decision: How its probabilities become a mask.
        history: How it was trained.
        trained_on: For each cohort and role (train, validation; unlabelled where its labels were not read): name, key of its pictures, patients, scans, slices.
        seed: Of weights and batches.
        made_with: Versions of what computed it.
        parent: Description of the checkpoint that training started from, if any.
        fingerprint: Of the job that made it; the same job need not be done again.
    """

    weights: Mapping[str, np.ndarray]
    network: NetworkSettings
    size: int
    interpolation: Interpolation = "linear"
    decision: Decision = field(default_factory=Decision)
    history: History = field(default_factory=lambda: History("", (), 0))
    trained_on: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    made_with: dict[str, str] = field(default_factory=dict)
    parent: dict[str, Any] | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", {name: np.asarray(weight) for name, weight in self.weights.items()})

    def with_decision(self, decision: Decision) -> Checkpoint:
        """The same network with another rule for its masks."""
        return replace(self, decision=decision)

    def describe(self) -> dict[str, Any]:
        """Everything but the weights, as JSON takes it."""
        named = {name: asdict(getattr(self, name)) for name in ("network", "decision", "history")}
        plain = {
            name: getattr(self, name)
            for name in ("size", "interpolation", "trained_on", "seed", "made_with", "parent", "fingerprint")
        }
        return {"format": _FORMAT, **named, **plain}

    def require_fitting_weights(self) -> None:
        """Refuse weights that are not those of the network.

        Raises:
            CheckpointError: ``E_SHAPE``, with the first weight that is missing, superfluous or of another shape.
        """
        found = {name: weight.shape for name, weight in self.weights.items()}
        if difference := first_difference(weight_shapes(self.network), found):
            raise CheckpointError(
                f"The weights are not those of a U-Net of width {self.network.width}, {self.network.levels} levels and "
                f"{self.network.channels} channels: {difference}.",
                code="E_SHAPE",
            )

    def build(self) -> UNet:
        """The network with its weights, ready to predict.

        Raises:
            CheckpointError: The weights are not those of such a network.
        """
        self.require_fitting_weights()
        network = build_network(self.network)
        load_weights(network, self.weights)
        return network.eval()


def require_target(checkpoint: Checkpoint, target: Target) -> None:
    """Refuse a checkpoint that finds something else than what is asked of it.

    Raises:
        CheckpointError: It does (code ``E_TARGET``).
    """
    found = checkpoint.network.target
    if found != target:
        raise CheckpointError(
            f"The checkpoint finds {found}, and one that finds {target} is wanted here. Give the folder of a {target} model; "
            f"lungshift train --target {target} makes one.",
            code="E_TARGET",
        )


def build_network(settings: NetworkSettings) -> UNet:
    """The network of these settings with fresh weights, drawn from torch's global generator."""
    from lungshift.learn.unet import UNet

    return UNet(settings.channels, settings.width, settings.levels, settings.norm, settings.dropout)


def load_weights(network: UNet, weights: Mapping[str, np.ndarray]) -> None:
    """Copy a checkpoint's weights into torch's network."""
    import torch

    network.load_state_dict({name: torch.as_tensor(np.array(weight)) for name, weight in weights.items()})


def weight_checksums(weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of every weight by its name."""
    return {name: hashlib.sha256(np.asarray(weight).tobytes()).hexdigest() for name, weight in weights.items()}


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``weights.safetensors`` and ``checkpoint.json``; the folder appears whole or not at all.

    Raises:
        OutputError: The folder exists and ``overwrite`` is not set.
        ResourceError: The disk is full.
    """
    from safetensors.numpy import save

    weights = save({name: np.asarray(weight, order="C") for name, weight in checkpoint.weights.items()})
    described = {**checkpoint.describe(), "weights_sha256": hashlib.sha256(weights).hexdigest()}
    with new_folder(folder, overwrite=overwrite) as part:
        write_bytes(part / _WEIGHTS, weights)
        write_json(part / _DESCRIPTION, described)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; it is checked against its own description before anything is computed with it.

    Raises:
        CheckpointError: Not a checkpoint, damaged, of another version, or with weights that are not finite or do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    _refuse_pickles(folder)
    try:
        text = json.loads((folder / _DESCRIPTION).read_text())
        checkpoint = _from_description(text)
        if sha256(folder / _WEIGHTS) != text["weights_sha256"]:
            raise CheckpointError(
                f"{folder}: the weights are not those that were saved (checksum differs); copy it again.",
                code="E_CHECKSUM",
            )
        checkpoint = replace(checkpoint, weights=load_file(folder / _WEIGHTS))
    except LungshiftError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint of lungshift ({type(error).__name__}: {error}); expected a folder with {_DESCRIPTION} and {_WEIGHTS}."
        ) from error
    _require_finite(checkpoint, folder)
    checkpoint.require_fitting_weights()
    return checkpoint


def _from_description(text: dict[str, Any]) -> Checkpoint:
    if text["format"] != _FORMAT:
        raise CheckpointError(
            f"The checkpoint is of format {text['format']}; this version reads {_FORMAT}.", code="E_VERSION"
        )
    network = text["network"] | {"windows": tuple(Window(**window) for window in text["network"]["windows"])}
    history = text["history"]
    return Checkpoint(
        weights={},
        network=NetworkSettings(**network),
        size=int(text["size"]),
        interpolation=text["interpolation"],
        decision=Decision(**text["decision"]),
        history=History(history["name"], tuple(_epoch(record) for record in history["epochs"]), history["best_epoch"]),
        trained_on=tuple(text["trained_on"]),
        seed=text["seed"],
        made_with=text["made_with"],
        parent=text["parent"],
        fingerprint=text["fingerprint"],
    )


def _epoch(record: dict[str, Any]) -> EpochRecord:
    known: dict[str, Any] = {name: float("nan") if value is None else value for name, value in record.items()}
    return EpochRecord(**known)


def _refuse_pickles(folder: Path) -> None:
    if folder.suffix.lower() in {".pt", ".pth", ".ckpt", ".pkl", ".h5", ".keras"}:
        raise CheckpointError(
            f"{folder.name} is a format that may run code when it is opened; lungshift reads its own folders of "
            "safetensors and JSON only. Convert the weights where you trust them.",
            code="E_PICKLE",
        )


def _require_finite(checkpoint: Checkpoint, folder: Path) -> None:
    bad = [
        name
        for name, weight in checkpoint.weights.items()
        if weight.dtype.kind == "f" and not np.isfinite(weight).all()
    ]
    if bad:
        raise CheckpointError(
            f"{folder}: weights that are NaN or infinite in {', '.join(bad[:3])}; it cannot predict.", code="E_NAN"
        )
