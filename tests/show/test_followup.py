"""The page of a follow-up: what it answers, what it admits, and that it needs nothing from elsewhere."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.measure.burden import Burden, Extent
from lungshift.measure.lesions import Lesion
from lungshift.measure.matching import Event, Matching, change_of
from lungshift.measure.regions import REGIONS
from lungshift.patient.followup import DateFound, FollowUp, Look, Noise, Step
from lungshift.patient.registration import Quality, Registration
from lungshift.show import followup as page
from lungshift.show.followup import Told
from worlds import tiny_case

GRID = Geometry.regular((4, 6, 6), (3.0, 3.0, 3.0))
QUALITY = Quality(0.7, 0.93, 0.98, 0.6, 3.0, 0.7, 1.3, 1.05, 1.06, 14.0, 0.8)


def lesion(number: int, ml: float) -> Lesion:
    box = (slice(0, 1), slice(0, 1), slice(0, 1))
    return Lesion(number, int(ml * 10), ml, (0.0, 0.0, 0.0), (2 * number, 1, 1), box, -500.0)


def date(day: int, *volumes: float, lung: float = 3000.0, source: str = "floor") -> DateFound:
    total = sum(volumes)
    extent = Extent(lung, total, 100 * total / lung, total, 0.0, 0.0, -500.0, 1.0)
    burden = Burden(dict.fromkeys(REGIONS, extent), 0.0, tuple(lesion(n, ml) for n, ml in enumerate(volumes, 1)), 4.0)
    noise = Noise(0.18 * total, 0.18 * extent.percent, source)
    return DateFound(f"day {day}", day, burden, noise, "reader", (3.0, 1.0, 1.0), ("right upper",) * len(volumes))


def look(event: int | None, plane: str = "axial") -> Look:
    rng = np.random.default_rng(3)
    hu = rng.integers(-1000, 100, (2, 40, 50)).astype(np.int16)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:25] = True
    return Look(event, plane, 5, (1.0, 1.0), hu[0], hu[1], mask, mask, mask, mask & (event is not None))


def make(one: DateFound, other: DateFound, *events: Event, specks: int = 0) -> FollowUp:
    ml = change_of(one.lesion_ml, other.lesion_ml, (one.noise.lesion_ml, other.noise.lesion_ml))
    percent = change_of(one.percent, other.percent, (one.noise.percent, other.noise.percent))
    field = np.zeros((*GRID.shape, 3), np.float32)
    registration = Registration(GRID, GRID, GRID, field, np.ones(GRID.shape, np.float32), QUALITY)
    looks = (*(look(n) for n in range(len(events))), look(None), look(None, "coronal"))
    step = Step(0, 1, ml, percent, Matching(events, specks, (0.05, 0.02)), registration, np.eye(4), looks)
    return FollowUp((one, other), (step,), ml, percent, 4.0, 0.1)


def event(kind: str, before: tuple[int, ...], after: tuple[int, ...], ml: tuple[float, float]) -> Event:
    return Event(kind, before, after, change_of(*ml, (0.18 * ml[0], 0.18 * ml[1])), 0.0)  # type: ignore[arg-type]


@pytest.fixture
def grown() -> FollowUp:
    events = (event("grown", (1,), (1,), (10.0, 20.0)), event("new", (), (2,), (0.0, 5.0)))
    return make(date(0, 10.0), date(7, 20.0, 5.0), *events, specks=2)


@pytest.fixture
def written(grown: FollowUp, tmp_path: Path) -> Path:
    page.write_follow_up(grown, tmp_path, Told("1.2", (("day 0", {"scan": ("ab" * 32,)}),), ("f" * 64,)))
    return tmp_path


def test_growth_beyond_noise_is_said_first(grown: FollowUp) -> None:
    assert page.answer(grown).startswith(
        "From day 0 to day 7 there is more lesion, beyond noise: 10.0 ml, then 25.0 ml"
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((10.0,), (10.5,), "did not change beyond noise"),
        ((20.0,), (8.0,), "less lesion, beyond noise"),
        ((), (8.0,), "lesion appeared"),
        ((8.0,), (), "all lesion went"),
        ((), (), "no lesion in the lungs on either date"),
    ],
)
def test_the_answer_says_changed_only_beyond_noise(before: tuple, after: tuple, words: str) -> None:
    assert words in page.answer(make(date(0, *before), date(7, *after)))


def test_more_millilitres_in_a_larger_lung_are_told_apart_from_more_lesion() -> None:
    told = page.answer(make(date(0, 10.0, lung=2000.0), date(7, 15.0, lung=3000.0)))

    assert "in millilitres, though not as percent of the lung" in told


def test_millilitres_up_and_percent_down_is_the_lung_not_the_lesion() -> None:
    told = page.answer(make(date(0, 10.0, lung=2000.0), date(7, 15.0, lung=6000.0)))

    assert "that is the lung, not the lesion" in told


def test_events_are_counted_in_words(grown: FollowUp) -> None:
    assert page.events_sentence(grown) == "Lesions, day 0 to day 7: 1 new and 1 grown."


def test_without_a_model_the_page_says_that_noise_was_not_measured(grown: FollowUp) -> None:
    assert "not from a measurement" in page.noise_words(grown)
    modelled = replace(
        grown, dates=tuple(replace(one, noise=replace(one.noise, source="model")) for one in grown.dates)
    )
    assert "the model's own repeatability" in page.noise_words(modelled)


def test_what_makes_dates_hard_to_compare_is_said(grown: FollowUp) -> None:
    first, last = grown.dates
    odd = replace(grown, dates=(replace(first, lung_source="threshold", spacing_mm=(7.0, 1.0, 1.0)), last))
    told = " ".join(page.notes(odd))

    assert "by threshold" in told
    assert "not made in one way" in told
    assert "7.0 mm and 3.0 mm apart" in told
    assert page.notes(grown) == []


def test_a_likeness_that_could_not_be_measured_is_said(grown: FollowUp) -> None:
    (step,) = grown.steps
    unknown = replace(step.registration, quality=replace(QUALITY, likeness=float("nan")))
    odd = replace(grown, steps=(replace(step, registration=unknown),))

    assert "was not checked by content" in page.notes(odd)[0]
    assert "not enough lung free of lesion" in page.render_page(odd, page.draw_all(odd), Told())


def test_the_page_stands_alone(written: Path) -> None:
    html = (written / "followup.html").read_text()

    assert "default-src 'none'" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:|#|viewer\.html)", html)
    assert "<script" not in html
    assert html.count("Research use only") >= 2


def test_the_page_has_every_event_picture_and_check(written: Path) -> None:
    html = (written / "followup.html").read_text()

    assert html.count('src="data:image/webp') == 3
    assert html.count('src="data:image/svg+xml') == 1
    for words in ("grown", "from 0", "2 groups", "right upper", "3 → 3", "at least 0.90", "0.70 to 1.30"):
        assert words in html
    assert {file.name for file in (written / "figures").iterdir()} == {
        "timeline.png",
        "step-1-event-01-grown.png",
        "step-1-event-02-new.png",
        "step-1-registration.png",
    }


def test_numbers_are_written_as_csv_and_json_too(written: Path) -> None:
    told = json.loads((written / "followup.json").read_text())
    dates = list(csv.DictReader((written / "dates.csv").read_text().splitlines()))
    lesions = list(csv.DictReader((written / "lesions.csv").read_text().splitlines()))

    assert told["trend"] == "grown"
    assert told["change"]["lesion_ml"]["change"] == 15.0
    assert told["steps"][0]["registration"]["dice"] == 0.98
    assert told["inputs"] == [{"date": "day 0", "sha256": {"scan": ["ab" * 32]}}]
    assert [(row["date"], float(row["lesion_ml"])) for row in dates] == [("day 0", 10.0), ("day 7", 25.0)]
    assert [(row["event"], row["lesions_before"], row["lesions_after"]) for row in lesions] == [
        ("grown", "1", "1"),
        ("new", "", "2"),
    ]


def test_a_follow_up_without_any_lesion_has_a_page_too(tmp_path: Path) -> None:
    empty = make(date(0), date(7))

    assert "no lesion in the lungs" in page.write_follow_up(empty, tmp_path, Told())
    assert "There is no lesion to follow" in (tmp_path / "followup.html").read_text()
    assert (tmp_path / "lesions.csv").read_text() == ""


def test_the_terminal_text_fits_its_width(grown: FollowUp) -> None:
    assert max(map(len, page.summary(grown).splitlines())) <= 100


def test_the_viewer_is_linked_only_where_it_lies_beside(grown: FollowUp) -> None:
    drawings = page.draw_all(grown)

    assert 'href="viewer.html"' in page.render_page(grown, drawings, Told(viewer=True))
    assert "No 3-D view: no VTK." in page.render_page(grown, drawings, Told(viewer_note="no VTK."))


def test_the_viewer_says_of_each_lesion_what_became_of_it(grown: FollowUp) -> None:
    assert page.lesion_notes(grown, 0) == {1: "grown by day 7"}
    assert page.lesion_notes(grown, 1) == {1: "grown since day 0", 2: "new since day 0"}


def test_the_viewer_is_given_every_date_in_the_space_of_the_first(
    grown: FollowUp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list = []
    monkeypatch.setattr("lungshift.show.viewer.write_viewer", lambda path, dates: given.extend(dates) or path)
    (step,) = grown.steps
    shift = np.eye(4)
    shift[2, 3] = 7.0
    moved = replace(grown, steps=(replace(step, to_earlier=shift),))
    case = tiny_case()
    page.write_dates_viewer(moved, [(case, False), (case, True)], tmp_path / "viewer.html")

    assert [one.label for one in given] == ["day 0", "day 7"]
    assert [one.to_first[2, 3] for one in given] == [0.0, 7.0]
    assert [list(one.masks) for one in given] == [["reference"], ["prediction"]]


def test_a_checkerboard_takes_squares_in_turn() -> None:
    board = page.checkerboard(np.zeros((16, 16)), np.ones((16, 16)))

    assert board.mean() == 0.5
    np.testing.assert_array_equal(board[:3, :4], [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234, "+1.23"), (-12.34, "−12.3"), (0.0, "0.00"), (-0.001, "0.00"), (float("nan"), "undefined")],
)
def test_a_change_has_its_sign_and_as_many_digits_as_are_worth_reading(value: float, text: str) -> None:
    assert page.signed(value) == text


def test_the_same_follow_up_gives_the_same_pictures(grown: FollowUp) -> None:
    one, other = (page.draw_all(grown) for _ in range(2))

    assert [drawing.png for drawing in one] == [drawing.png for drawing in other]
