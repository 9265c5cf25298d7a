"""Stored values to what they mean: Hounsfield units, or the labels of a mask; and the gates that both must pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lungshift.errors import AnnotationError, IntensityError
from lungshift.io.header import Header, Intake

_LOG = logging.getLogger("lungshift")
_INT16 = np.iinfo(np.int16)
Converter = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Labels:
    """Which values of a mask file mean the structure, and which may occur at all.

    Attributes:
        chosen: Values that belong to the structure.
        declared: Every value that the file may hold; 0, the background, always may.

    Raises:
        AnnotationError: Nothing chosen, 0 chosen, or something chosen that is not declared.
    """

    chosen: frozenset[int] = frozenset({1})
    declared: frozenset[int] = frozenset({0, 1})

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", frozenset(int(label) for label in self.chosen))
        object.__setattr__(self, "declared", frozenset({0, *(int(label) for label in self.declared)}))
        if not self.chosen or 0 in self.chosen or not self.chosen <= self.declared:
            raise AnnotationError(
                f"Labels {sorted(self.chosen)} of declared {sorted(self.declared)} make no mask: "
                "choose at least one declared label other than 0."
            )


ONE_LABEL = Labels()
"""A mask of 0 and 1."""


def require_hu(low: float, high: float, what: str) -> None:
    """Refuse a range of values that no chest CT in Hounsfield units has.

    Raises:
        IntensityError: ``E_CONSTANT``, or ``E_NOT_HU`` with what to do.
    """
    if low == high:
        raise IntensityError(f"{what}: every voxel is {low:g}; there is no picture in it.", code="E_CONSTANT")
    reason = None
    if low >= 0 and high <= 256:
        reason = (
            "that is an 8-bit picture made through an unknown window, as in the Radiopaedia scans of the Coronacases data set. "
            "Get the original scan, or, if the window is known, store its slope and intercept in the header"
        )
    elif low >= 0:
        reason = (
            "that looks like HU + 1024 or raw 12-bit values. If the offset is known, store it in the header "
            "(intercept -1024), or convert the original DICOM series with its rescale intercept"
        )
    elif low > -500:
        reason = "nothing is as dark as air (-1000 HU), so this is no chest CT in Hounsfield units. Check its rescaling"
    if reason:
        raise IntensityError(f"{what}: values run from {low:g} to {high:g}; {reason}.", code="E_NOT_HU")


@dataclass
class IntensityGate:
    """Turns stored planes of one scan to HU and, once all went through, judges their range.

    Whole numbers on disk become int16 HU (scaled ones are rounded, off by at most 0.5 HU); floating point becomes float32.
    """

    header: Header
    intake: Intake
    low: float = np.inf
    high: float = -np.inf
    filled: int = 0
    _convert: Converter = field(init=False)

    def __post_init__(self) -> None:
        self._convert = hu_converter(self.header)

    @property
    def dtype(self) -> type[np.int16 | np.float32]:
        """The dtype of the HU."""
        return np.float32 if self.header.dtype.kind == "f" else np.int16

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """The plane in HU, as a new array."""
        low, high = float(stored.min()), float(stored.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            stored = self._fill(stored)
            low, high = float(stored.min()), float(stored.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        return self._convert(stored)

    def finish(self) -> None:
        """Judge the range of all planes.

        Raises:
            IntensityError: ``E_RANGE``, ``E_CONSTANT`` or ``E_NOT_HU``.
        """
        path = self.header.path
        low, high = sorted(value * self.header.slope + self.header.inter for value in (self.low, self.high))
        if self.dtype is np.int16:
            low, high = np.rint(low), np.rint(high)
        kept = np.int16 if self.intake.require_hu else self.dtype
        limits = _INT16 if kept is np.int16 else np.finfo(np.float32)
        if not (float(limits.min) <= low and high <= float(limits.max)):
            raise IntensityError(
                f"{path}: values run from {low:g} to {high:g}, beyond what {np.dtype(kept).name} HU can hold.",
                code="E_RANGE",
            )
        if self.filled:
            _LOG.warning("%s: %d voxels that were NaN or infinite are now %s HU.", path, self.filled, self.intake.nan)
        if self.intake.require_hu:
            require_hu(low, high, str(path))
            if low < -1024:
                _LOG.info("%s: HU down to %g; values below -1024 are padding outside the scanner's field.", path, low)
        elif low == high:
            raise IntensityError(f"{path}: every voxel is {low:g}; there is no picture in it.", code="E_CONSTANT")

    def _fill(self, stored: np.ndarray) -> np.ndarray:
        bad = ~np.isfinite(stored)
        if self.intake.nan == "refuse":
            raise IntensityError(
                f"{self.header.path} has voxels that are NaN or infinite ({np.count_nonzero(bad)} in the first slice that has any). "
                "Say which HU they should get, for instance nan=-1024.",
                code="E_NAN",
            )
        self.filled += int(np.count_nonzero(bad))
        return np.where(bad, (float(self.intake.nan) - self.header.inter) / self.header.slope, stored)


def hu_converter(header: Header) -> Converter:
    """A function from stored values to HU as a new array: int16 for whole numbers on disk, float32 for floating point."""
    dtype, slope, inter = header.dtype, header.slope, header.inter
    if dtype.kind == "f":
        return lambda stored: _single(stored, slope, inter)
    if not header.scaled and dtype.itemsize <= 2 and dtype.kind + str(dtype.itemsize) != "u2":
        return lambda stored: stored.astype(np.int16)
    if dtype.itemsize > 2:
        return lambda stored: _clipped(stored.astype(np.float64) * slope + inter)
    return _short_converter(dtype.newbyteorder("="), slope, inter)


def _single(stored: np.ndarray, slope: float = 1.0, inter: float = 0.0) -> np.ndarray:
    """As float32; what does not fit becomes infinite, which the gate refuses in the end."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (stored if (slope, inter) == (1.0, 0.0) else stored * slope + inter).astype(np.float32)


def _short_converter(dtype: np.dtype, slope: float, inter: float) -> Converter:
    """For 8- and 16-bit values: float32 arithmetic where it gives the exact table of all values, else the table itself.

    Arithmetic takes half the time of the table.
    """
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, limits.max + 1).astype(dtype)
    table = _clipped(values.astype(np.float64) * slope + inter)

    def by_arithmetic(stored: np.ndarray) -> np.ndarray:
        hu = stored.astype(np.float32)
        hu *= np.float32(slope)
        hu += np.float32(inter)
        return np.rint(hu, out=hu).astype(np.int16)

    with np.errstate(invalid="ignore", over="ignore"):
        if np.array_equal(by_arithmetic(values), table):
            return by_arithmetic
    table = np.roll(table, limits.min)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return lambda stored: table.take(stored.astype(dtype, copy=False).view(unsigned))


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(values).clip(_INT16.min, _INT16.max).astype(np.int16))


def label_selector(header: Header, labels: Labels, on_undeclared: Callable[[], AnnotationError]) -> Converter:
    """A function from stored label values to bool, which raises ``on_undeclared()`` at a value that is not declared.

    Raises:
        AnnotationError: At the first plane that holds a value that is not whole or not declared.
    """
    top = max(labels.declared)
    if header.dtype.itemsize > 1 or header.scaled or labels.declared != set(range(top + 1)) or top > 127:
        return _general_selector(header, labels, on_undeclared)
    table, every = np.isin(np.arange(256), list(labels.chosen)), len(labels.chosen) == top

    def select(stored: np.ndarray) -> np.ndarray:
        values = stored.view(np.uint8)
        if values.max() > top:
            raise on_undeclared()
        if top == 1:
            return values.view(np.bool_)
        return values != 0 if every else table.take(values)

    return select


def _general_selector(header: Header, labels: Labels, on_undeclared: Callable[[], AnnotationError]) -> Converter:
    declared, chosen = list(labels.declared), list(labels.chosen)

    def select(stored: np.ndarray) -> np.ndarray:
        values = stored * header.slope + header.inter if header.scaled else stored
        if not np.isin(np.unique(values), declared).all():
            raise on_undeclared()
        return np.isin(values, chosen)

    return select


def undeclared(path: Path | str, counts: dict[float, int], labels: Labels) -> AnnotationError:
    """The error that names every value found in a mask that was not declared, with how often it occurs."""
    found = {value: count for value, count in counts.items() if value not in labels.declared}
    some = ", ".join(f"{value:g} ({count} voxels)" for value, count in sorted(found.items())[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    whole = all(value == int(value) for value in found if np.isfinite(value)) and all(map(np.isfinite, found))
    advice = (
        "Declare what they mean, for instance labels={1, 2}, or clean the mask"
        if whole
        else "A mask has whole labels; it was probably resampled with interpolation, or holds probabilities"
    )
    return AnnotationError(
        f"{path} holds values that were not declared: {some}{more}; declared are {sorted(labels.declared)}. {advice}.",
        code="E_LABELS",
    )
