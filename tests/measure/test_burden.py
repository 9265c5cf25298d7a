"""How much lesion: numbers small enough to count by hand, and phantoms whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, GeometryError
from lungshift.measure.burden import Burden, bounds_of, burden_of, severity_class, unit_of
from lungshift.measure.regions import SIDES, THIRDS
from lungshift.prepare.phantom import phantom_cohort, phantom_truth
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import Site

GRID = Geometry.regular((6, 10, 20), (10.0, 5.0, 4.0))
ML = 0.2


def world() -> tuple[Volume, Mask, Mask]:
    """Two lungs of 6 x 6 x 6 voxels; in the right lower third eight voxels of ground glass and two of consolidation, one outside."""
    lung, lesion = np.zeros((2, *GRID.shape), bool)
    lung[:, 2:8, 2:8] = lung[:, 2:8, 12:18] = True
    hu = np.full(GRID.shape, -850, np.int16)
    hu[~lung] = 40
    lesion[0, 3, 2:7] = lesion[1, 3, 2:7] = True
    hu[lesion] = -500
    hu[0, 3, 2:4] = 0
    lesion[5, 0, 0] = True
    return Volume(hu, GRID), Mask(lesion, GRID), Mask(lung, GRID)


def burden() -> Burden:
    return burden_of(*world())


def test_millilitres_and_percent_are_counted_voxels() -> None:
    right = burden().extents["right"]

    assert (right.lung_ml, right.lesion_ml) == pytest.approx((216 * ML, 10 * ML))
    assert right.percent == pytest.approx(100 * 10 / 216)
    assert burden().extents["right_lower"].percent == pytest.approx(100 * 10 / 72)


def test_density_is_split_by_hu_inside_the_lesion() -> None:
    whole = burden().whole

    assert (whole.ground_glass_ml, whole.consolidation_ml) == pytest.approx((8 * ML, 2 * ML))
    assert (whole.consolidation_percent, whole.mean_hu) == pytest.approx((20, -400))


def test_lesion_outside_the_lung_is_counted_apart_and_as_a_lesion() -> None:
    found = burden()

    assert found.outside_ml == pytest.approx(ML)
    assert (len(found.lesions), found.lesions_counted) == (2, 2)
    assert found.whole.lesion_ml + found.outside_ml == pytest.approx(11 * ML)


def test_where_there_is_no_lesion_percent_is_zero_and_density_undefined() -> None:
    left = burden().extents["left"]

    assert (left.lesion_ml, left.percent, left.severity) == (0, 0, 0)
    assert math.isnan(left.mean_hu)
    assert math.isnan(left.consolidation_percent)


def test_where_there_is_no_lung_percent_and_severity_are_undefined() -> None:
    volume, lesion, lung = world()
    right = lung.voxels.copy()
    right[..., 10:] = False
    found = burden_of(volume, lesion, Mask(right, GRID))

    assert found.extents["left"].lung_ml == 0
    assert math.isnan(found.extents["left_upper"].percent)
    assert math.isnan(found.severity_score)
    assert found.whole.severity == 1


def test_a_healthy_scan_has_no_lesion_and_score_0() -> None:
    volume, lesion, lung = world()
    found = burden_of(volume, Mask(np.zeros_like(lesion.voxels), GRID), lung)

    assert (found.whole.lesion_ml, found.severity_score, found.largest_ml, found.lesions) == (0, 0, 0, ())


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 0), (0.01, 1), (24.99, 1), (25, 2), (49.99, 2), (50, 3), (74.99, 3), (75, 4), (100, 4)],
)
def test_the_five_classes_have_the_published_cut_offs(percent: float, expected: int) -> None:
    assert severity_class(percent) == expected


def test_the_score_is_the_sum_over_six_zones() -> None:
    volume, _, lung = world()
    everything = burden_of(volume, lung, lung)

    assert (burden().severity_score, everything.severity_score) == (1, 24)


def test_every_number_has_a_name_of_its_own() -> None:
    numbers = burden().quantities()

    assert numbers["lesion_ml"] == pytest.approx(10 * ML)
    assert numbers["right_lower_percent"] == pytest.approx(100 * 10 / 72)
    assert numbers["outside_ml"] == pytest.approx(ML)
    assert (numbers["lesions"], numbers["severity_score"]) == (2, 1)
    assert len(numbers) == 12 * 8 + 5


@pytest.mark.parametrize("what", ["lesion_ml", "lung_ml", "ground_glass_ml", "consolidation_ml"])
def test_sides_thirds_and_zones_add_up_to_the_whole(what: str) -> None:
    numbers = burden().quantities()

    assert sum(numbers[f"{side}_{what}"] for side in SIDES) == pytest.approx(numbers[what])
    assert sum(numbers[f"{third}_{what}"] for third in THIRDS) == pytest.approx(numbers[what])
    assert sum(numbers[f"{side}_{third}_{what}"] for side in SIDES for third in THIRDS) == pytest.approx(numbers[what])


def test_a_lesion_without_a_lung_mask_is_refused() -> None:
    volume, lesion, _ = world()

    with pytest.raises(AnnotationError, match="without a lung mask") as caught:
        burden_of(volume, lesion, None)
    assert caught.value.code == "E_NO_LUNG"


def test_a_lesion_mask_on_another_grid_is_refused() -> None:
    volume, lesion, lung = world()
    shifted = Geometry.regular(GRID.shape, GRID.spacing_mm, (1.0, 0.0, 0.0))

    with pytest.raises(GeometryError, match="Scan and lesion mask"):
        burden_of(volume, Mask(lesion.voxels, shifted), lung)


def sampled(lesions: Lesions, site: Site) -> tuple[Burden, float, float]:
    """Burden of a phantom's true mask, and its lesion and lung in ml from a grid eight times as fine."""
    (record,) = phantom_cohort("coarse", patients=1, site=site, seed=11, lesions=lesions).cases
    fine = Site("fine", slice_mm=site.slice_mm / 2, pixel_mm=site.pixel_mm / 2, size=2 * site.size, noise_hu=0)
    (better,) = phantom_cohort("fine", patients=1, site=fine, seed=11, lesions=lesions).cases
    truth, exact = phantom_truth(record), phantom_truth(better)
    found = burden_of(record.read().volume, truth.lesion, truth.lung)
    return found, exact.lesion.volume_ml, exact.lung.volume_ml


def test_volumes_of_a_phantom_are_within_two_percent_of_a_finer_scan() -> None:
    found, lesion_ml, lung_ml = sampled(
        Lesions(mild=0, moderate=0, severe=1, effusion=0), Site(slice_mm=5.0, pixel_mm=3.0, size=116)
    )

    assert found.whole.lesion_ml == pytest.approx(lesion_ml, rel=0.02)
    assert found.whole.lung_ml == pytest.approx(lung_ml, rel=0.02)


@pytest.mark.parametrize(
    ("quantity", "unit", "bounds"),
    [
        ("lesion_ml", "ml", (0, math.inf)),
        ("right_lesion_percent", "%", (0, 100)),
        ("lesion_mean_hu", "HU", (-math.inf, math.inf)),
        ("severity_score", "", (0, 24)),
    ],
)
def test_a_quantity_has_its_unit_and_what_it_can_be_at_most(quantity: str, unit: str, bounds: tuple) -> None:
    assert unit_of(quantity) == unit
    assert bounds_of(quantity) == bounds
