"""Label errors are found in a chest drawn by hand, each for what it is; a clean mask has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chests import LESION, LUNG, SIZE, TISSUE, chest
from lungshift.audit.finding import Finding
from lungshift.audit.labels import label_findings
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_errors import LabelError
from lungshift.prepare.phantom_site import SITE_A, SITE_B, Site

CASE = chest(slices=12, slice_mm=3.0)


def with_lesion(change: np.ndarray, case: Case = CASE, *, hu: int | None = None) -> Case:
    """The case with more lesion, of these HU in the scan if any are given."""
    assert case.lesion is not None
    voxels = case.volume.hu.copy()
    if hu is not None:
        voxels[change] = hu
    return replace(
        case,
        volume=Volume(voxels, case.volume.geometry),
        lesion=Mask(case.lesion.voxels | change, case.lesion.geometry),
    )


def nothing() -> np.ndarray:
    return np.zeros(CASE.volume.hu.shape, bool)


def found(case: Case, code: str) -> list[Finding]:
    return [one for one in label_findings(case) if one.code == code]


def test_a_clean_mask_has_no_finding() -> None:
    assert label_findings(CASE) == ()


def test_without_a_lesion_mask_there_is_nothing_to_say() -> None:
    assert label_findings(replace(CASE, lesion=None)) == ()


def test_an_empty_mask_is_counted() -> None:
    empty = replace(CASE, lesion=Mask(nothing(), CASE.volume.geometry))

    assert [(one.code, one.severity) for one in label_findings(empty)] == [("empty-lesion", "note")]


def test_lesion_outside_the_lung_is_told_with_its_distance_in_mm() -> None:
    wrong = nothing()
    wrong[5:7, 58:60, 30:33] = True  # behind the lungs, whose last row is 51

    (finding,) = found(with_lesion(wrong), "lesion-outside-lung")

    assert (finding.severity, finding.voxels, finding.slices) == ("error", 12, (5, 6))
    # beside the spine the lungs end at row 51, with column 23 and column 40: from (59, 31) that is 8 rows and 8 columns of 2 mm
    assert finding.numbers["distance_mm"] == pytest.approx(2 * np.hypot(8, 8))
    assert finding.seat is not None
    assert wrong[finding.seat]


def test_lesion_a_pixel_beside_the_lung_is_how_readers_differ() -> None:
    wrong = nothing()
    wrong[5:7, 20:24, 28:30] = True  # the lung ends at column 27: at most 4 mm away

    assert found(with_lesion(wrong), "lesion-outside-lung") == []


def test_lesion_below_the_lungs_is_as_far_as_lesion_beside_them() -> None:
    lung = CASE.lung
    assert lung is not None
    short = Mask(lung.voxels & (np.arange(12) >= 5)[:, None, None], lung.geometry)
    wrong = nothing()
    wrong[1, 14:20, 10:16] = True

    case = with_lesion(wrong, replace(CASE, lung=short, lesion=Mask(nothing(), lung.geometry)))
    (finding,) = found(case, "lesion-outside-lung")

    assert finding.numbers["distance_mm"] == pytest.approx(12.0)
    (bare,) = found(case, "lesion-without-lung")
    assert (bare.slices, bare.voxels) == ((1,), 36)


def test_lesion_that_is_nothing_but_healthy_lung_is_told() -> None:
    wrong = nothing()
    wrong[4:8, 40:48, 44:54] = True

    (finding,) = found(with_lesion(wrong), "lesion-in-air")

    assert finding.numbers["inside_hu"] == pytest.approx(LUNG, abs=5)
    assert finding.slices == (4, 5, 6, 7)


def test_lesion_as_dense_as_bone_is_told() -> None:
    wrong = nothing()
    wrong[4:8, 40:48, 44:54] = True

    (finding,) = found(with_lesion(wrong, hu=600), "lesion-in-bone")

    assert finding.numbers["share"] == 1


def test_a_thin_long_dense_piece_in_the_lung_may_be_a_vessel() -> None:
    wrong = nothing()
    wrong[5:7, 14:50, 54:56] = True

    (finding,) = found(with_lesion(wrong, hu=TISSUE), "lesion-in-vessel")

    assert finding.numbers["long_mm"] > 70


def test_a_wide_piece_on_one_thin_slice_is_an_orphan_and_a_small_one_is_not() -> None:
    wrong = nothing()
    wrong[6, 40:49, 44:54] = True
    (finding,) = found(with_lesion(wrong, hu=LESION), "orphan")
    assert finding.slices == (6,)

    small = nothing()
    small[6, 40:44, 44:48] = True
    assert found(with_lesion(small, hu=LESION), "orphan") == []


@pytest.mark.parametrize("missing", [1, 2])
def test_a_lesion_that_stops_and_goes_on_has_a_gap(missing: int) -> None:
    lesion = CASE.lesion
    assert lesion is not None
    voxels = lesion.voxels.copy()
    voxels[5 : 5 + missing, :, 30:] = False

    (finding,) = found(replace(CASE, lesion=Mask(voxels, lesion.geometry)), "gap")

    assert finding.slices == tuple(range(5, 5 + missing))
    assert finding.severity == "warning"
    assert finding.seat is not None
    assert lesion.voxels[finding.seat]
    assert not voxels[finding.seat]


def test_specks_are_counted_together() -> None:
    wrong = nothing()
    wrong[3, 40, 50] = wrong[7, 45, 45] = True

    (finding,) = found(with_lesion(wrong), "speck")

    assert (finding.voxels, finding.slices) == (2, (3, 7))


def test_a_lung_mask_that_leaves_out_a_lesion_at_the_pleura_has_a_hole() -> None:
    lung = CASE.lung
    assert lung is not None
    voxels = lung.voxels.copy()
    dent = nothing()
    dent[4:8, 40:46, 51:56] = True
    voxels[dent] = False

    case = with_lesion(dent, replace(CASE, lung=Mask(voxels, lung.geometry)), hu=LESION)
    (finding,) = found(case, "lung-hole")

    assert finding.voxels >= 90
    assert finding.numbers["ml"] == pytest.approx(finding.voxels * CASE.volume.geometry.voxel_ml)


def tube(jitter: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Case:
    """A lesion whose outline moves to and fro from slice to slice."""
    rng = np.random.default_rng(0)
    grid = Geometry.regular((40, SIZE, SIZE), spacing)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    lesion = np.stack([np.hypot(rows - 32 - d, columns - 32) < 18 for d in rng.integers(-jitter, jitter + 1, 40)])
    hu = np.where(lesion, LESION, LUNG) + rng.integers(-20, 20, lesion.shape)
    return Case(Volume(hu.astype(np.int16), grid), Mask(np.ones(lesion.shape, bool), grid), Mask(lesion, grid))


def test_outlines_that_jump_from_slice_to_slice_are_slice_wise() -> None:
    assert found(tube(0), "slice-wise") == []
    (finding,) = found(tube(2), "slice-wise")
    assert finding.numbers["ratio"] > 5


@pytest.mark.parametrize(("coarse", "period"), [(30, 2), (45, 4), (48, 5)])
def test_a_mask_that_was_enlarged_from_a_coarser_grid_is_blocky(coarse: int, period: int) -> None:
    """Of 60 pixels from 48 every fifth repeats the one before, so that no outline can lie between the two."""
    rows, columns = np.mgrid[:coarse, :coarse] * 60 / coarse
    near = np.arange(60) * coarse // 60
    drawn = [np.hypot(rows - 30, columns - 29) < 14 + index / 2 for index in range(20)]
    lesion = np.stack([shape[np.ix_(near, near)] for shape in drawn])
    grid = Geometry.regular(lesion.shape, (3, 1, 1))
    hu = np.where(lesion, LESION, LUNG).astype(np.int16)

    (finding,) = found(Case(Volume(hu, grid), None, Mask(lesion, grid)), "blocky")

    assert finding.numbers["period"] % period == 0 or period % finding.numbers["period"] == 0
    assert finding.numbers["share"] < 0.1


@pytest.mark.parametrize("site", [SITE_A, replace(SITE_B, hu_offset=0)], ids="AB")
def test_clean_phantoms_have_no_errors_and_no_warnings(site: Site) -> None:
    small = replace(site, size=128, pixel_mm=2.8)
    for patient in range(3):
        assert [one for one in label_findings(phantom_case(31, patient, small)) if one.severity != "note"] == []


def test_a_ball_planted_outside_the_lungs_of_a_phantom_is_found() -> None:
    case = phantom_case(26, 4, replace(SITE_A, size=128, pixel_mm=2.8), label_errors=(LabelError("outside_lung", 4),))

    assert [one.severity for one in found(case, "lesion-outside-lung")] == ["error"]


def test_a_mask_shifted_by_three_slices_leaves_the_lung_and_covers_healthy_lung() -> None:
    case = phantom_case(25, 2, replace(SITE_A, size=128, pixel_mm=2.8), label_errors=(LabelError("shifted", 2),))

    codes = {one.code for one in label_findings(case)}

    assert {"lesion-outside-lung", "lesion-in-air"} & codes


@pytest.mark.parametrize("site", [SITE_A, replace(SITE_B, hu_offset=0)], ids="AB")
def test_outlines_with_a_rim_of_healthy_lung_are_too_wide_and_generous_ones_are_not(site: Site) -> None:
    small = replace(site, size=128, pixel_mm=2.8)
    wide = phantom_case(51, 1, small, label_errors=(LabelError("dilated", 1),))
    (finding,) = found(wide, "too-wide")
    assert finding.numbers["inside_hu"] - finding.numbers["around_hu"] < 40

    assert found(phantom_case(51, 1, replace(small, annotation="generous")), "too-wide") == []
