"""Pictures of a finding: the right slice, its neighbours, the lungs in 3-D, and the place that is meant."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest

from lungshift.audit.finding import Finding
from lungshift.audit.judged import Judged
from lungshift.audit.suspects import Opinion, find_suspects
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A
from lungshift.prepare.prepared import PreparedCase
from lungshift.show.shots import Seen, Shot, seen_without_networks, shots_of

SIZE = 48
OUTSIDE = (slice(4, 6), slice(1, 4), slice(40, 44))


def seen(first: int = 0) -> Seen:
    """Two lungs; a lesion is marked in the right one, another before the left one, and networks see one more in the left."""
    lung = np.zeros((10, SIZE, SIZE), bool)
    lung[:, 8:40, 4:20] = lung[:, 8:40, 28:44] = True
    marked, found = np.zeros(lung.shape, bool), np.zeros(lung.shape, bool)
    marked[3:7, 14:22, 8:16] = marked[OUTSIDE] = True
    found[3:7, 14:22, 8:16] = found[2:8, 20:30, 32:42] = True
    hu = np.where(lung, np.where(found, -300, -850), 30).astype(np.int16)
    sure = np.where(found, 0.9, 0.0).astype(np.float32)
    opinion = Opinion(marked, sure, found.astype(np.float32), sure * 0, hu, lung, (5.0, 2.0, 2.0))
    return Seen(opinion, first, SliceGrid(SIZE, SIZE, SIZE))


def missing() -> tuple[Finding, Judged]:
    """What networks see in the left lung."""
    case = PreparedCase("c", "p", 10, SIZE, SIZE, (5.0, 2.0, 2.0), "reader")
    one = next(one for one in find_suspects(seen().opinion) if one.kind == "missing-lesion")
    judged = Judged("x", case, one, 0.9, SIZE)
    return judged.finding(), judged


def finding(code: str, seat: tuple[int, int, int]) -> Finding:
    return Finding(code, "c", "error", "why", "what", "x", slices=(seat[0],), voxels=9, seat=seat)


def pixels(shot: Shot) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot.uri.partition(",")[2]))), dtype=int)


def red(picture: np.ndarray) -> np.ndarray:
    """Rows and columns of what is red, not orange as networks are."""
    first, second, third = np.moveaxis(picture, -1, 0)
    return np.argwhere((first - np.maximum(second, third) > 50) & (np.abs(second - third) < 40))


def test_a_finding_has_its_slice_twice_those_beside_it_and_the_lungs_in_3d() -> None:
    captions = [one.caption for one in shots_of(seen(), *missing())]

    assert captions[:4] == ["slice, lung window", "with label and networks", "one slice lower", "one slice higher"]
    assert captions[4].startswith("in 3-D: ")


@pytest.mark.parametrize(("at", "beside"), [(0, ["one slice higher"]), (9, ["one slice lower"])])
def test_the_first_and_the_last_slice_have_one_neighbour(at: int, beside: list[str]) -> None:
    shots = shots_of(seen(), finding("gap", (at, 20, 10)))

    assert [one.caption for one in shots[2:-1]] == beside


def test_the_finding_is_tinted_on_the_patients_left_which_is_right_in_the_picture() -> None:
    plain, marked = (pixels(one) for one in shots_of(seen(), *missing())[:2])
    redder = (marked[..., 0] - marked[..., 2]) - (plain[..., 0] - plain[..., 2]) > 40

    assert redder[:, redder.shape[1] // 2 :].sum() > 10 * max(1, redder[:, : redder.shape[1] // 2].sum())


def test_in_3d_it_is_red_on_the_patients_left_and_words_say_so() -> None:
    shot = shots_of(seen(), *missing())[-1]
    view = pixels(shot)

    assert red(view)[:, 1].mean() > 0.55 * view.shape[1]
    assert "on the patient's left, middle third, half-way to the back" in shot.alt
    assert shot.caption.removeprefix("in 3-D: ") in shot.alt


def test_a_picture_that_begins_at_a_later_slice_of_the_scan_shows_the_same() -> None:
    told, judged = missing()
    later = replace(judged, suspect=judged.suspect.moved(7))

    assert shots_of(seen(7), later.finding(), later) == shots_of(seen(), told, judged)


def test_a_finding_about_a_piece_of_the_label_has_that_piece_red() -> None:
    """The piece before the left lung, and not the one in the right lung."""
    slice_, view = (pixels(shots_of(seen(), finding("lesion-outside-lung", (4, 2, 41)))[n]) for n in (1, -1))

    assert red(slice_)[:, 1].min() > 0.6 * slice_.shape[1]
    assert red(view)[:, 1].mean() > 0.5 * view.shape[1]


def test_a_finding_that_does_not_say_its_voxels_has_a_ring_at_its_place() -> None:
    """A hole in the middle of the right lung."""
    slice_, view = (pixels(shots_of(seen(), finding("lung-hole", (5, 24, 12)))[n]) for n in (1, -1))
    top, left = red(slice_).min(axis=0)
    bottom, right = red(slice_).max(axis=0)

    assert 20 <= bottom - top <= 32
    assert 20 <= right - left <= 32
    assert not red(slice_[top + 9 : bottom - 8, left + 9 : right - 8]).size
    assert 0 < len(red(view)) < 300


def test_a_finding_without_place_or_outside_the_pictures_has_none() -> None:
    assert shots_of(seen(), replace(finding("gap", (0, 0, 0)), seat=None)) == ()
    assert shots_of(seen(first=3), finding("gap", (2, 20, 10))) == ()
    assert shots_of(seen(first=3), finding("gap", (13, 20, 10))) == ()


def test_a_scan_without_masks_is_shown_with_lungs_by_threshold() -> None:
    case = phantom_case(11, 0, SITE_A)
    assert case.lung is not None
    bare = seen_without_networks(Case(case.volume))
    marked = seen_without_networks(case)
    shared = (bare.opinion.lung & marked.opinion.lung).sum()

    assert bare.by_threshold
    assert 2 * shared / (bare.opinion.lung.sum() + marked.opinion.lung.sum()) > 0.85
    assert shots_of(bare, finding("gap", (20, 250, 200)))[-1].caption.endswith("lungs by threshold")
    assert [one.caption for one in shots_of(marked, finding("gap", (20, 250, 200)))][1] == "with label"


def test_a_scan_in_which_no_lung_can_be_found_has_pictures_all_the_same() -> None:
    hu = np.arange(5 * SIZE * SIZE, dtype=np.int16).reshape(5, SIZE, SIZE) % 100
    geometry = Geometry.regular(hu.shape, (5.0, 2.0, 2.0))
    lesion = np.zeros(hu.shape, bool)
    lesion[2, 20:30, 20:30] = True

    shots = shots_of(
        seen_without_networks(Case(Volume(hu, geometry), lesion=Mask(lesion, geometry))), finding("orphan", (2, 25, 25))
    )

    assert len(shots) == 5
    assert len(red(pixels(shots[-1])))


def test_a_speck_that_small_pictures_do_not_have_is_ringed() -> None:
    geometry = Geometry.regular((3, 400, 400), (5.0, 0.8, 0.8))
    hu = np.full(geometry.shape, 40, np.int16)
    hu[:, 100:300, 60:180] = hu[:, 100:300, 220:340] = -850
    lesion = np.zeros(geometry.shape, bool)
    lesion[1, 200, 100] = True
    looked = seen_without_networks(Case(Volume(hu, geometry), lesion=Mask(lesion, geometry)))

    assert len(red(pixels(shots_of(looked, finding("speck", (1, 200, 100)))[1])))
