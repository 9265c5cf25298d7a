"""Chests drawn by hand, and a model that calls lesion what is denser than a threshold inside the lungs: no training, no chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.windows import PAPER_WINDOW
from worlds import cohort_of

SIZE = 64
AIR, LUNG, TISSUE, LESION = -1000, -850, 40, -450
THRESHOLD_HU = -600


def chest(seed: int = 0, *, slices: int = 8, slice_mm: float = 5.0, lesion_px: int = 9) -> Case:
    """Two lungs in a body, the heart on one side and the spine behind, some noise, and a square lesion in each lung."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.regular((slices, SIZE, SIZE), (slice_mm, 2.0, 2.0))
    hu, lung, lesion = np.full(geometry.shape, AIR), *np.zeros((2, *geometry.shape), bool)
    hu[:, 6:58, 4:60] = TISSUE
    lung[:, 12:52, 8:28] = lung[:, 12:52, 36:56] = True
    lung[: slices // 2, 16:34, 36:42] = False  # the heart, in the lower half
    lung[:, 44:52, 24:40] = False  # the spine
    top, left = rng.integers(20, 30, 2) - 4
    lesion[1:-1, top : top + lesion_px, left - 6 : left - 6 + lesion_px] = True
    lesion[1:-1, top + 4 : top + 4 + lesion_px, 44 : 44 + lesion_px] = True
    lesion &= lung
    hu[lung] = LUNG
    hu[lesion] = LESION
    hu = hu + rng.normal(0, 12, hu.shape)
    return Case(Volume(hu.astype(np.int16), geometry), Mask(lung, geometry), Mask(lesion, geometry), f"case{seed}")


def chests(folder: Path, name: str, *cases: Case) -> PreparedCohort:
    return prepare_cohort(cohort_of(*cases, name=name), folder, size=SIZE)


def threshold_model(**decision: Any) -> Checkpoint:
    """A U-Net whose weights pass the first window through and compare it with a threshold."""
    settings = NetworkSettings(width=1, levels=1)
    network = build_network(settings)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    for block in (network.down[0], network.up[0]):
        for convolution in (block[0], block[3]):
            convolution.weight.data[0, 0, 1, 1] = 1.0
    at = (THRESHOLD_HU - PAPER_WINDOW.low_hu) / (PAPER_WINDOW.high_hu - PAPER_WINDOW.low_hu)
    network.last.weight.data[:] = 1000.0
    network.last.bias.data[:] = -1000.0 * at
    return Checkpoint(network.state_dict(), settings, SIZE, decision=Decision(inside_lung=True, **decision))
