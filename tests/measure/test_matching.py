"""Lesions matched across two dates, on worlds small enough to count by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.measure.matching import (
    FLOOR,
    Change,
    Event,
    Lesions,
    Matching,
    change_of,
    match_lesions,
    volume_noise,
)

SHAPE, SPACING = (6, 20, 40), (2.0, 1.0, 1.0)
VOXEL_ML = 0.1
"""Volumes made large, so that a block of a few voxels is a lesion worth following."""

Block = tuple[slice, slice, slice]


def block(row: int, column: int, size: int = 4) -> Block:
    return slice(1, 4), slice(row, row + size), slice(column, column + size)


def labelled(*lesions: Sequence[Block]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for number, blocks in enumerate(lesions, 1):
        for one in blocks:
            labels[one] = number
    return labels


def known(labels: np.ndarray, expansion: float = 1.0) -> Lesions:
    ml = np.bincount(labels.ravel())[1:] * VOXEL_ML
    return Lesions(ml, np.array([volume_noise(float(one), SPACING) for one in ml]), np.full(len(ml), expansion))


def match(before: np.ndarray, after: np.ndarray, *, expansion: float = 1.0, least_ml: float = 0.1) -> Matching:
    return match_lesions(before, after, SPACING, (known(before, expansion), known(after)), least_ml=least_ml)


def told(matching: Matching) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [(event.kind, event.before, event.after) for event in matching.events]


A, B, FAR = block(2, 2), block(2, 9), block(12, 30)
BRIDGE = block(2, 5)

EVENTS = [
    pytest.param([], [[A]], [("new", (), (1,))], id="new"),
    pytest.param([[A]], [], [("gone", (1,), ())], id="gone"),
    pytest.param([[A]], [[A]], [("stable", (1,), (1,))], id="stable"),
    pytest.param([[A]], [[block(1, 1, 6)]], [("grown", (1,), (1,))], id="grown"),
    pytest.param([[block(1, 1, 6)]], [[A]], [("shrunk", (1,), (1,))], id="shrunk"),
    pytest.param([[A], [B]], [[A, BRIDGE, B]], [("merged", (1, 2), (1,))], id="merged"),
    pytest.param([[A, BRIDGE, B]], [[A], [B]], [("split", (1,), (1, 2))], id="split"),
    pytest.param(
        [[A, BRIDGE, block(2, 7)], [FAR]],
        [[block(2, 1, 3)], [block(2, 6), FAR]],
        [("regrouped", (1, 2), (2, 1))],
        id="merged and split at once",
    ),
    pytest.param([[A], [FAR]], [[A], [FAR]], [("stable", (1,), (1,)), ("stable", (2,), (2,))], id="two apart"),
    pytest.param([[A]], [[FAR]], [("gone", (1,), ()), ("new", (), (1,))], id="elsewhere is another lesion"),
    pytest.param([[A]], [[block(2, 8)]], [("stable", (1,), (1,))], id="3 mm off is registration"),
    pytest.param([[A]], [[block(2, 11)]], [("gone", (1,), ()), ("new", (), (1,))], id="6 mm off is not"),
    pytest.param([], [], [], id="nothing"),
]


@pytest.mark.parametrize(("before", "after", "expected"), EVENTS)
def test_what_happened_to_a_lesion_is_told(before: list, after: list, expected: list) -> None:
    assert sorted(told(match(labelled(*before), labelled(*after)))) == sorted(expected)


def test_a_neighbour_within_tolerance_that_has_its_own_match_takes_no_other() -> None:
    """The second lesion goes; the first, 3 mm away, stays and swallows nothing."""
    before, after = labelled([A], [B]), labelled([A])

    assert sorted(told(match(before, after))) == [("gone", (2,), ()), ("stable", (1,), (1,))]


def test_a_touch_by_less_than_a_quarter_of_the_smaller_is_no_merger() -> None:
    before = labelled([block(2, 2)], [block(2, 6)])
    after = labelled([block(2, 2), (slice(1, 4), slice(2, 3), slice(6, 8))], [(slice(1, 4), slice(3, 6), slice(6, 10))])

    assert sorted((event.before, event.after) for event in match(before, after).events) == [((1,), (1,)), ((2,), (2,))]


def test_a_crumb_beside_a_lesion_does_not_make_a_split() -> None:
    crumb = (slice(1, 2), slice(2, 3), slice(8, 9))
    before = labelled([A, (slice(1, 4), slice(2, 6), slice(6, 10))])
    after = labelled([A], [crumb])
    (event,) = match(before, after, least_ml=0.2).events

    assert (event.kind, event.before, event.after) == ("shrunk", (1,), (1, 2))


def test_specks_are_counted_and_not_judged() -> None:
    speck = (slice(1, 2), slice(2, 3), slice(2, 3))
    matching = match(labelled([speck]), labelled([FAR]), least_ml=0.2)

    assert told(matching) == [("new", (), (1,))]
    assert (matching.specks, matching.specks_ml) == (1, pytest.approx((0.1, 0.0)))


def test_a_lesion_too_small_for_the_common_grid_is_still_told() -> None:
    """It has a volume on its own scan and no voxel here: it is new, not lost."""
    nothing = labelled()
    later = Lesions(np.array([0.5]), np.array([0.1]), np.ones(1))

    assert told(match_lesions(nothing, nothing, SPACING, (known(nothing), later))) == [("new", (), (1,))]


def test_growth_that_is_only_the_lung_breathing_in_is_not_growth() -> None:
    before, after = labelled([block(2, 2, 6)]), labelled([block(2, 2, 7)])
    plain, breathed = (match(before, after, expansion=one).events[0] for one in (1.0, 49 / 36))

    assert (plain.kind, breathed.kind) == ("grown", "stable")


def test_a_shrinking_lesion_in_an_expanding_lung_shrinks_all_the_more() -> None:
    (event,) = match(labelled([block(2, 2, 7)]), labelled([block(2, 2, 5)]), expansion=1.3).events

    assert event.kind == "shrunk"


@pytest.mark.parametrize(
    ("after", "trend"), [(10.0, "stable"), (12.4, "stable"), (14.0, "grown"), (7.0, "shrunk"), (0.0, "gone")]
)
def test_a_change_is_called_one_only_beyond_noise(after: float, trend: str) -> None:
    half = FLOOR / np.sqrt(2)

    assert change_of(10.0, after, (10 * half, after * half)).trend == trend


def test_the_interval_of_a_change_is_that_of_two_noises() -> None:
    change = change_of(10.0, 16.0, (3.0, 4.0))

    assert (change.change, change.low, change.high, change.percent) == (6.0, 1.0, 11.0, 60.0)


def test_from_nothing_there_is_no_percent() -> None:
    assert np.isnan(Change(0.0, 1.0, 0.0, 2.0, 0.0).percent)


def test_noise_of_a_large_lesion_is_the_floor() -> None:
    assert volume_noise(50.0, (1.0, 1.0, 1.0)) == pytest.approx(50 * FLOOR / np.sqrt(2))


def test_a_noisier_model_widens_the_noise_of_each_lesion() -> None:
    assert volume_noise(50.0, (1.0, 1.0, 1.0), relative=0.5) == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("radius", "spacing"),
    [(4.0, (3.0, 1.8, 1.8)), (3.0, (2.0, 2.0, 2.0)), (5.0, (7.0, 2.2, 2.2)), (4.0, (7.0, 3.0, 3.0))],
)
def test_a_small_ball_laid_anywhere_on_the_grid_keeps_to_its_limits(radius: float, spacing: tuple) -> None:
    rng = np.random.default_rng(0)
    reach = [int(np.ceil(radius / mm)) + 1 for mm in spacing]
    steps = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1)
    counts = [
        int((np.linalg.norm((steps + rng.uniform(-0.5, 0.5, 3)) * spacing, axis=-1) < radius).sum()) for _ in range(400)
    ]
    volumes = np.array(counts) * np.prod(spacing) / 1000
    ball = 4 / 3 * np.pi * radius**3 / 1000
    half = volume_noise(ball, spacing)

    assert np.mean(np.abs(volumes - ball) <= half) >= 0.93
    assert half < 6 * volumes.std()


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    blocks = draw(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 34), st.integers(1, 6)), max_size=5))
    from lungshift.ct.geometry import Geometry
    from lungshift.ct.volume import Mask
    from lungshift.measure.lesions import label_lesions

    voxels = np.zeros(SHAPE, bool)
    for row, column, size in blocks:
        voxels[block(row, column, size)] = True
    return label_lesions(Mask(voxels, Geometry.regular(SHAPE, SPACING)))


@given(masks(), masks())
def test_every_lesion_is_in_exactly_one_event(before: np.ndarray, after: np.ndarray) -> None:
    matching = match(before, after, least_ml=0.0)

    for labels, side in ((before, "before"), (after, "after")):
        numbers = [number for event in matching.events for number in getattr(event, side)]
        assert sorted(numbers) == list(range(1, labels.max() + 1))


@given(masks(), masks())
def test_turned_round_in_time_every_event_is_its_opposite(before: np.ndarray, after: np.ndarray) -> None:
    opposite = {
        "new": "gone",
        "gone": "new",
        "grown": "shrunk",
        "shrunk": "grown",
        "merged": "split",
        "split": "merged",
    }

    def turned(event: Event) -> tuple:
        return (opposite.get(event.kind, event.kind), tuple(sorted(event.after)), tuple(sorted(event.before)))

    there, back = match(before, after), match(after, before)
    same = sorted((event.kind, tuple(sorted(event.before)), tuple(sorted(event.after))) for event in there.events)
    assert sorted(map(turned, back.events)) == same


@given(masks())
def test_nothing_that_stays_as_it_was_has_changed(labels: np.ndarray) -> None:
    assert {event.kind for event in match(labels, labels).events} <= {"stable"}
