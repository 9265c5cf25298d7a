"""Label and networks disagree on grids of a millimetre, where every disagreement can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.audit.suspects import Opinion, Suspect, find_suspects

SHAPE = (20, 40, 40)
BALL = np.sqrt(sum((np.ogrid[tuple(map(slice, SHAPE))][axis] - c) ** 2 for axis, c in enumerate((10, 12, 12))))


def box(*corners: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


def opinion(reference: np.ndarray, seen: np.ndarray, sure: float = 1.0) -> Opinion:
    probability = np.where(seen, sure, 0).astype(np.float32)
    hu = np.where(reference | seen, -400, -850).astype(np.int16)
    lung = np.ones(SHAPE, bool)
    return Opinion(
        reference, probability, seen.astype(np.float32), np.zeros(SHAPE, np.float32), hu, lung, (1.0, 1.0, 1.0)
    )


def only(found: tuple[Suspect, ...]) -> Suspect:
    (one,) = found
    return one


NOTHING = np.zeros(SHAPE, bool)
LESION = box((5, 15), (5, 15), (5, 15))
OTHER = box((5, 15), (25, 35), (25, 35))


def test_label_and_networks_that_agree_leave_nothing_to_say() -> None:
    assert find_suspects(opinion(LESION, LESION)) == ()
    assert find_suspects(opinion(NOTHING, NOTHING)) == ()


def test_a_lesion_that_nobody_marked_is_one_suspect_with_its_volume_and_place() -> None:
    found = only(find_suspects(opinion(LESION, LESION | OTHER, sure=0.8)))

    assert (found.kind, found.voxels, found.slices) == ("missing-lesion", 1000, tuple(range(5, 15)))
    assert found.ml == pytest.approx(0.8)
    assert found.overlap(OTHER) == 1.0
    assert OTHER[found.seat]
    assert found.contrast_hu == pytest.approx(450)
    assert found.probability == pytest.approx(0.8)


def test_a_mark_that_no_network_agrees_with_is_spurious() -> None:
    found = only(find_suspects(opinion(LESION | OTHER, LESION)))

    assert (found.kind, found.voxels, found.ml) == ("spurious-lesion", 1000, pytest.approx(1.0))


def test_outlines_that_differ_by_a_voxel_are_left_alone() -> None:
    wider = box((4, 16), (4, 16), (4, 16))

    assert find_suspects(opinion(LESION, wider)) == ()


def test_outlines_that_differ_by_much_for_the_lesion_drift() -> None:
    found = only(find_suspects(opinion(BALL <= 4, BALL <= 6.5)))

    assert found.kind == "boundary-drift"
    assert found.overlap((BALL > 4) & (BALL <= 6.5)) == 1.0


def test_a_part_that_reaches_far_beyond_the_mark_is_missing_lesion_and_told_once() -> None:
    long = box((5, 15), (5, 15), (5, 35))

    found = only(find_suspects(opinion(LESION, long)))

    assert found.kind == "missing-lesion"
    assert found.overlap(long & ~LESION) == 1.0
    assert found.distance_mm == pytest.approx(20)


def test_no_voxel_is_in_two_suspects() -> None:
    rng = np.random.default_rng(0)
    reference, seen = (np.zeros(SHAPE, bool) for _ in range(2))
    for mask in (reference, seen):
        for _ in range(6):
            at = rng.integers(3, [16, 34, 34])
            mask |= box(*((int(c) - 3, int(c) + 4) for c in at))
    times = np.zeros(SHAPE, int)
    for suspect in find_suspects(opinion(reference, seen)):
        times[suspect.box] += suspect.inside

    assert times.max() == 1
    assert not (times & (reference == seen)).any()


def test_the_largest_expected_error_comes_first_and_specks_are_left_out() -> None:
    speck = box((0, 2), (0, 2), (36, 39))
    found = find_suspects(opinion(NOTHING, LESION | box((16, 19), (25, 35), (25, 35)) | speck))

    assert [one.voxels for one in found] == [1000, 300]


def test_distances_are_in_millimetres_of_unequal_spacing() -> None:
    thick = Opinion(**vars(opinion(LESION, box((5, 16), (5, 15), (5, 15)))) | {"spacing_mm": (8.0, 1.0, 1.0)})

    assert only(find_suspects(thick)).kind == "missing-lesion"


def test_a_suspect_knows_how_much_of_its_lesion_it_is_and_how_well_the_rest_agrees() -> None:
    alone = only(find_suspects(opinion(LESION, LESION | OTHER, sure=0.8)))
    part = only(find_suspects(opinion(LESION, box((5, 15), (5, 15), (5, 35)))))

    assert (alone.whole, alone.outside, alone.accord) == (1.0, 0.0, 1.0)
    assert alone.peak == pytest.approx(0.8)
    assert part.whole == pytest.approx(20 / 30)


def test_accord_falls_with_every_other_difference() -> None:
    third = box((5, 15), (25, 35), (5, 15))
    missing, spurious = sorted(find_suspects(opinion(LESION | third, LESION | OTHER)), key=lambda one: one.kind)

    assert missing.accord == pytest.approx(2 * 1000 / 3000)
    assert spurious.accord == pytest.approx(2 * 1000 / 3000)


def test_a_mark_beside_the_lung_is_outside() -> None:
    seen = opinion(LESION | OTHER, LESION)
    seen.lung[OTHER] = False

    assert only(find_suspects(seen)).outside == 1.0
