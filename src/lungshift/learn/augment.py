"""Random changes of training slices that span patients' positions and scanners' intensities, in Hounsfield units.

Every slice is changed by its own generator, so a result depends on the slice and its seed, never on the batch around it
or the number of workers. Intensities are changed before any window is applied: an offset and a gain stand for calibration
and for windows that were guessed, gamma for a wrong scale, sharpness for the reconstruction kernel and the slice
thickness, noise for the dose.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from lungshift.learn.settings import Augmentation

_AIR_HU = -1000.0
_SPAN_HU = 1400.0
_DRAWS = 16
_PATCHES = 3
_DENSE_HU = (-450.0, 30.0)
_MOTTLE_HU = 80.0
_BUMPS = 5


def augment(hu: Tensor, masks: Tensor, settings: Augmentation, seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Change each slice and its masks by the seed of that slice.

    Args:
        hu: Slices in HU, float32 (n, row, column), or (n, neighbour, row, column), all neighbours changed alike.
        masks: Masks of 0 and 1 (n, mask, row, column), of any kind of number; they follow the slice and stay 0 and 1.
        settings: How often and how far.
        seeds: One whole number per slice.

    Returns:
        HU and masks of the same shapes and kinds.
    """
    if settings == Augmentation.none():
        return hu, masks
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = torch.stack([torch.rand(_DRAWS, generator=generator) for generator in generators]).unbind(1)
    stack = hu[:, None] if hu.ndim == 3 else hu
    grid = functional.affine_grid(_affine(draws[:8], settings, *hu.shape[-2:]), [len(hu), 1, *hu.shape[-2:]], False)
    moved = functional.grid_sample(stack, grid, "bilinear", "border", align_corners=False)
    moved_masks = functional.grid_sample(masks.to(hu.dtype), grid, "bilinear", "zeros", align_corners=False) > 0.5
    if settings.consolidation:
        _consolidate(moved, moved_masks[:, -1], settings.consolidation, seeds)
    moved = _change_intensity(moved, draws[8:], settings, generators)
    return moved.reshape(hu.shape), moved_masks.to(masks.dtype)


def _affine(draws: tuple[Tensor, ...], settings: Augmentation, rows: int, columns: int) -> Tensor:
    """Matrices (n, 2, 3) from the new slice to the old one, in the units of ``affine_grid`` (half widths; x, then y)."""
    on = (draws[1] < settings.affine).float()
    mirror = 1 - 2 * (draws[0] < settings.flip).float()
    angle = on * _even(draws[2], math.radians(settings.rotation_deg))
    size = torch.exp(-on * _even(draws[3], settings.scale))
    stretch = torch.exp(on * _even(draws[4], settings.stretch) / 2)
    sine, cosine, ratio = size * angle.sin(), size * angle.cos(), rows / columns
    x = torch.stack(
        [mirror * cosine / stretch, -mirror * sine * ratio / stretch, on * _even(draws[5], 2 * settings.shift)]
    )
    y = torch.stack([sine / ratio * stretch, cosine * stretch, on * _even(draws[6], 2 * settings.shift)])
    return torch.stack([x, y]).permute(2, 0, 1)


def _change_intensity(
    hu: Tensor, draws: tuple[Tensor, ...], settings: Augmentation, generators: list[torch.Generator]
) -> Tensor:
    for row, generator in enumerate(generators):
        if draws[0][row] < settings.noise:
            noise = torch.randn(hu.shape[1:], generator=generator)
            hu[row] += noise * (draws[1][row] * settings.noise_hu)
        if draws[2][row] < settings.kernel:
            hu[row] += (hu[row] - _blur(hu[row])) * _even(draws[3][row], settings.sharpness)
    on = (draws[4] < settings.intensity).float()[:, None, None, None]
    offset, gain, gamma = (_even(draw, 1.0)[:, None, None, None] * on for draw in draws[5:8])
    share = ((hu - _AIR_HU) / _SPAN_HU).clamp_min(0) ** torch.exp(gamma * settings.gamma)
    return share * (_SPAN_HU * torch.exp(gain * settings.gain)) + (_AIR_HU + offset * settings.offset_hu)


def _consolidate(hu: Tensor, lung: Tensor, probability: float, seeds: list[int]) -> None:
    """Paint dense patches into some slices' lungs, in place; what is denser already, vessels say, stays as it is.

    They are mottled: even ones taught a network that stomach, aorta and liver are lung.
    """
    for image, mask, seed in zip(hu, lung, seeds, strict=True):
        generator = torch.Generator().manual_seed(~seed & 0xFFFFFFFF)  # the other changes stay what they are without it
        places = mask.nonzero()
        often, number, density = torch.rand(3, generator=generator).tolist()
        if often < probability and len(places):
            patches = [_patch(places, mask.shape, generator) for _ in range(1 + int(number * _PATCHES))]
            share = torch.stack(patches).amax(dim=0) * mask
            dense = _DENSE_HU[0] + density * (_DENSE_HU[1] - _DENSE_HU[0]) + _mottle(mask.shape, generator)
            image.add_(share * (dense - image).clamp_min(0))


def _mottle(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Grain of about four pixels in HU, as air and vessels make it in a consolidation."""
    grain = torch.randn(1, 1, *(-(-n // 4) for n in shape), generator=generator) * _MOTTLE_HU
    return functional.interpolate(grain, tuple(shape), mode="bicubic", align_corners=False)[0, 0]


def _patch(places: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """How much of each pixel a patch takes, from 0 to 1: an uneven ellipse about one of the places, with a sharp edge or a soft one."""
    draws = torch.rand(6, generator=generator)
    rows, columns = (torch.arange(n, dtype=torch.float32) for n in shape)
    row, column = places[int(draws[0] * len(places))].tolist()
    angle = float(draws[1]) * math.pi
    down, right = (rows[:, None] - row) / shape[0], (columns[None] - column) / shape[1]
    along = (down * math.cos(angle) + right * math.sin(angle)) / (0.03 + 0.17 * draws[2])
    across = (right * math.cos(angle) - down * math.sin(angle)) / (0.03 + 0.17 * draws[3])
    bumps = torch.rand(1, 1, _BUMPS, _BUMPS, generator=generator) - 0.5
    uneven = functional.interpolate(bumps, tuple(shape), mode="bicubic", align_corners=False)[0, 0]
    return ((1 - torch.hypot(along, across) + uneven) * (4 + 30 * draws[4])).sigmoid()


def _blur(image: Tensor) -> Tensor:
    """Gaussian of one pixel over (neighbour, row, column), edges repeated."""
    taps = torch.tensor([0.0545, 0.2442, 0.4026, 0.2442, 0.0545])
    padded = functional.pad(image[:, None], (2, 2, 2, 2), "replicate")
    across = functional.conv2d(padded, taps.view(1, 1, 1, 5))
    return functional.conv2d(across, taps.view(1, 1, 5, 1))[:, 0]


def _even(draw: Tensor, reach: float) -> Tensor:
    """From an even draw in [0, 1) to one in [-reach, reach)."""
    return (2 * draw - 1) * reach
