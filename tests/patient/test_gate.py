"""What is odd about a scan is said by a stable word and a number; what is usual is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, InputError
from lungshift.patient.gate import PICTURE_MM, SLICE_MM, Flag, TrainingRange, judge_scan, require_like
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A
from patient_worlds import whole_chest


def codes(case: Case, seen: TrainingRange | None = None) -> set[str]:
    return {flag.code for flag in judge_scan(case, seen or TrainingRange())}


def on_grid(case: Case, geometry: Geometry) -> Case:
    assert case.lung is not None
    return Case(Volume(case.volume.hu, geometry), Mask(case.lung.voxels, geometry))


def changed_hu(case: Case, hu: np.ndarray) -> Case:
    return replace(case, volume=Volume(hu.astype(np.int16), case.volume.geometry))


def test_lungs_that_go_on_beyond_the_last_slice_are_cut_off_and_said_to_be_there() -> None:
    case = whole_chest()
    part = slice(5, 16)
    geometry = Geometry.regular((11, 64, 64), (10.0, 2.0, 2.0))
    cut = Case(Volume(case.volume.hu[part], geometry), Mask(case.lung.voxels[part], geometry))

    assert "cut-off" not in codes(case)
    (flag,) = [one for one in judge_scan(cut, TrainingRange()) if one.code == "cut-off"]
    assert "towards the foot" in flag.evidence
    assert flag.numbers["share"] > 0.8


def test_lungs_that_go_on_beyond_the_edge_of_the_slices_are_cut_off() -> None:
    case = whole_chest()
    narrow = Geometry.regular((16, 64, 50), (10.0, 2.0, 2.0))
    cut = Case(Volume(case.volume.hu[:, :, :50], narrow), Mask(case.lung.voxels[:, :, :50], narrow))

    (flag,) = [one for one in judge_scan(cut, TrainingRange()) if one.code == "cut-off"]
    assert "lung reaches the border of the picture on 12 slices" in flag.evidence


@pytest.mark.parametrize(
    ("gain", "offset", "flagged"),
    [
        pytest.param(1.0, 0.0, False, id="HU"),
        pytest.param(1.0, 60.0, False, id="60 HU off, as scanners are"),
        pytest.param(1.0, 300.0, True, id="300 HU off"),
        pytest.param(0.5, 0.0, True, id="half the contrast"),
    ],
)
def test_a_scale_that_is_not_that_of_hu_is_flagged(gain: float, offset: float, flagged: bool) -> None:
    case = whole_chest()

    found = codes(changed_hu(case, case.volume.hu * gain + offset))
    assert ("contrast" in found) == flagged
    assert any(code.startswith("not-hu") for code in found) == flagged


@pytest.mark.parametrize(
    ("spacing", "flagged"),
    [
        pytest.param((10.0, 4.0, 4.0), False, id="usual"),
        pytest.param((25.0, 4.0, 4.0), True, id="slices far apart"),
        pytest.param((10.0, 1.0, 1.0), True, id="a picture of 64 mm"),
    ],
)
def test_voxels_of_a_size_that_no_chest_ct_has_are_flagged(spacing: tuple, flagged: bool) -> None:
    assert ("spacing-unseen" in codes(on_grid(whole_chest(), Geometry.regular((16, 64, 64), spacing)))) == flagged


def test_what_the_checkpoint_has_seen_stands_above_what_is_usual() -> None:
    seen = TrainingRange.of([{"seen": {"slice_mm": [1.0, 3.0], "picture_mm": [250.0, 400.0]}}, {"cohort": "old"}])

    assert (seen.slice_mm, seen.stated) == ((1 / 1.5, 4.5), True)
    assert "spacing-unseen" in codes(on_grid(whole_chest(), Geometry.regular((16, 64, 64), (10.0, 4.0, 4.0))), seen)
    assert TrainingRange.of([{"cohort": "old"}]) == TrainingRange(SLICE_MM, PICTURE_MM, stated=False)


def test_half_a_litre_of_lung_is_flagged() -> None:
    assert "lung-volume" in codes(on_grid(whole_chest(), Geometry.regular((16, 64, 64), (10.0, 1.0, 1.0))))


@pytest.mark.parametrize(
    "axis", [pytest.param(1, id="front-back"), pytest.param(2, id="left-right"), pytest.param(0, id="head-foot")]
)
def test_a_chest_that_lies_otherwise_than_its_header_says_is_flagged(axis: int) -> None:
    case = phantom_case(5, 0, replace(SITE_A, size=96, pixel_mm=3.6))
    flags = codes(case)
    assert case.lung is not None
    mirrored = Case(
        Volume(np.ascontiguousarray(np.flip(case.volume.hu, axis)), case.volume.geometry),
        Mask(np.ascontiguousarray(np.flip(case.lung.voxels, axis)), case.volume.geometry),
    )

    name = {0: "flipped-head-foot", 1: "flipped-front-back", 2: "flipped-left-right"}[axis]
    assert not [code for code in flags if code.startswith("flipped")]
    assert name in codes(mirrored)


def test_a_case_without_lung_is_no_case_to_judge() -> None:
    case = whole_chest()
    for lung in (None, Mask(np.zeros_like(case.lung.voxels), case.volume.geometry)):
        with pytest.raises(GeometryError) as caught:
            judge_scan(Case(case.volume, lung), TrainingRange())
        assert caught.value.code == "E_NO_LUNG"


def test_strict_refuses_what_is_flagged_and_nothing_else() -> None:
    require_like(())
    with pytest.raises(InputError, match=r"cut-off: the lungs go on\. Look") as caught:
        require_like((Flag("cut-off", "the lungs go on", "Look"),))
    assert caught.value.code == "E_UNLIKE"
