"""How a training went, epoch by epoch. No torch here, so that pages can hold it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One line of a training history; ``validation_loss`` and ``score`` are NaN where there was nothing to measure.

    Attributes:
        epoch: From 1.
        loss: Mean loss of the training slices, as they were augmented.
        validation_loss: Mean loss of the validation slices.
        score: What ``fit`` was given to judge the validation slices by; higher is better.
        learning_rate: At the end of the epoch.
        seconds: Wall time of the epoch.
    """

    epoch: int
    loss: float
    validation_loss: float
    score: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class History:
    """How one training went: ``name`` such as ``source, seed 0``, its epochs, and the epoch whose weights were kept."""

    name: str
    epochs: tuple[EpochRecord, ...]
    best_epoch: int
