"""What the terminal says of a published row, and that the page shows what is really printed."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from lungshift.measure.forensics import CANDIDATES, Published, examine
from lungshift.show.forensics import CANDIDATE_SHORT, describe

CT_1_9 = Published("0.751451", "0.833533", "0.783245", "0.997375", slices=214, lesion_slices=123)
PAGE = Path(__file__).parents[2] / "docs" / "forensics.md"
EXAMPLES = re.findall(r"^```\n\$ lungshift forensics (.*?)\n(.*?)^```", PAGE.read_text(), flags=re.S | re.M)


def told(published: Published) -> str:
    return describe(examine(published))


def headline(published: Published) -> str:
    return " ".join(told(published).split("\n\n")[0].split())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param(
            CT_1_9,
            "Possible: lesion_slices, empty_is_one, empty_is_nan, per_case. Impossible: empty_is_zero, pooled.",
            id="the paper",
        ),
        pytest.param(
            Published("0.751451", "0.833533", "0.790367", slices=214, lesion_slices=123),
            "This looks pooled, or like an F1 computed from mean precision and recall. Possible: pooled. Only just possible: "
            "lesion_slices, empty_is_nan, per_case. Impossible: empty_is_one, empty_is_zero.",
            id="a pooled row",
        ),
        pytest.param(
            Published("0.7515", "0.8335", "0.3952"),
            "F1 looks like PR/(P + R), without its factor 2. No way of averaging known here gives this row.",
            id="equation 5",
        ),
        pytest.param(
            Published("0.5", "0.5", "0.9"),
            "No way of averaging known here gives this row; look for a typing error.",
            id="nothing fits",
        ),
        pytest.param(
            Published("0.7515", "0.8335", "0.7700"),
            "Possible: lesion_slices, empty_is_nan, per_case. Not settled, too little is given: empty_is_one, empty_is_zero. "
            "Impossible: pooled.",
            id="no counts",
        ),
    ],
)  # fmt: skip
def test_the_headline_says_what_remains_possible(row: Published, says: str) -> None:
    assert headline(row) == says


def test_every_way_is_named_with_its_standing_and_the_reason_below() -> None:
    text = told(CT_1_9)

    for verdict in examine(CT_1_9):
        assert (f"{verdict.convention}: {CANDIDATE_SHORT[verdict.convention]}" in text) is (
            verdict.convention != "misprint"
        )
    assert "impossible  pooled: all voxels pooled\n            Pooled counts force F1" in text
    assert text.endswith("Arithmetic can exclude a way of averaging; it cannot prove one.")
    assert max(map(len, text.splitlines())) <= 100


def test_ways_with_one_reason_share_it() -> None:
    text = told(Published("0.5", "0.5", "0.9"))

    assert text.count("Averaged over slices") == 1
    assert text.count("impossible  ") == 6


def test_the_misprint_is_told_only_where_it_shows() -> None:
    assert "misprint" not in told(CT_1_9)
    assert "misprint" not in told(Published(f1="0.4"))
    assert "misprint: F1 without its factor 2" in told(Published("0.7515", "0.8335", "0.3952"))


def test_every_candidate_has_words() -> None:
    assert set(CANDIDATE_SHORT) == set(CANDIDATES)


@pytest.mark.parametrize(("options", "output"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_page_shows_what_is_printed(options: str, output: str) -> None:
    words = shlex.split(options)
    given = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)
    }
    counts = {field.name for field in fields(Published) if str(field.type).startswith("int")}

    assert (
        told(Published(**{name: int(value) if name in counts else value for name, value in given.items()}))
        == output.rstrip()
    )


def test_the_page_has_the_papers_three_rows() -> None:
    assert [re.findall(r"--slices (\d+)", options) for options, _ in EXAMPLES[:3]] == [["214"], ["2156"], ["1656"]]
