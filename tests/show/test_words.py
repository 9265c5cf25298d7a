import pytest

from lungshift.show import words


def test_the_price_of_the_leak_is_named_only_where_ours_does_not_leak(outcome_of):
    assert len(words.comparison_notes(outcome_of())) == len(words.comparison_notes(outcome_of(leaky=True))) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.listed([]), ""),
        (words.listed([1]), "1"),
        (words.listed([1, 2]), "1 and 2"),
        (words.listed([1, 2, 4], "or"), "1, 2 or 4"),
        (words.plural(1, "patient"), "1 patient"),
        (words.plural(0, "patient"), "0 patients"),
    ],
)
def test_things_are_counted_and_listed_as_people_do(text, expected):
    assert text == expected


def test_pairs_of_one_patient_are_counted(rich):
    assert words.twins_line(rich).startswith("1 pair of scans among 19 cases")


def test_twins_of_a_split_by_slice_are_not_said_to_be_kept_together(rich):
    from dataclasses import replace

    split = replace(rich.splits[0], leaky=True)

    assert "stand on both sides of this split by slice" in words.twins_line(replace(rich, splits=(split,)))
