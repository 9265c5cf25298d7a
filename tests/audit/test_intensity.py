"""What values are is told by where air, lung, fat and muscle lie among them; what was HU stays, what was not is brought back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.audit.intensity import WINDOWS, identify_scale, intensity_findings, measure_landmarks
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Volume
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A, SITE_B

SMALL = replace(SITE_A, size=128, pixel_mm=2.8)
CHEST_WINDOWS = [(width, level) for width, level in WINDOWS if 1200 <= width <= 2000]


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return phantom_case(5, 0, SMALL).volume.hu


def windowed(hu: np.ndarray, width: float, level: float, top: int = 255) -> np.ndarray:
    return np.rint(np.clip((hu - (level - width / 2)) / width, 0, 1) * top).astype(np.int16)


def codes(planes: np.ndarray) -> list[str]:
    return [one.code for one in intensity_findings(planes)[0]]


def test_hu_are_left_as_they_are(hu: np.ndarray) -> None:
    findings, scale = intensity_findings(hu)

    assert findings == ()
    assert scale is not None
    assert (scale.kind, scale.slope, scale.intercept) == ("hu", 1, 0)


def test_landmarks_lie_where_the_phantom_has_them(hu: np.ndarray) -> None:
    marks = measure_landmarks(hu)

    assert marks.air == pytest.approx(-1000, abs=10)
    assert marks.lung == pytest.approx(-860, abs=30)
    assert marks.fat == pytest.approx(-100, abs=10)
    assert marks.tissue == pytest.approx(48, abs=10)
    assert marks.step == 1


@pytest.mark.parametrize(("width", "level"), CHEST_WINDOWS)
def test_a_picture_through_a_known_window_is_named_and_brought_back(hu: np.ndarray, width: float, level: float) -> None:
    findings, scale = intensity_findings(windowed(hu, width, level), case="c", cohort="home")

    assert findings[0].code == "not-hu-window"
    assert (findings[0].severity, findings[0].case, findings[0].cohort) == ("error", "c", "home")
    assert f"width {width:g} and level {level:g}" in findings[0].evidence
    assert scale is not None
    inside = (hu > level - width / 2) & (hu < level + width / 2)
    assert np.abs(scale.apply(windowed(hu, width, level)) - hu)[inside].max() <= width / 255 / 2 + 1


def test_the_window_of_ma_et_al_has_their_inverse(hu: np.ndarray) -> None:
    _, scale = intensity_findings(windowed(hu, 1500, -500))

    assert scale is not None
    assert (scale.slope, scale.intercept) == (pytest.approx(1500 / 255), -1250)
    assert scale.formula == "HU = value * 5.88235 - 1250"


def test_twelve_bits_of_a_window_are_told_too(hu: np.ndarray) -> None:
    findings, scale = intensity_findings(windowed(hu, 1400, -450, top=4095))

    assert findings[0].code == "not-hu-window"
    assert scale is not None
    assert (scale.slope, scale.intercept) == (pytest.approx(1400 / 4095), -1150)


def test_a_picture_of_zero_to_one_is_told_too(hu: np.ndarray) -> None:
    findings, scale = intensity_findings(np.clip((hu + 1350) / 1500, 0, 1).astype(np.float32))

    assert findings[0].code == "not-hu-window"
    assert scale is not None
    assert (scale.slope, scale.intercept) == (pytest.approx(1500), -1350)


def test_a_window_that_nobody_knows_is_estimated_and_called_so(hu: np.ndarray) -> None:
    findings, scale = intensity_findings(windowed(hu, 2600, 100))

    assert scale is not None
    assert scale.kind == "estimate"
    assert scale.slope == pytest.approx(2600 / 255, rel=0.03)
    assert "estimate" in findings[0].remedy


@pytest.mark.parametrize("offset", [1024, 1000, 32768])
def test_an_offset_is_named(hu: np.ndarray, offset: int) -> None:
    findings, scale = intensity_findings(np.maximum(hu.astype(np.int32) + offset, 0))

    assert findings[0].code == "not-hu-offset"
    assert f"HU +{offset}" in findings[0].evidence
    assert scale is not None
    assert (scale.slope, scale.intercept) == (1, -offset)


def test_a_scanner_out_of_calibration_is_warned_about() -> None:
    case = phantom_case(5, 0, replace(SITE_B, size=128, pixel_mm=2.8))

    (finding,), scale = intensity_findings(case.volume)

    assert (finding.code, finding.severity) == ("not-hu-offset", "warning")
    assert scale is not None
    assert scale.intercept == pytest.approx(-SITE_B.hu_offset, abs=20)


def test_coarse_steps_and_cut_off_bones_are_noted_after_the_window_is_undone(hu: np.ndarray) -> None:
    coarse = np.minimum(np.rint(hu / 6) * 6, 150).astype(np.int16)

    assert codes(coarse) == ["few-levels", "saturated"]


def test_muscle_that_is_cut_off_is_worse_than_bone(hu: np.ndarray) -> None:
    (finding,) = (one for one in intensity_findings(np.minimum(hu, 60).astype(np.int16))[0] if one.code == "saturated")

    assert finding.severity == "warning"
    assert "consolidation" in finding.remedy


def test_healthy_lung_that_is_cut_off_is_told(hu: np.ndarray) -> None:
    found = {one.code: one.severity for one in intensity_findings(np.maximum(hu, -850).astype(np.int16))[0]}

    assert found["floor"] == "warning"


def test_noise_without_a_chest_has_no_way_back() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64)).astype(np.int16)

    findings, scale = intensity_findings(noise, error="E_NOT_HU")

    assert scale is None
    assert [(one.code, one.error) for one in findings] == [("not-hu", "E_NOT_HU")]


def test_a_scale_without_landmarks_is_none() -> None:
    flat = np.zeros((8, 32, 32), np.int16)
    flat[:, 4:8] = 1

    assert identify_scale(measure_landmarks(flat)) is None


def test_a_volume_is_taken_as_it_is(hu: np.ndarray) -> None:
    assert intensity_findings(Volume(hu, Geometry.regular(hu.shape, (7, 2.8, 2.8))))[0] == ()
