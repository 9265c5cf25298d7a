"""Why it dropped, in sentences."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from lungshift.show.drop import OVERLAP, advice, sentences
from lungshift.transfer.outcome import Cause, CauseName, Explanation

NAN = math.nan
HU = Cause("hu", "lung at −850 HU at home, −650 here", 0.78, 0.18, 0.14, 0.22, 0.9)
NOISE = Cause("sharpness", "noise is 10 HU at home, 90 here", 0.64, 0.04, -0.01, 0.09, 0.2, "No filter helps.")
SAME = Cause("pixel_size", "a pixel is 2 mm in both", 0.6, 0.0, 0.0, 0.0, 0.0)
UNTRIED = Cause("lung_mask", "not compared", NAN, NAN, NAN, NAN, NAN, "A threshold finds no lungs.")


def explained(*causes: Cause, drop: float = 0.2, low: float = 0.1, high: float = 0.3) -> Explanation:
    return Explanation("lesion_slices", 0.8, 0.8 - drop, drop, low, high, causes)


def test_the_largest_cause_is_named_with_its_interval_its_share_and_what_to_do() -> None:
    told = sentences(explained(HU, SAME))

    assert told[0] == (
        "Of the drop of 0.200 (0.100–0.300), the largest part found is CT values: 0.180 (0.140–0.220), 90 % of it."
    )
    assert told[1].startswith(
        "CT values, +0.180 (0.140–0.220): lung at −850 HU at home, −650 here. Correct the HU calibration"
    )
    assert told[-1] == OVERLAP


def test_what_may_be_chance_what_is_alike_and_what_was_not_tried_is_told_apart() -> None:
    told = " ".join(sentences(explained(HU, NOISE, SAME, UNTRIED)))

    assert "beyond chance: sharpness (+0.040, −0.010–0.090)" in told
    assert "No difference to remove in pixel size." in told
    assert "Not tried: lung masks. A threshold finds no lungs." in told


def test_where_nothing_explains_the_drop_labels_are_what_is_left() -> None:
    told = sentences(explained(NOISE, SAME), scans=4)

    assert told[0].startswith("Nothing that was looked for explains the drop of 0.200")
    assert "label about 4 scans of the target and retrain" in told[0]
    assert OVERLAP not in told


@pytest.mark.parametrize(
    ("explanation", "start"),
    [
        (explained(SAME, drop=-0.1), "There is no drop to explain: the source model scores 0.900 on the target"),
        (explained(SAME, low=-0.05), "The drop of 0.200 (−0.050–0.300) may be chance"),
        (explained(UNTRIED, drop=NAN, low=NAN, high=NAN), "There is nothing to explain"),
    ],
    ids=["gain", "chance", "nothing scored"],
)
def test_without_a_sure_drop_none_is_explained(explanation: Explanation, start: str) -> None:
    assert sentences(explanation)[0].startswith(start)


def test_a_cause_is_still_told_where_the_drop_itself_is_not_sure() -> None:
    told = sentences(explained(HU, low=-0.05))[0]

    assert "may be chance" in told
    assert "Still, the largest part found is CT values" in told
    assert "% of it" not in told


def test_every_cause_has_an_advice() -> None:
    for name in get_args(CauseName):
        said = advice(Cause(name, "", 0.7, 0.1, 0.05, 0.15, 0.5), scans=3)
        assert said.endswith(".")
        assert "{" not in said


def test_labels_are_counted_where_the_learning_curve_knows() -> None:
    cause = Cause("lesion_sizes", "", 0.7, 0.1, 0.05, 0.15, 0.5)

    assert "label about 3 scans" in advice(cause, 3)
    assert "label more scans" in advice(cause)


def test_eight_bits_need_their_originals() -> None:
    assert "originals" in advice(Cause("hu", "an 8-bit picture and not HU", 0.7, 0.1, 0.05, 0.15, 0.5))
