"""One patient over time: every planted change is told, and what cannot be compared is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, CohortError
from lungshift.measure.lesions import label_lesions
from lungshift.patient.followup import FollowUp, Noise, affine_of, follow_up
from lungshift.prepare.phantom_dates import CHANGES, PhantomDate

from .conftest import Given


def at(date: PhantomDate, places: tuple[tuple[float, float, float], ...]) -> set[int]:
    labels, geometry = label_lesions(date.case.lesion), date.case.volume.geometry
    index = np.rint(
        (np.array(places).reshape(-1, 3) - geometry.affine[:3, 3]) @ np.linalg.inv(geometry.affine[:3, :3]).T
    )
    return {int(labels[tuple(one)]) for one in index.astype(int)}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_planted_change_is_told_as_what_it_is(follow: FollowUp, dates: tuple[PhantomDate, ...], kind: str) -> None:
    change = next(one for one in dates[1].changes if one.kind == kind)
    before, after = at(dates[0], change.earlier_mm), at(dates[1], change.later_mm)
    (event,) = [
        one
        for one in follow.steps[0].matching.events
        if before <= set(one.before) and after <= set(one.after) and before | after
    ]

    assert event.kind == kind


def test_millilitres_and_percent_are_those_of_each_scan(follow: FollowUp, dates: tuple[PhantomDate, ...]) -> None:
    for found, date in zip(follow.dates, dates, strict=True):
        inside = Mask(date.case.lesion.voxels & date.case.lung.voxels, date.case.lung.geometry).volume_ml
        assert found.lesion_ml == pytest.approx(inside)
        assert found.percent == pytest.approx(100 * inside / date.case.lung.volume_ml)


def test_without_a_model_the_floor_is_the_noise(follow: FollowUp) -> None:
    found = follow.dates[0]

    assert found.noise == Noise(
        pytest.approx(0.25 / 2**0.5 * found.lesion_ml), pytest.approx(0.25 / 2**0.5 * found.percent), "floor"
    )


def test_pictures_show_each_kind_of_change_once_before_any_twice(follow: FollowUp) -> None:
    events = follow.steps[0].matching.events
    shown = [events[look.event].kind for look in follow.steps[0].looks if look.event is not None]

    assert set(shown) == {"new", "gone", "merged", "split", "grown", "shrunk"}
    assert [look.plane for look in follow.steps[0].looks if look.event is None] == ["axial", "coronal"]


def test_a_picture_has_both_dates_on_one_grid_and_the_event_in_it(follow: FollowUp) -> None:
    for look in follow.steps[0].looks:
        assert look.earlier.shape == look.later.shape == look.lung.shape
        assert look.event is None or look.shown.any()


def test_the_linked_camera_lands_within_a_centimetre(follow: FollowUp, dates: tuple[PhantomDate, ...]) -> None:
    matrix = affine_of(follow.steps[0].registration, dates[0].case.lung)
    earlier = dates[0].case.lung.geometry.world_mm(np.argwhere(dates[0].case.lung.voxels)[::101])
    later = dates[1].motion.forward_mm(earlier)
    back = later @ matrix[:3, :3].T + matrix[:3, 3]

    assert np.percentile(np.linalg.norm(back - earlier, axis=1), 95) < 10


def given(dates: tuple[PhantomDate, ...], *days: int) -> list[Given]:
    return [Given(f"day {day}", day, date.case) for day, date in zip(days, dates, strict=True)]


@pytest.mark.parametrize("days", [(7, 0), (3, 3)], ids=["wrong order", "one date twice"])
def test_dates_that_do_not_follow_each_other_are_refused(dates: tuple[PhantomDate, ...], days: tuple[int, int]) -> None:
    with pytest.raises(CohortError, match="oldest first") as error:
        follow_up(given(dates, *days))
    assert error.value.code == "E_DATES"


def test_one_date_is_no_follow_up(dates: tuple[PhantomDate, ...]) -> None:
    with pytest.raises(CohortError, match="two dates or more"):
        follow_up(given(dates[:1], 0))


def test_one_scan_under_two_dates_is_refused_by_its_voxels(dates: tuple[PhantomDate, ...]) -> None:
    with pytest.raises(CohortError, match="voxel by voxel") as error:
        follow_up(given((dates[0], dates[0]), 0, 7))
    assert error.value.code == "E_SAME_SCAN"


def test_a_date_without_lesions_drawn_is_refused(dates: tuple[PhantomDate, ...]) -> None:
    bare = replace(dates[0].case, lesion=None)

    with pytest.raises(AnnotationError, match="no lesion mask") as error:
        follow_up([Given("day 0", 0, bare), Given("day 7", 7, dates[1].case)])
    assert error.value.code == "E_NO_LESION"
