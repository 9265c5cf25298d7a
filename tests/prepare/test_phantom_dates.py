"""Phantom patients on several dates: a known deformation, and changes that are planted and written down."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.errors import ProtocolError
from lungshift.measure.lesions import label_lesions
from lungshift.prepare import phantom_dates as phantom_dates_module
from lungshift.prepare.phantom_dates import CHANGES, PhantomDate, PlantedChange, phantom_dates
from lungshift.prepare.phantom_motion import STILL, Breathing, draw_motion, move_mask, move_volume
from lungshift.prepare.phantom_site import Site

SITE = Site(slice_mm=5.0, pixel_mm=2.5, size=136)
LOW, HIGH = np.array([-120.0, -90.0, 0.0]), np.array([120.0, 90.0, 250.0])


@pytest.fixture(scope="module")
def dates() -> tuple[PhantomDate, ...]:
    return phantom_dates(5, 0, SITE, [CHANGES], breathing=STILL)


def labels_at(date: PhantomDate, places: tuple[tuple[float, float, float], ...]) -> set[int]:
    """Which lesions of a date lie at those places."""
    labels, geometry = label_lesions(date.case.lesion), date.case.volume.geometry
    index = np.rint(
        (np.array(places).reshape(-1, 3) - geometry.affine[:3, 3]) @ np.linalg.inv(geometry.affine[:3, :3]).T
    ).astype(int)
    return {int(labels[tuple(one)]) for one in index}


def planted(dates: tuple[PhantomDate, ...], kind: str) -> PlantedChange:
    return next(change for change in dates[1].changes if change.kind == kind)


def test_a_motion_and_its_inverse_cancel() -> None:
    motion = draw_motion(np.random.default_rng(1), Breathing(), LOW, HIGH)
    points = np.random.default_rng(2).uniform(LOW, HIGH, (200, 3))

    assert np.abs(motion.back_mm(motion.forward_mm(points)) - points).max() < 2e-3


@pytest.mark.parametrize("seed", range(8))
def test_no_motion_folds(seed: int) -> None:
    motion = draw_motion(np.random.default_rng(seed), Breathing(), LOW, HIGH)
    points = np.random.default_rng(0).uniform(LOW - 20, HIGH + 20, (500, 3))
    steps = [(motion.back_mm(points + 0.1 * one) - motion.back_mm(points - 0.1 * one)) / 0.2 for one in np.eye(3)]

    assert np.linalg.det(np.stack(steps, axis=-1)).min() > 0.3


def test_a_patient_who_lies_still_has_the_same_scan() -> None:
    geometry = Geometry.regular((4, 12, 12), (5.0, 2.0, 2.0), (-10.0, -10.0, 0.0))
    motion = draw_motion(np.random.default_rng(1), STILL, LOW, HIGH)
    hu = np.random.default_rng(3).integers(-1000, 100, geometry.shape).astype(np.int16)

    assert np.abs(move_volume(hu, geometry, motion).astype(int) - hu).max() <= 1
    np.testing.assert_array_equal(move_mask(hu > -500, geometry, motion), hu > -500)


def test_what_is_moved_lies_where_the_motion_says() -> None:
    geometry = Geometry.regular((20, 40, 40), (5.0, 5.0, 5.0), (-100.0, -100.0, 100.0))
    motion = draw_motion(np.random.default_rng(4), Breathing(local_mm=0), LOW, HIGH)
    ball = (
        np.linalg.norm(geometry.world_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) - (10, 20, 150), axis=-1) < 20
    )
    moved = geometry.world_mm(np.argwhere(move_mask(ball, geometry, motion))).mean(axis=0)

    assert moved == pytest.approx(motion.forward_mm(np.array([10.0, 20.0, 150.0])), abs=1.0)


def test_the_second_date_has_every_planted_change(dates: tuple[PhantomDate, ...]) -> None:
    assert [change.kind for change in dates[1].changes] == list(CHANGES)
    assert (dates[0].day, dates[1].day, dates[0].changes) == (0, 7, ())


@pytest.mark.parametrize("kind", CHANGES)
def test_a_planted_lesion_is_there_where_it_should_be_and_only_then(dates: tuple[PhantomDate, ...], kind: str) -> None:
    change = planted(dates, kind)
    earlier, later = labels_at(dates[0], change.earlier_mm), labels_at(dates[1], change.later_mm)
    count = {"new": (0, 1), "gone": (1, 0), "merged": (2, 1), "split": (1, 2)}.get(kind, (1, 1))

    assert (len(earlier), len(later)) == count
    assert 0 not in earlier | later


@pytest.mark.parametrize(("kind", "least", "most"), [("grown", 1.3, 4.0), ("shrunk", 0.2, 0.77), ("stable", 1.0, 1.0)])
def test_a_planted_lesion_changes_its_volume(
    dates: tuple[PhantomDate, ...], kind: str, least: float, most: float
) -> None:
    change = planted(dates, kind)
    before, after = (
        int(np.isin(label_lesions(date.case.lesion), list(labels_at(date, places))).sum())
        for date, places in ((dates[0], change.earlier_mm), (dates[1], change.later_mm))
    )

    assert least <= after / before <= most


def test_the_same_arguments_make_the_same_dates(dates: tuple[PhantomDate, ...]) -> None:
    again = phantom_dates(5, 0, SITE, [CHANGES], breathing=STILL)

    np.testing.assert_array_equal(again[1].case.volume.hu, dates[1].case.volume.hu)
    assert not np.array_equal(dates[0].case.volume.hu, dates[1].case.volume.hu)


@pytest.mark.parametrize(
    ("site", "plans", "words"),
    [(SITE, [], "later ones"), (Site(flip="up_down"), [["new"]], "flips"), (SITE, [["new"] * 400], "no room")],
)
def test_what_cannot_be_planted_is_refused(
    site: Site, plans: list, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom_dates_module, "_TRIES", 50)
    with pytest.raises(ProtocolError, match=words):
        phantom_dates(0, 0, site, plans)


def test_a_negative_amplitude_is_refused() -> None:
    with pytest.raises(ProtocolError, match="at least 0"):
        Breathing(shift_mm=-1)
