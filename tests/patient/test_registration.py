"""Lungs of two dates laid on each other: what is found, what is checked, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import CohortError, GeometryError, RegistrationError
from lungshift.patient import registration
from lungshift.patient.followup import FollowUp
from lungshift.patient.registration import Registration, register_lungs
from lungshift.prepare.phantom_dates import PhantomDate, phantom_dates

from .conftest import SITE


@pytest.fixture(scope="module")
def found(follow: FollowUp) -> Registration:
    return follow.steps[0].registration


def places(date: PhantomDate) -> np.ndarray:
    lung = date.case.lung
    return lung.geometry.world_mm(np.argwhere(lung.voxels)[::53])


def test_tissue_is_found_again_within_two_millimetres(found: Registration, dates: tuple[PhantomDate, ...]) -> None:
    there = places(dates[0])
    truth = dates[1].motion.forward_mm(there)

    assert np.median(np.linalg.norm(truth - there, axis=1)) > 5
    assert np.median(np.linalg.norm(found.later_mm(there) - truth, axis=1)) < 2


def test_the_expansion_of_the_lungs_is_that_of_their_masks(found: Registration) -> None:
    assert found.quality.expansion == pytest.approx(found.quality.volume_ratio, rel=0.05)


def test_the_map_has_no_fold_and_the_lungs_overlap(found: Registration) -> None:
    quality = found.quality

    assert 0 < quality.jacobian_low < 1 < quality.jacobian_high
    assert quality.dice_before < quality.dice_affine < quality.dice
    assert quality.dice > 0.97
    assert quality.surface_mm < 1.5
    assert quality.likeness > 2 * registration.SAME_LUNGS


def test_the_later_lungs_laid_on_the_earlier_cover_them(found: Registration, dates: tuple[PhantomDate, ...]) -> None:
    moved = found.onto_earlier(dates[1].case.lung.voxels, outside=0, linear=False)
    lung = dates[0].case.lung.voxels

    assert moved.dtype == np.bool_
    assert 2 * (moved & lung).sum() / (moved.sum() + lung.sum()) > 0.95


def test_an_array_is_laid_where_the_points_say(found: Registration, dates: tuple[PhantomDate, ...]) -> None:
    """The height of each voxel of the later scan, laid on the earlier, is the height that its point is taken to."""
    later = dates[1].case.volume.geometry
    heights = np.broadcast_to(
        later.world_mm(np.stack([np.arange(later.shape[0])] + [np.zeros(later.shape[0])] * 2, -1))[:, 2, None, None],
        later.shape,
    )
    moved = found.onto_earlier(heights.astype(np.float32), outside=np.nan)
    there = places(dates[0])
    index = np.rint((there - found.earlier.affine[:3, 3]) @ np.linalg.inv(found.earlier.affine[:3, :3]).T).astype(int)

    assert moved[tuple(index.T)] == pytest.approx(found.later_mm(there)[:, 2], abs=0.1)


def test_beyond_the_grid_points_move_as_its_edge(found: Registration) -> None:
    corner = found.grid.world_mm(np.array([0, 0, 0]))

    assert found.later_mm(corner - 50) == pytest.approx(found.later_mm(corner) - 50, abs=1e-3)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid on which registration is quick."""
    monkeypatch.setattr(registration, "GRID_MM", 6.0)


@pytest.mark.usefixtures("coarse")
def test_the_same_scans_give_the_same_map(dates: tuple[PhantomDate, ...]) -> None:
    one, other = (register_lungs(dates[0].case, dates[1].case) for _ in range(2))

    np.testing.assert_array_equal(one.map_mm, other.map_mm)


@pytest.mark.usefixtures("coarse")
def test_two_patients_are_refused_by_the_inside_of_their_lungs(dates: tuple[PhantomDate, ...]) -> None:
    (other, *_) = phantom_dates(6, 2, SITE, [["stable"]])

    with pytest.raises(CohortError, match="look like two patients") as error:
        register_lungs(dates[0].case, other.case)
    assert error.value.code == "E_TWO_PATIENTS"


def half_lungs(case: Case) -> Case:
    """A lung mask of the right lung alone."""
    voxels = case.lung.voxels.copy()
    voxels[:, :, voxels.shape[2] // 2 :] = False
    return replace(case, lung=Mask(voxels, case.lung.geometry))


@pytest.mark.usefixtures("coarse")
def test_lungs_that_do_not_lie_on_each_other_are_refused(dates: tuple[PhantomDate, ...]) -> None:
    with pytest.raises((RegistrationError, CohortError)) as error:
        register_lungs(dates[0].case, half_lungs(dates[1].case))
    assert error.value.code in {"E_REGISTRATION", "E_TWO_PATIENTS", "E_FOLDED"}


def test_too_little_overlap_is_an_error_that_says_what_to_do(
    found: Registration, dates: tuple[PhantomDate, ...]
) -> None:
    poor = replace(found.quality, dice=0.8)

    with pytest.raises(RegistrationError, match=r"Dice 0\.80 \(at least 0\.90.*--lung"):
        registration._require_good(dates[0].case, dates[1].case, poor)


def test_a_fold_is_an_error(found: Registration, dates: tuple[PhantomDate, ...]) -> None:
    with pytest.raises(RegistrationError, match="folds") as error:
        registration._require_good(dates[0].case, dates[1].case, replace(found.quality, jacobian_low=-0.1))
    assert error.value.code == "E_FOLDED"


def test_likeness_that_cannot_be_told_refuses_nobody(found: Registration, dates: tuple[PhantomDate, ...]) -> None:
    registration._require_good(dates[0].case, dates[1].case, replace(found.quality, likeness=float("nan")))


@pytest.mark.parametrize("empty", [True, False])
def test_a_scan_without_lungs_is_refused(dates: tuple[PhantomDate, ...], *, empty: bool) -> None:
    case = dates[0].case
    nothing = Mask(np.zeros(case.volume.geometry.shape, bool), case.volume.geometry) if empty else None

    with pytest.raises(GeometryError, match="lung mask") as error:
        register_lungs(replace(case, lung=nothing), dates[1].case)
    assert error.value.code == "E_NO_LUNG"


def test_a_scan_that_cuts_through_the_lungs_is_told(dates: tuple[PhantomDate, ...]) -> None:
    case = dates[0].case
    grid = case.volume.geometry
    middle = grid.shape[0] // 2
    part = Geometry((middle, *grid.shape[1:]), grid.affine)
    cut = Case(replace(case.volume, hu=case.volume.hu[:middle], geometry=part), Mask(case.lung.voxels[:middle], part))

    assert [note.split(" cuts ")[1] for note in registration._cut_off(cut)] == [
        "through the lungs at the top: what lies beyond cannot be compared."
    ]
    assert registration._cut_off(case) == []


def test_a_linear_map_has_the_volume_of_its_determinant() -> None:
    grid = Geometry.regular((6, 7, 8), (3.0, 3.0, 3.0))
    linear = np.array([[1.1, 0.1, 0.0], [0.0, 0.9, 0.2], [0.0, 0.0, 1.2]])
    map_mm = registration._world(grid) @ linear.T

    assert registration._determinant(map_mm, grid) == pytest.approx(np.linalg.det(linear), rel=1e-5)


def test_surfaces_of_one_shape_are_nowhere_apart_and_of_nothing_infinitely() -> None:
    grid = Geometry.regular((8, 8, 8), (3.0, 3.0, 3.0))
    cube, moved = np.zeros((2, 8, 8, 8), bool)
    cube[2:5, 2:5, 2:5] = moved[2:5, 2:5, 3:6] = True

    assert registration._surface_distance(cube, cube, grid) == (0, 0)
    assert 0 < registration._surface_distance(cube, moved, grid)[0] <= 3
    assert registration._surface_distance(cube, np.zeros_like(cube), grid) == (np.inf, np.inf)
