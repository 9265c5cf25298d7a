"""Slices that are doubled, missing or empty, lungs that are cut off, impossible sizes and burnt-in text are found; whole scans are not blamed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.audit.completeness import completeness_findings
from lungshift.audit.finding import Finding
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A

SPACING = (4.0, 2.8, 2.8)


@pytest.fixture(scope="module")
def phantom() -> Case:
    return phantom_case(5, 0, replace(SITE_A, size=128, pixel_mm=2.8, slice_mm=4.0))


def look(
    hu: np.ndarray, lung: np.ndarray | None = None, spacing: tuple[float, float, float] = SPACING
) -> list[Finding]:
    grid = Geometry.regular(hu.shape, spacing)
    mask = None if lung is None else Mask(np.ascontiguousarray(lung), grid)
    return list(completeness_findings(Volume(np.ascontiguousarray(hu), grid), mask))


def lung_of(case: Case) -> np.ndarray:
    assert case.lung is not None
    return case.lung.voxels


def test_a_whole_scan_has_no_finding(phantom: Case) -> None:
    assert look(phantom.volume.hu, lung_of(phantom)) == []


def test_a_slice_that_is_there_twice_is_named(phantom: Case) -> None:
    hu = phantom.volume.hu
    (finding,) = look(np.concatenate([hu[:21], hu[20:]]))

    assert (finding.code, finding.severity, finding.slices) == ("slice-doubled", "error", (21,))
    assert "20 = 21" in finding.evidence


def test_a_block_that_is_there_twice_is_named_wherever_it_lies(phantom: Case) -> None:
    hu = phantom.volume.hu
    found = {one.code: one for one in look(np.concatenate([hu[:30], hu[10:14], hu[30:]]))}

    assert found["slice-doubled"].slices == (30, 31, 32, 33)
    assert "10 = 30" in found["slice-doubled"].evidence


def test_a_copy_with_other_noise_is_named_by_how_little_it_changes(phantom: Case) -> None:
    hu = phantom.volume.hu.copy()
    hu[21] = hu[20] + np.random.default_rng(0).integers(-1, 2, hu[20].shape)

    found = [one for one in look(hu) if one.code == "slice-doubled"]

    assert [(one.severity, one.slices) for one in found] == [("warning", (21,))]


@pytest.mark.parametrize("count", [6, 9])
def test_missing_slices_are_seen_as_a_jump(phantom: Case, count: int) -> None:
    hu = np.delete(phantom.volume.hu, np.arange(30, 30 + count), axis=0)

    (finding,) = (one for one in look(hu) if one.code == "slice-missing")

    assert finding.slices == (30,)
    assert finding.numbers["jump"] > 2


def test_many_jumps_are_slices_of_unequal_distance(phantom: Case) -> None:
    hu = np.delete(phantom.volume.hu, [*range(12, 18), *range(25, 31), *range(36, 42), *range(48, 54)], axis=0)

    assert "slice-spacing" in [one.code for one in look(hu)]


def test_a_slice_without_a_picture_is_named(phantom: Case) -> None:
    hu = phantom.volume.hu.copy()
    hu[17] = -1000

    (finding,) = (one for one in look(hu) if one.code == "slice-empty")

    assert finding.slices == (17,)


@pytest.mark.parametrize(("part", "end"), [(slice(20, None), "foot"), (slice(None, 40), "head")])
def test_lungs_that_go_on_beyond_the_scan_are_cut_off(phantom: Case, part: slice, end: str) -> None:
    (finding,) = look(phantom.volume.hu[part], lung_of(phantom)[part])

    assert finding.code == "cut-off"
    assert f"towards the {end}" in finding.evidence
    assert finding.seat is not None
    assert lung_of(phantom)[part][finding.seat]


def test_lungs_that_reach_the_border_of_the_picture_are_cut_off(phantom: Case) -> None:
    columns = np.flatnonzero(lung_of(phantom).any(axis=(0, 1)))
    cut = slice(int(columns[0]) + 8, None)

    found = look(phantom.volume.hu[:, :, cut], lung_of(phantom)[:, :, cut])

    assert [one.code for one in found] == ["cut-off"]
    assert "border" in found[0].evidence


@pytest.mark.parametrize(
    ("spacing", "what"),
    [
        pytest.param((1.0, 1.0, 1.0), "width", id="a size of 1 mm that stands for none"),
        pytest.param((1.0, 2.8, 2.8), "height", id="slices four times too thin"),
        pytest.param((12.0, 2.8, 2.8), "height", id="slices three times too thick"),
    ],
)
def test_a_voxel_size_by_which_no_person_has_such_lungs_is_told(
    phantom: Case, spacing: tuple[float, float, float], what: str
) -> None:
    (finding,) = (one for one in look(phantom.volume.hu, lung_of(phantom), spacing) if one.code == "spacing")

    assert what in finding.evidence


def test_a_voxel_that_no_scanner_has_is_an_error_without_any_lung(phantom: Case) -> None:
    (finding,) = look(phantom.volume.hu, spacing=(4.0, 2.8, 0.9))

    assert (finding.code, finding.severity) == ("spacing", "error")


def test_text_beside_the_body_is_found_and_bone_at_the_end_of_the_scale_and_the_table_are_not(phantom: Case) -> None:
    hu = np.minimum(phantom.volume.hu, 150)
    assert [one.code for one in look(hu)] == []
    hu[:, 4:9, 5:35:3] = 150

    (finding,) = look(hu)

    assert finding.code == "burnt-in"
    assert finding.numbers["pixels"] == 50
    assert "rows 4-8" in finding.evidence
    assert "name the patient" in finding.remedy


def test_a_single_letter_that_is_not_quite_the_same_on_every_slice_is_found(phantom: Case) -> None:
    hu = phantom.volume.hu.copy()
    rng = np.random.default_rng(0)
    for row, column in ((12, 6), (12, 7), (13, 5), (14, 6), (14, 7), (15, 8)):
        hu[:, row, column] = rng.integers(-500, -100, len(hu))

    (finding,) = look(hu)

    assert (finding.code, finding.numbers["pixels"]) == ("burnt-in", 6)


def test_a_slice_of_another_brightness_is_odd_and_no_jump(phantom: Case) -> None:
    hu = phantom.volume.hu.copy()
    hu[30] = np.minimum(hu[30] * 1.0 + 150, 3000)

    (finding,) = (one for one in look(hu) if one.kind == "completeness")

    assert (finding.code, finding.slices) == ("slice-odd", (30,))
    assert finding.numbers["brighter_hu"] == pytest.approx(150, abs=15)
