"""Does a mask lie on its scan the right way round? Three thumbnails tell, at almost no cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lungshift.errors import AnnotationError

_SLICES, _PIXELS = 64, 96
_FEWEST_LUNG, _FEWEST_LESION = 500, 30
"""Voxels of a thumbnail below which nothing is concluded."""
_CLEARLY_HU = 50.0
"""On 19 real scans the right mask was 104 to 269 HU darker than its best mirror image; this leaves room on both sides."""
_AS_DARK_AS_LUNG_HU = -800
"""What is darker counts as this: the air beside a patient is no better place for a lung mask than the lung."""
_WAYS = {"head to foot": 0, "front to back": 1, "left to right": 2}


@dataclass
class FlipCheck:
    """Collects every n-th voxel of a case on its way through, and in the end compares its masks with their mirror images.

    A lung mask belongs where the scan is dark; a lesion mask belongs in the lung mask.
    """

    shape: tuple[int, int, int]
    _hu: list[np.ndarray] = field(default_factory=list)
    _lung: list[np.ndarray] = field(default_factory=list)
    _lesion: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._every = -(-self.shape[0] // _SLICES)
        self._grid = tuple(slice(None, None, -(-n // _PIXELS)) for n in self.shape[1:])

    def see(self, index: int, hu: np.ndarray, lung: np.ndarray | None, lesion: np.ndarray | None) -> None:
        """Look at one canonical slice; slices come in order, from either end."""
        if index % self._every or lung is None:
            return
        self._hu.append(hu[self._grid].copy())
        self._lung.append(lung[self._grid].copy())
        if lesion is not None:
            self._lesion.append(lesion[self._grid].copy())

    def finish(self, lung: Path | None, lesion: Path | None) -> None:
        """Refuse masks that fit much better when mirrored.

        Raises:
            AnnotationError: ``E_MASK_FLIPPED``, with the direction.
        """
        if not self._lung or np.count_nonzero(lungs := np.stack(self._lung)) < _FEWEST_LUNG:
            return
        if way := _better_lung(np.stack(self._hu), lungs):
            raise _flipped(lung, way, "the scan's dark lungs")
        if self._lesion and (way := _better_lesion(lungs, np.stack(self._lesion))):
            raise _flipped(lesion, way, "the lung mask")


def _better_lung(hu: np.ndarray, lung: np.ndarray) -> str:
    """The direction in which the mirrored lung mask lies on voxels clearly darker on average, or nothing."""
    hu = np.maximum(hu, _AS_DARK_AS_LUNG_HU)
    means = {way: float(hu[np.flip(lung, axis)].mean()) for way, axis in _WAYS.items()}
    way = min(means, key=lambda name: means[name])
    return way if means[way] < float(hu[lung].mean()) - _CLEARLY_HU else ""


def _better_lesion(lung: np.ndarray, lesion: np.ndarray) -> str:
    """The direction in which a lesion mask that is mostly outside the lung comes to lie in it, or nothing."""
    total = np.count_nonzero(lesion)
    if total < _FEWEST_LESION or np.count_nonzero(lesion & lung) >= total / 2:
        return ""
    inside = {way: np.count_nonzero(np.flip(lesion, axis) & lung) / total for way, axis in _WAYS.items()}
    way = max(inside, key=lambda name: inside[name])
    return way if inside[way] > 0.9 else ""


def _flipped(path: Path | None, way: str, fits: str) -> AnnotationError:
    return AnnotationError(
        f"{path} seems to be mirrored {way}: turned round it fits {fits} much better than as it is. "
        "Check how the mask was exported.",
        code="E_MASK_FLIPPED",
    )
