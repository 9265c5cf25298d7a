"""The recipe of phantoms: the same arguments make the same picture from version to version, unless ``RECIPE`` says that it is another one.

What is stored is the mean HU of 24 blocks (2 of slices, 3 of rows, 4 of columns) and how many voxels are lung and lesion. Who changes a phantom on purpose
raises ``lungshift.prepare.phantom.RECIPE`` and writes the new numbers here: studies on phantoms are then known to be of other pictures.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.ct.case import Case
from lungshift.prepare.phantom import RECIPE, phantom_case
from lungshift.prepare.phantom_dates import CHANGES, phantom_dates
from lungshift.prepare.phantom_lesions import TYPICAL, Lesions
from lungshift.prepare.phantom_motion import Breathing, draw_motion
from lungshift.prepare.phantom_site import Site

SMALL = Site(noise_hu=0, slice_mm=12, pixel_mm=4.4, size=80)
SHARP = replace(SMALL, sharpness_mm=0.8, edge=0.8, noise_hu=40, noise_texture_mm=2.5, hu_offset=60, annotation="blocky")
ILL = Lesions(mild=0, moderate=0, severe=1, consolidation=0.6, effusion=1)


def mean_hu(case: Case) -> list[float]:
    """Of 24 blocks."""
    hu = case.volume.hu
    parts = (
        p for s in np.array_split(hu, 2) for r in np.array_split(s, 3, axis=1) for p in np.array_split(r, 4, axis=2)
    )
    return [float(part.mean()) for part in parts]


def require_picture(case: Case, hu: tuple[float, ...], lung: int, lesion: int) -> None:
    assert mean_hu(case) == pytest.approx(list(hu), abs=0.15)
    assert np.count_nonzero(case.lung.voxels) == pytest.approx(lung, rel=1e-3)
    assert np.count_nonzero(case.lesion.voxels) == pytest.approx(lesion, abs=2)


@pytest.mark.parametrize(
    ("patient", "site", "lesions", "visit", "hu", "lung", "lesion"),
    [
        pytest.param(
            0,
            SMALL,
            ILL,
            0,
            (
                -871.6,
                -646.4,
                -622.4,
                -872.0,
                -382.7,
                -235.0,
                -165.3,
                -370.1,
                -856.0,
                -565.3,
                -577.4,
                -856.0,
                -877.4,
                -631.3,
                -628.4,
                -877.4,
                -349.3,
                -362.8,
                -338.8,
                -349.9,
                -860.4,
                -573.1,
                -577.1,
                -860.4,
            ),
            13956,
            2591,
            id="severely ill, with fluid",
        ),
        pytest.param(
            4,
            SHARP,
            ILL,
            2,
            (
                -762.1,
                -584.5,
                -553.8,
                -765.4,
                -303.4,
                -253.2,
                -165.9,
                -329.6,
                -737.5,
                -527.1,
                -512.4,
                -735.8,
                -761.6,
                -558.4,
                -555.8,
                -761.5,
                -217.2,
                -369.2,
                -319.7,
                -213.3,
                -745.2,
                -491.5,
                -483.4,
                -745.3,
            ),
            20922,
            970,
            id="third visit, sharp kernel, noise, drawn in blocks",
        ),
        pytest.param(
            7,
            replace(SMALL, annotation="generous"),
            TYPICAL,
            1,
            (
                -821.2,
                -606.2,
                -580.1,
                -822.7,
                -334.9,
                -254.2,
                -189.8,
                -354.7,
                -804.9,
                -568.7,
                -566.2,
                -804.9,
                -829.6,
                -595.5,
                -593.1,
                -829.6,
                -283.6,
                -391.1,
                -362.0,
                -283.7,
                -812.8,
                -537.8,
                -536.0,
                -812.8,
            ),
            15845,
            207,
            id="drawn too wide",
        ),
    ],
)
def test_a_phantom_is_the_picture_of_its_recipe(
    patient: int, site: Site, lesions: Lesions, visit: int, hu: tuple[float, ...], lung: int, lesion: int
) -> None:
    assert RECIPE == 1
    require_picture(phantom_case(3, patient, site, lesions=lesions, visit=visit), hu, lung, lesion)


def test_so_is_a_phantom_on_its_second_date_which_breathes() -> None:
    hu = (
        -871.3,
        -653.7,
        -668.1,
        -927.6,
        -381.7,
        -202.4,
        -295.1,
        -547.2,
        -830.6,
        -610.5,
        -663.3,
        -923.1,
        -895.3,
        -664.4,
        -680.3,
        -936.3,
        -351.6,
        -318.4,
        -332.5,
        -508.9,
        -825.1,
        -563.0,
        -625.2,
        -916.2,
    )

    require_picture(phantom_dates(5, 0, replace(SMALL, size=90), [CHANGES])[1].case, hu, 16813, 137)


def test_a_day_moves_tissue_as_it_always_did() -> None:
    low, high = np.array([-120.0, -90.0, 0.0]), np.array([120.0, 90.0, 250.0])

    motion = draw_motion(np.random.default_rng(1), Breathing(), low, high)

    moved = motion.back_mm(np.array([(-60.0, -20.0, 40.0), (70.0, 30.0, 120.0), (10.0, -60.0, 220.0)]))
    np.testing.assert_allclose(
        moved, [[-68.388, -9.584, 42.733], [70.389, 33.629, 116.64], [11.313, -49.085, 217.832]], atol=2e-3
    )
