"""Losses have one value per slice, and the values one can compute by hand."""

import math

import pytest
import torch

from lungshift.errors import ProtocolError
from lungshift.learn.losses import slice_loss

SURE = 50.0
NAMES = ["bce", "dice", "bce_dice"]


def slices(*rows: list[float]) -> torch.Tensor:
    """One slice of one row of pixels for each list."""
    return torch.tensor(rows)[:, None, None, :]


@pytest.mark.parametrize("name", NAMES)
def test_each_slice_has_its_own_value(name):
    logits, target = torch.randn(3, 1, 4, 4), torch.randint(0, 2, (3, 1, 4, 4))
    together = slice_loss(name)(logits, target)
    alone = [slice_loss(name)(logits[[k]], target[[k]])[0] for k in range(3)]
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("name", NAMES)
def test_a_sure_and_right_answer_costs_nothing_with_or_without_lesion(name):
    loss = slice_loss(name)(slices([SURE, -SURE], [-SURE, -SURE]), slices([1, 0], [0, 0]))
    torch.testing.assert_close(loss, torch.zeros(2))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite_for_hopelessly_wrong_answers(name):
    logits = slices([1e4, -1e4]).requires_grad_()
    slice_loss(name)(logits, slices([0, 1])).sum().backward()
    assert logits.grad.isfinite().all()


def test_bce_of_an_undecided_pixel_is_the_logarithm_of_two():
    assert slice_loss("bce")(slices([0.0, SURE]), slices([1, 1])).item() == pytest.approx(math.log(2) / 2)


def test_dice_counts_one_pixel_above_and_below():
    loss = slice_loss("dice")(slices([SURE, SURE, SURE, -SURE]), slices([1, 0, 0, 0]))
    assert loss.item() == pytest.approx(1 - (2 * 1 + 1) / (3 + 1 + 1))


def test_a_false_alarm_on_an_empty_slice_is_left_to_cross_entropy():
    logits, empty = slices([SURE, -SURE], [SURE, SURE]), slices([0, 0], [0, 0])
    assert slice_loss("dice")(logits, empty).tolist() == [0, 0]
    assert slice_loss("bce_dice")(logits, empty).tolist() == pytest.approx([SURE / 2, SURE])


def test_the_sum_is_the_sum():
    logits, target = torch.randn(2, 1, 3, 3), torch.randint(0, 2, (2, 1, 3, 3))
    parts = slice_loss("bce")(logits, target) + slice_loss("dice")(logits, target)
    torch.testing.assert_close(slice_loss("bce_dice")(logits, target), parts)


def test_half_precision_logits_are_summed_in_full_precision():
    logits, target = torch.full((1, 1, 256, 256), SURE, dtype=torch.bfloat16), torch.ones(1, 1, 256, 256)
    assert slice_loss("dice")(logits, target).dtype == torch.float32
    assert slice_loss("dice")(logits, target).item() == pytest.approx(0, abs=1e-6)


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(ProtocolError, match=r"'focal'.*bce, dice, bce_dice"):
        slice_loss("focal")
