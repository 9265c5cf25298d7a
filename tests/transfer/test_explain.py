"""Why it dropped, with a model that is a threshold: what a replay must give back is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from chests import chest, chests, threshold_model
from lungshift.errors import ProtocolError
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.explain import CAUSES, explain_drop
from lungshift.transfer.outcome import Cause, CauseName, Explanation

TRAIN, TEST = np.arange(24), np.arange(24, 40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("home"), "home", *(chest(seed) for seed in range(5)))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("away"), "away", *(chest(seed) for seed in range(10, 14)))


def explain(
    home: PreparedCohort, away: PreparedCohort, *causes: CauseName, min_pixels: int = 0, **options: str
) -> Explanation:
    model, rows = threshold_model(min_pixels=min_pixels), np.arange(len(away.table))
    return explain_drop(
        model, home, TEST, away, rows, source_train=TRAIN, device="cpu", causes=causes or CAUSES, **options
    )


def cause(explanation: Explanation, name: CauseName) -> Cause:
    return next(one for one in explanation.causes if one.name == name)


def test_where_nothing_differs_nothing_is_gained(home: PreparedCohort, away: PreparedCohort) -> None:
    same = explain(home, away)

    assert same.drop == pytest.approx(0, abs=0.02)
    assert {one.name: one.gained for one in same.causes} == dict.fromkeys(CAUSES, 0.0)


def test_an_offset_of_hu_is_named_and_gives_the_whole_drop_back(home: PreparedCohort, away: PreparedCohort) -> None:
    bright = explain(home, changed(away, "bright", hu=lambda _, hu: hu + 300))

    largest = bright.causes[0]
    assert largest.name == "hu"
    assert bright.drop > 0.5
    assert largest.gained == pytest.approx(bright.drop, abs=0.03)
    assert largest.low > 0
    assert largest.share == pytest.approx(1, abs=0.05)
    assert largest.score == pytest.approx(bright.abroad + largest.gained)


def test_lung_masks_that_leave_lesions_out_are_named(home: PreparedCohort, away: PreparedCohort) -> None:
    bare = changed(away, "bare", lung=lambda row, mask: mask & ~away.lesion(row))

    assert explain(home, bare).causes[0].name == "lung_mask"


def test_lesions_drawn_wider_are_named(home: PreparedCohort, away: PreparedCohort) -> None:
    wide = changed(away, "wide", lesion=lambda _, mask: ndimage.binary_dilation(mask, iterations=2))

    found = explain(home, wide, "hu", "pixel_size", "annotation")

    assert found.causes[0].name == "annotation"
    assert found.causes[0].gained == pytest.approx(found.drop, abs=0.1)
    assert "wider" in found.causes[0].found


def test_small_lesions_that_the_model_keeps_silent_about_are_weighted_up_to_the_sources_mix(
    home: PreparedCohort, tmp_path: Path
) -> None:
    away = chests(tmp_path, "small", *(chest(seed, lesion_px=7 if seed % 2 else 9) for seed in range(10, 14)))

    found = explain(home, away, "lesion_sizes", min_pixels=130)

    assert found.home == pytest.approx(1, abs=0.02)
    assert found.abroad == pytest.approx(0.5, abs=0.02)
    assert found.causes[0].gained == pytest.approx(0.5, abs=0.03)


def test_a_few_scans_are_too_few_to_weight_their_sizes(home: PreparedCohort, away: PreparedCohort) -> None:
    found = explain(home, away, "lesion_sizes", convention="per_case").causes[0]

    assert np.isnan(found.gained)
    assert "Fewer than 20 scans" in found.note


def test_slices_too_thick_cost_what_they_cost_at_home(home: PreparedCohort, tmp_path: Path) -> None:
    away = chests(tmp_path, "thick", *(chest(seed, slices=4, slice_mm=25.0) for seed in range(10, 13)))

    found = explain(home, away, "slice_thickness").causes[0]

    # Three of five averaged slices have lesion at both ends of a lesion of six slices: most of the mask, but too thin for the model.
    assert found.gained == pytest.approx(2 / 6, abs=0.02)
    assert "at home" in found.note


def test_noise_that_no_filter_takes_away_is_told_by_what_it_costs_at_home(
    home: PreparedCohort, away: PreparedCohort
) -> None:
    def noisy(row: int, picture: np.ndarray) -> np.ndarray:
        return picture + np.random.default_rng(row).normal(0, 250, picture.shape)

    found = explain(home, changed(away, "noise", hu=noisy), "sharpness").causes[0]

    assert found.gained > 0.05
    assert "taken away here" in found.note
    assert "put in at home" in found.note


def test_what_could_not_be_tried_comes_last_and_says_why(home: PreparedCohort, away: PreparedCohort) -> None:
    window = changed(away, "8 bits", hu=lambda _, hu: np.clip((hu + 1350) * 0.17, 0, 255))

    found = explain(home, window)

    assert found.causes[0].name == "hu"
    assert found.causes[-1].name == "lung_mask"
    assert np.isnan([found.causes[-1].score, found.causes[-1].gained, found.causes[-1].share]).all()
    assert found.causes[-1].note


@pytest.mark.parametrize("convention", ["empty_is_one", "empty_is_nan", "per_case", "pooled"])
def test_every_convention_names_the_same_cause(home: PreparedCohort, away: PreparedCohort, convention: str) -> None:
    bright = changed(away, "bright", hu=lambda _, hu: hu + 300)

    found = explain(home, bright, "hu", "lesion_sizes", convention=convention)

    assert found.convention == convention
    assert found.causes[0].name == "hu"
    assert found.causes[0].gained == pytest.approx(found.drop, abs=0.05)


def test_a_convention_that_is_none_is_refused(home: PreparedCohort, away: PreparedCohort) -> None:
    with pytest.raises(ProtocolError, match="no convention"):
        explain(home, away, "hu", convention="mean")
