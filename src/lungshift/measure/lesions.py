"""The single lesions of a mask: pieces that touch by a face, an edge or a corner, the largest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32
from scipy import ndimage

from lungshift.ct.boxes import box_of
from lungshift.ct.volume import Mask, Volume

_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class Lesion:
    """One connected piece of a mask.

    Attributes:
        number: Its label in ``label_lesions``; 1 is the largest.
        voxels: How many it has.
        volume_ml: Their volume.
        centre_mm: Mean of its voxels' centres, LPS; it may lie outside a bent lesion.
        seat: The voxel (slice, row, column) of the lesion nearest to that: where to look.
        box: Slices, rows and columns that hold it.
        mean_hu: Mean of the scan inside it; NaN where no scan was given.
    """

    number: int
    voxels: int
    volume_ml: float
    centre_mm: tuple[float, float, float]
    seat: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    mean_hu: float


def label_lesions(mask: Mask) -> Int32[np.ndarray, "slice row column"]:
    """0 outside, and 1, 2, … in each connected piece of a mask, the largest first; of equal ones the lower first."""
    labels = np.zeros(mask.voxels.shape, np.int32)
    if not mask.voxels.any():
        return labels
    box = box_of(mask.voxels)
    found, count = ndimage.label(mask.voxels[box], structure=_TOUCHING)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    rank = np.zeros(count + 1, np.int32)
    rank[1 + np.argsort(-sizes[1:], kind="stable")] = np.arange(1, count + 1)
    labels[box] = rank[found]
    return labels


def find_lesions(mask: Mask, volume: Volume | None = None, labels: np.ndarray | None = None) -> tuple[Lesion, ...]:
    """The lesions of a mask, the largest first.

    Args:
        mask: Lesion voxels.
        volume: The scan, for the mean HU.
        labels: What ``label_lesions`` made of the mask, if it is at hand.

    Raises:
        GeometryError: Mask and scan are not on one grid.
    """
    if volume is not None:
        mask.geometry.require_same(volume.geometry, "Scan and lesion mask")
    labels = label_lesions(mask) if labels is None else labels
    boxes = ndimage.find_objects(labels)
    return tuple(_lesion(mask, volume, labels, number, box) for number, box in enumerate(boxes, 1) if box)


def _lesion(mask: Mask, volume: Volume | None, labels: np.ndarray, number: int, box: tuple[slice, ...]) -> Lesion:
    inside = labels[box] == number
    places = np.argwhere(inside) + [one.start for one in box]
    world = mask.geometry.world_mm(places)
    centre = world.mean(axis=0)
    nearest = int(np.square(world - centre).sum(axis=1).argmin())
    mean_hu = float("nan") if volume is None else float(volume.hu[box][inside].mean(dtype=np.float64))
    seat, centre_mm = places[nearest].tolist(), centre.tolist()
    ml = len(places) * mask.geometry.voxel_ml
    return Lesion(number, len(places), ml, tuple(centre_mm), tuple(seat), (box[0], box[1], box[2]), mean_hu)
