"""Hounsfield windows: the one place where HU become what a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from lungshift.errors import ProtocolError


@dataclass(frozen=True)
class Window:
    """A range of HU that is stretched to [0, 1]; what lies outside is clipped.

    Raises:
        ProtocolError: The upper end is not above the lower.
    """

    low_hu: float
    high_hu: float

    def __post_init__(self) -> None:
        if not self.low_hu < self.high_hu:
            raise ProtocolError(f"A window goes from a lower to a higher HU; got {self.low_hu} to {self.high_hu}.")

    def __str__(self) -> str:
        return f"{self.low_hu:g} to {self.high_hu:g} HU"


PAPER_WINDOW = Window(-970, -150)
"""The source paper's only window (its equation 1); consolidation saturates at its upper end."""


def apply_windows(
    hu: Shaped[np.ndarray, "slice row column"], windows: Sequence[Window]
) -> Float32[np.ndarray, "slice window row column"]:
    """Stretch HU to [0, 1] by each window, one channel a window, clipped (equation 1 of the source paper)."""
    channels = np.empty((len(hu), len(windows), *hu.shape[1:]), dtype=np.float32)
    for channel, window in enumerate(windows):
        view = channels[:, channel]
        np.subtract(hu, np.float32(window.low_hu), out=view, dtype=np.float32)
        view *= np.float32(1 / (window.high_hu - window.low_hu))
        np.clip(view, 0, 1, out=view)
    return channels
