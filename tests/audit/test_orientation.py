"""A scan that lies otherwise than its header says is told by its organs; one that lies right, or shows too little, is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chests import chest
from lungshift.audit.orientation import AXES, judge_orientation, orientation_findings
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A, Flip

SMALL = replace(SITE_A, size=96, pixel_mm=3.6)
FLIPS: dict[Flip, str] = {"left_right": "left-right", "up_down": "front-back", "head_foot": "head-foot"}


@pytest.fixture(scope="module")
def phantom() -> Case:
    return phantom_case(5, 0, SMALL)


def turned(case: Case, *axes: int) -> Case:
    """The voxels turned round, and the grid kept: what a header that lies leaves."""
    volume, lung = case.volume, case.lung
    assert lung is not None
    return Case(
        Volume(np.ascontiguousarray(np.flip(volume.hu, axes)), volume.geometry),
        Mask(np.ascontiguousarray(np.flip(lung.voxels, axes)), lung.geometry),
        case_id=case.case_id,
    )


def part(case: Case, low: int, high: int) -> tuple[Volume, Mask]:
    grid = Geometry.regular((high - low, *case.volume.hu.shape[1:]), case.volume.geometry.spacing_mm)
    assert case.lung is not None
    return Volume(case.volume.hu[low:high], grid), Mask(case.lung.voxels[low:high], grid)


@pytest.mark.parametrize("flip", FLIPS)
def test_a_phantom_whose_site_turns_it_is_named_by_the_axis(flip: Flip) -> None:
    case = phantom_case(5, 1, replace(SMALL, flip=flip))

    (finding,) = orientation_findings(case.volume, case.lung, case="p", cohort="home")

    assert finding.code == f"flipped-{FLIPS[flip]}"
    assert (finding.case, finding.cohort, finding.severity, finding.kind) == ("p", "home", "error", "orientation")
    assert finding.numbers["votes"] <= -1
    assert "votes" in finding.evidence
    assert "keep the affine" in finding.remedy


def test_every_way_to_turn_a_chest_is_told_from_every_other(phantom: Case) -> None:
    for number in range(8):
        axes = tuple(axis for axis in range(3) if number >> axis & 1)
        case = turned(phantom, *axes)

        assert case.lung is not None
        found = judge_orientation(case.volume, case.lung)

        assert set(found.flipped) == {name for name, axis in AXES.items() if axis in axes}


def test_a_chest_that_lies_right_has_no_finding_with_and_without_a_lung_mask(phantom: Case) -> None:
    assert orientation_findings(phantom.volume, phantom.lung) == ()
    assert orientation_findings(phantom.volume) == ()


def test_the_votes_change_sign_with_the_chest(phantom: Case) -> None:
    assert phantom.lung is not None
    right = judge_orientation(phantom.volume, phantom.lung)
    mirrored = turned(phantom, 2)
    assert mirrored.lung is not None
    wrong = judge_orientation(mirrored.volume, mirrored.lung)

    assert wrong.votes("left-right") == pytest.approx(-right.votes("left-right"), abs=0.3)
    assert wrong.votes("front-back") == pytest.approx(right.votes("front-back"), abs=0.1)


@pytest.mark.parametrize(("low", "high"), [(0, 0.5), (0.5, 1), (0.25, 0.75), (0, 0.34), (0.66, 1)])
def test_a_part_of_a_chest_is_not_called_flipped(phantom: Case, low: float, high: float) -> None:
    count = len(phantom.volume.hu)

    assert orientation_findings(*part(phantom, round(low * count), round(high * count))) == ()


def test_a_few_slices_tell_nothing(phantom: Case) -> None:
    volume, lung = part(turned(phantom, 0, 1, 2), 10, 16)

    assert orientation_findings(volume, lung) == ()
    assert judge_orientation(volume, lung).signs == {}


def test_a_chest_drawn_by_hand_is_left_alone() -> None:
    case = chest()

    assert orientation_findings(case.volume, case.lung) == ()


def test_a_scan_without_lungs_is_said_to_have_none() -> None:
    hu = np.full((10, 64, 64), -1000, np.int16)
    hu[:, 10:54, 10:54] = 40

    (finding,) = orientation_findings(Volume(hu, Geometry.regular(hu.shape, (5, 3, 3))))

    assert (finding.code, finding.severity, finding.error) == ("no-lung", "error", "E_NO_LUNG")
