"""Prepared slices become batches; the same slice is the same wherever it stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lungshift.errors import ProtocolError
from lungshift.learn.data import MicroBatch, load_batches, make_batch, plan_epoch, seed_epoch, slice_seed
from lungshift.learn.pictures import SliceSet, chunks, cut_slices, frame_shapes, place_frame, require_size
from lungshift.learn.settings import Augmentation, NetworkSettings
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.windows import Window

PLAIN = NetworkSettings(width=2, levels=2)
CROPPED = replace(PLAIN, crop=True)


def test_a_batch_holds_a_channel_for_each_window_and_the_lung(prepared: PreparedCohort) -> None:
    network = replace(PLAIN, windows=(Window(-1000, 0), Window(-100, 100)))

    images, targets = make_batch(SliceSet.of(prepared, np.array([1])), [0], network)

    assert images.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(images[0, 0], np.clip((prepared.hu(1) + 1000.0) / 1000, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(images[0, 2], prepared.lung(1))
    np.testing.assert_array_equal(targets[0, 0], prepared.lesion(1))


def test_neighbours_follow_the_slice_in_the_first_window(prepared: PreparedCohort) -> None:
    network = replace(PLAIN, neighbours=1, neighbour_mm=5.0)

    hu, _ = cut_slices(SliceSet.of(prepared, np.array([2])), [0], network)

    for channel, row in enumerate((2, 1, 3)):
        np.testing.assert_array_equal(hu[0, channel], prepared.hu(row))
    assert make_batch(SliceSet.of(prepared, np.array([2])), [0], network).images.shape[1] == network.channels


def test_the_frame_is_the_lung_box_a_margin_and_rounded_up(prepared: PreparedCohort) -> None:
    slices = SliceSet.of(prepared, np.array([1]))

    assert frame_shapes(slices.boxes, 320, CROPPED).tolist() == [[32, 40]], "16 + 16 rows; 24 + 16 columns"
    assert frame_shapes(slices.boxes, 32, CROPPED).tolist() == [[32, 32]], "never more than the picture"
    assert frame_shapes(slices.boxes, 320, PLAIN).tolist() == [[320, 320]]


@given(top=st.integers(0, 60), left=st.integers(0, 60), rows=st.integers(1, 36), columns=st.integers(1, 36))
def test_a_frame_holds_its_lung_box_and_lies_on_the_picture(top: int, left: int, rows: int, columns: int) -> None:
    box = np.array([top, top + rows, left, left + columns])
    shape = frame_shapes(box[None], 96, CROPPED)[0]

    down, across = place_frame(box, shape, 96)

    assert 0 <= down.start <= top <= top + rows <= down.stop <= 96
    assert 0 <= across.start <= left <= left + columns <= across.stop <= 96
    assert (down.stop - down.start) % 4 == 0


def test_an_epoch_holds_every_slice_once_and_each_epoch_has_its_own_order(prepared: PreparedCohort) -> None:
    slices = SliceSet.of(prepared, np.arange(15))

    plans = [plan_epoch(slices, 4, seed=1, epoch=epoch) for epoch in (0, 1, 0)]

    assert sorted(number for step in plans[0] for number in step) == list(range(15))
    assert plans[0] == plans[2]
    assert plans[0] != plans[1]


def test_a_balanced_epoch_draws_patients_with_few_slices_as_often(prepared: PreparedCohort) -> None:
    slices = SliceSet.of(prepared, np.array([0, 1, 2, 3, 4, 5]))

    drawn = [number for epoch in range(300) for step in plan_epoch(slices, 4, 0, epoch, balance=1.0) for number in step]

    assert np.mean(np.array(drawn) == 5) == pytest.approx(0.5, abs=0.05), "the second patient has one slice of six"


@pytest.mark.parametrize("wanted", [1, 6, 15, 16, 40])
def test_an_epoch_of_so_many_slices_goes_round_all_before_it_takes_one_again(
    prepared: PreparedCohort, wanted: int
) -> None:
    slices = SliceSet.of(prepared, np.arange(15))

    steps = plan_epoch(slices, 4, seed=1, epoch=2, epoch_slices=wanted)

    drawn = [number for step in steps for number in step]
    assert len(drawn) == wanted
    assert [len(step) for step in steps[:-1]] == [4] * (len(steps) - 1)
    for start in range(0, wanted, 15):
        assert len(set(drawn[start : start + 15])) == len(drawn[start : start + 15])


def test_asking_for_as_many_slices_as_there_are_changes_no_plan(prepared: PreparedCohort) -> None:
    slices = SliceSet.of(prepared, np.arange(15))

    for balance in (0.0, 0.5):
        plans = [plan_epoch(slices, 4, 3, 1, balance, wanted) for wanted in (0, 15)]
        assert plans[0] == plans[1]
    assert plan_epoch(slices, 15, 3, 1) == [np.random.default_rng((3, 1)).permutation(15).tolist()]


def test_a_balanced_epoch_has_as_many_slices_as_are_asked_for(prepared: PreparedCohort) -> None:
    steps = plan_epoch(SliceSet.of(prepared, np.arange(15)), 4, 0, 0, balance=1.0, epoch_slices=22)

    assert [len(step) for step in steps] == [4, 4, 4, 4, 4, 2]


def test_a_slice_that_is_drawn_again_is_changed_in_another_way() -> None:
    seeds = seed_epoch([[0, 1], [0, 0], [1, 2]], seed=4, epoch=7)

    assert len({seed for step in seeds for seed in step}) == 6
    assert seeds[0] == [slice_seed(4, 7, 0), slice_seed(4, 7, 1)], "the first time it is the slice's own seed"
    assert seeds[2][1] == slice_seed(4, 7, 2)


def test_a_slice_is_augmented_alike_whatever_stands_beside_it_and_whoever_makes_it(prepared: PreparedCohort) -> None:
    slices, settings = SliceSet.of(prepared, np.arange(1, 5)), Augmentation()

    alone = make_batch(slices, [2], PLAIN, settings, [slice_seed(0, 1, 2)])
    together = make_batch(slices, [0, 2], PLAIN, settings, [slice_seed(0, 1, 0), slice_seed(0, 1, 2)])
    plan = [MicroBatch([0, 2], [0, 2], seed_epoch([[0, 2]], seed=0, epoch=1)[0])]
    loaded = next(iter(load_batches(slices, plan, PLAIN, settings, workers=1)))

    torch.testing.assert_close(alone.images[0], together.images[1])
    torch.testing.assert_close(together.images, loaded.images)


def test_sets_of_two_cohorts_are_one_list(prepared: PreparedCohort) -> None:
    both = SliceSet.of(prepared, np.array([1, 2])) + SliceSet.of(prepared, np.array([7]))

    assert len(both) == 3
    assert [both.locate(number)[1] for number in range(3)] == [1, 2, 7]
    with pytest.raises(IndexError):
        both.locate(3)


def test_pictures_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ProtocolError, match="30 pixels cannot be halved 2 times"):
        require_size(30, PLAIN)


def test_chunks_keep_the_rest() -> None:
    assert chunks(range(5), 2) == [[0, 1], [2, 3], [4]]
