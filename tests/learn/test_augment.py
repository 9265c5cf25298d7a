"""Random changes of slices: reproducible one by one, in Hounsfield units, masks kept with their slice."""

from dataclasses import replace

import pytest
import torch

from lungshift.learn.augment import augment
from lungshift.learn.settings import Augmentation

NONE = Augmentation.none()


def lungs(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices of soft tissue at 40 HU with a "lung" of -850 HU off the middle, and its mask."""
    hu, masks = torch.full((n, 48, 64), 40.0), torch.zeros(n, 1, 48, 64, dtype=torch.uint8)
    hu[:, 10:30, 8:24] = -850
    masks[:, 0, 10:30, 8:24] = 1
    return hu, masks


def test_none_changes_nothing():
    hu, masks = lungs()
    new_hu, new_masks = augment(hu, masks, NONE, [1, 2, 3])
    assert torch.equal(new_hu, hu)
    assert torch.equal(new_masks, masks)


def test_what_was_given_is_not_changed():
    hu, masks = lungs()
    kept = hu.clone()
    augment(hu, masks, replace(NONE, noise=1, noise_hu=90), [1, 2, 3])
    assert torch.equal(hu, kept)


def test_a_slice_depends_on_its_seed_and_not_on_the_batch_around_it():
    hu, masks = lungs()
    together = augment(hu, masks, Augmentation(), [5, 6, 7])
    alone = [augment(hu[[k]], masks[[k]], Augmentation(), [5 + k]) for k in range(3)]
    torch.testing.assert_close(together[0], torch.cat([one[0] for one in alone]))
    assert torch.equal(together[1], torch.cat([one[1] for one in alone]))


def test_other_seeds_give_other_slices():
    hu, masks = lungs(2)
    changed, _ = augment(hu, masks, Augmentation(), [5, 6])
    assert not torch.allclose(changed[0], changed[1])


def test_a_mirror_image_swaps_left_and_right_of_slice_and_mask():
    hu, masks = lungs()
    new_hu, new_masks = augment(hu, masks, replace(NONE, flip=1.0), [1, 2, 3])
    torch.testing.assert_close(new_hu, hu.flip(-1), atol=0.05, rtol=0)
    assert torch.equal(new_masks, masks.flip(-1))


def test_masks_follow_their_slice_and_stay_binary():
    hu, masks = lungs(8)
    moved = replace(NONE, affine=1.0, rotation_deg=30, scale=0.3, stretch=0.2, shift=0.1)
    new_hu, new_masks = augment(hu, masks, moved, list(range(8)))
    assert new_masks.dtype == masks.dtype
    assert set(new_masks.unique().tolist()) == {0, 1}
    assert torch.equal(new_hu < (40 - 850) / 2, new_masks[:, 0].bool())


def test_rotation_keeps_areas_where_rows_and_columns_differ():
    hu, masks = lungs(8)
    _, turned = augment(hu, masks, replace(NONE, affine=1.0, rotation_deg=25), list(range(8)))
    areas = turned.sum((1, 2, 3)).float()
    torch.testing.assert_close(areas, torch.full((8,), 320.0), atol=12, rtol=0)


def test_scale_stays_within_its_reach_both_ways():
    hu, masks = lungs(64)
    _, scaled = augment(hu, masks, replace(NONE, affine=1.0, scale=0.2), list(range(64)))
    growth = scaled.sum((1, 2, 3)).float() / 320
    assert 0.60 < growth.min() < 0.85
    assert 1.20 < growth.max() < 1.60


def test_intensities_are_changed_in_hounsfield_units():
    flat, masks = torch.full((64, 8, 8), -1000.0), torch.zeros(64, 1, 8, 8)
    shifted, _ = augment(flat, masks, replace(NONE, intensity=1.0, offset_hu=60, gain=0.2, gamma=0.3), list(range(64)))
    offsets = shifted.mean((1, 2)) + 1000
    assert offsets.abs().max() <= 60
    assert offsets.min() < -40
    assert offsets.max() > 40


@pytest.mark.parametrize(("setting", "value"), [("gain", 0.2), ("gamma", 0.3)])
def test_contrast_changes_leave_air_and_the_order_of_intensities(setting, value):
    ramp = torch.linspace(-1000, 400, 64).expand(8, 4, 64)
    changed, _ = augment(
        ramp, torch.zeros(8, 1, 4, 64), replace(NONE, intensity=1.0, **{setting: value}), list(range(8))
    )
    torch.testing.assert_close(changed[..., 0], torch.full((8, 4), -1000.0), atol=0.1, rtol=0)
    assert (changed.diff(dim=-1) > 0).all()


def test_noise_has_at_most_its_standard_deviation():
    flat = torch.full((32, 40, 40), -850.0)
    noisy, _ = augment(flat, torch.zeros(32, 1, 40, 40), replace(NONE, noise=1.0, noise_hu=50), list(range(32)))
    deviation = noisy.std((1, 2))
    assert deviation.max() < 53
    assert deviation.max() > 35


def test_sharpness_changes_edges_and_leaves_flat_areas():
    hu, masks = lungs()
    changed, _ = augment(hu, masks, replace(NONE, kernel=1.0, sharpness=1.0), [1, 2, 3])
    assert (changed[:, 30, 16] - hu[:, 30, 16]).abs().min() > 5
    torch.testing.assert_close(changed[:, 20, 16], hu[:, 20, 16], atol=1, rtol=0)


def test_neighbours_are_changed_like_their_slice():
    hu, masks = lungs(4)
    changed, _ = augment(hu[:, None].expand(-1, 3, -1, -1), masks, replace(Augmentation(), noise=0.0), [1, 2, 3, 4])
    assert changed.shape == (4, 3, 48, 64)
    torch.testing.assert_close(changed[:, 0], changed[:, 2])


def test_dense_patches_are_painted_into_the_lung_alone_and_stay_lung():
    hu, masks = lungs(6)
    new_hu, new_masks = augment(hu, masks, replace(NONE, consolidation=1), list(range(6)))

    lung = masks[:, 0].bool()
    torch.testing.assert_close(new_hu[~lung], hu[~lung])
    assert (new_hu[lung] > -600).any()
    assert (new_hu[lung] > -850.1).all()
    assert (new_hu[lung] < 500).all()
    assert torch.equal(new_masks, masks)


def test_dense_patches_leave_what_is_denser_and_slices_without_lung_as_they_are():
    hu, masks = lungs(6)
    hu[:, 10:30, 8:16] = 300
    masks[3] = 0
    new_hu, _ = augment(hu, masks, replace(NONE, consolidation=1), list(range(6)))

    torch.testing.assert_close(new_hu[:, 10:30, 8:16], hu[:, 10:30, 8:16], rtol=0, atol=0.1)
    torch.testing.assert_close(new_hu[3], hu[3], rtol=0, atol=0.1)


def test_dense_patches_do_not_change_what_else_is_drawn():
    hu, masks = lungs()
    with_patches, without = (
        augment(hu, masks, replace(Augmentation(), consolidation=share), [1, 2, 3]) for share in (1e-9, 0)
    )
    assert torch.equal(with_patches[0], without[0])
