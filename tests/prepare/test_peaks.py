"""The middle of lung and of soft tissue, in a scan's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.prepare.peaks import find_peaks


def chest(lung: np.ndarray, tissue: float) -> tuple[np.ndarray, np.ndarray]:
    """One slice: two lungs of 30 x 16 pixels with these values in their columns, and 14 columns between them."""
    mask = np.zeros((40, 60), bool)
    mask[5:35, 6:22] = mask[5:35, 36:52] = True
    hu = np.full(mask.shape, -1000.0)
    hu[5:35, 22:36] = tissue
    hu[5:35, 6:22] = hu[5:35, 36:52] = lung
    return hu, mask


EVEN = np.full(16, -850.0)


def test_lung_is_looked_for_in_its_mask_and_soft_tissue_between_the_lungs() -> None:
    peaks = find_peaks([chest(EVEN, 40)])

    assert (peaks.lung, peaks.tissue) == (-850, 40)


def test_the_middle_is_that_of_the_narrowest_range_with_half_of_the_pixels() -> None:
    lung = np.array([*np.linspace(-860, -840, 11), -500, -300, -100, 100, 300])

    assert find_peaks([chest(lung, 40)]).lung == pytest.approx(-851, abs=5)


def test_several_slices_are_taken_together() -> None:
    peaks = find_peaks([chest(EVEN, 40), chest(EVEN, 60), chest(EVEN, 60)])

    assert (peaks.lung, peaks.tissue) == (-850, 60)


def test_where_too_little_is_shown_there_is_no_number() -> None:
    hu, mask = chest(EVEN, 40)
    mask[:, 30:] = False  # one lung has nothing between it and another

    peaks = find_peaks([(hu, mask)])

    assert peaks.lung == -850
    assert np.isnan(peaks.tissue)


def test_on_the_scale_of_contrast_lung_is_0_and_soft_tissue_1() -> None:
    hu, mask = chest(EVEN, 40)

    contrast = find_peaks([(hu, mask)]).contrast(np.array([-850.0, 40.0, -405.0]))

    np.testing.assert_allclose(contrast, [0, 1, 0.5])
