"""How far the surfaces of two masks lie apart, in millimetres, computed by MONAI on the masks' common bounding box.

What empty masks mean here: two empty masks have no surface to compare, so both measures are NaN. If only one is empty, no surface
was found: surface Dice is 0, and the distance is NaN (undefined, not infinite), to be reported with its count and never left
out in silence.

Distance maps take about 200 bytes for each voxel of the common bounding box: some 3 GB for a box of 16 million.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from lungshift.ct.boxes import box_of
from lungshift.ct.volume import Mask
from lungshift.errors import InputError

if TYPE_CHECKING:
    import torch

_MARGIN = 1


def surface_dice(reference: Mask, prediction: Mask, tolerance_mm: float) -> float:
    """The part of both surfaces that lies within ``tolerance_mm`` of the other (normalised surface Dice, NSD).

    Surfaces are weighted by their area, marching-cubes fashion, as Google DeepMind's surface-distance does it (Nikolov et
    al., arXiv 1809.04430); MONAI's ``compute_surface_dice`` agrees with it only with ``use_subvoxels=True``.

    Args:
        reference: What a reader drew.
        prediction: What is judged.
        tolerance_mm: Distance that is still good, such as how far two readers differ; 0 or more.

    Returns:
        Between 0 and 1; NaN if both masks are empty, 0 if one is.

    Raises:
        GeometryError: The masks are not on one grid.
        InputError: ``tolerance_mm`` is negative or not finite.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise InputError(f"A tolerance is a distance of 0 mm or more; got {tolerance_mm}.", code="E_TOLERANCE")
    if (empty := _empty(reference, prediction)) is not None:
        return empty
    from monai.metrics.surface_dice import compute_surface_dice

    pair = _tensors(reference, prediction)
    spacing_mm = reference.geometry.spacing_mm
    with _without_monai_warnings():
        nsd = compute_surface_dice(
            *pair, [tolerance_mm], include_background=True, spacing=spacing_mm, use_subvoxels=True
        )
    return float(nsd.item())


def hausdorff95_mm(reference: Mask, prediction: Mask) -> float:
    """The 95th percentile of the distances from each surface to the other, the larger of the two directions, in mm.

    Surfaces are here the outermost voxels of a mask, and distances go from centre to centre.

    Args:
        reference: What a reader drew.
        prediction: What is judged.

    Returns:
        0 or more; NaN if either mask is empty.

    Raises:
        GeometryError: The masks are not on one grid.
    """
    if _empty(reference, prediction) is not None:
        return float("nan")
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    pair = _tensors(reference, prediction)
    spacing_mm = reference.geometry.spacing_mm
    with _without_monai_warnings():
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing_mm)
    return float(distance.item())


def _empty(reference: Mask, prediction: Mask) -> float | None:
    """Surface Dice if a mask is empty: NaN for both, 0 for one; None if there are two surfaces."""
    reference.geometry.require_same(prediction.geometry, "Reference and prediction")
    present = reference.voxels.any(), prediction.voxels.any()
    if all(present):
        return None
    return 0.0 if any(present) else float("nan")


def _tensors(reference: Mask, prediction: Mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and reference as MONAI wants them (batch, class, …), cut to where either is, with an empty rim."""
    import torch

    box = box_of(reference.voxels | prediction.voxels)
    y, y_pred = (torch.from_numpy(np.pad(mask.voxels[box], _MARGIN))[None, None] for mask in (reference, prediction))
    return y_pred, y


@contextmanager
def _without_monai_warnings() -> Iterator[None]:
    """MONAI 1.6 warns of an argument that it passes to itself; nobody here can act on that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        yield
