"""Losses with one value per slice, so that a mean over any number of slices, in any micro-batches, is exact."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from lungshift.errors import ProtocolError

SliceLoss = Callable[[Tensor, Tensor], Tensor]
_SMOOTH = 1.0


def slice_loss(name: str) -> SliceLoss:
    """The loss of that name: a function of logits and target (n, 1, row, column) whose value is (n,).

    ``bce`` is the mean binary cross-entropy over the slice's pixels (the paper's). ``dice`` is one minus the soft Dice of
    a slice that has lesion, with one pixel added above and below, and nothing for a slice without: alone it would let a
    network mark every empty slice. ``bce_dice`` is their sum.

    A soft Dice of empty slices, though it looks like the score ``empty_is_one``, is left out on purpose: it is near one
    as soon as a few pixels' worth of probability lies anywhere, so marking nothing is an easy way down where half the
    slices are empty.

    Raises:
        ProtocolError: There is no loss of that name.
    """
    if name not in _LOSSES:
        raise ProtocolError(f"Unknown loss {name!r}; choose one of {', '.join(_LOSSES)}.", code="E_SETTING")
    return _LOSSES[name]


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return loss.flatten(1).mean(1)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    probability, truth = logits.float().sigmoid().flatten(1), target.float().flatten(1)
    both = (probability * truth).sum(1)
    loss = 1 - (2 * both + _SMOOTH) / (probability.sum(1) + truth.sum(1) + _SMOOTH)
    return loss * truth.any(1)


def _bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    return _bce(logits, target) + _dice(logits, target)


_LOSSES: dict[str, SliceLoss] = {"bce": _bce, "dice": _dice, "bce_dice": _bce_dice}
