"""Random changes of training slices that span patients' positions and scanners' intensities, in Hounsfield units.

Every slice is changed by its own generator, so a result depends on the slice and its seed, never on the batch around it
or the number of workers. Intensities are changed before any window is applied: an offset and a gain stand for calibration
and for windows that were guessed, gamma for a wrong scale, sharpness for the reconstruction kernel and the slice
thickness, noise for the dose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

_AIR_HU = -1000.0
_SPAN_HU = 1400.0
_DRAWS = 16


@dataclass(frozen=True)
class Augmentation:
    """How often and how far slices are changed; a probability is per slice, a range is drawn from evenly."""

    flip: float = 0.5
    """Probability of a mirror image, left to right."""
    affine: float = 0.8
    """Probability of a rotation, scale and shift."""
    rotation_deg: float = 15.0
    """Rotation of up to this either way."""
    scale: float = 0.2
    """Size times up to ``exp(scale)`` or down to ``exp(-scale)``."""
    stretch: float = 0.1
    """Rows over columns, as ``scale``."""
    shift: float = 0.05
    """Shift of up to this part of the slice's rows and columns."""
    intensity: float = 0.8
    """Probability of an offset, gain and gamma."""
    offset_hu: float = 60.0
    """HU added, up to this either way."""
    gain: float = 0.15
    """Contrast about air, as ``scale``."""
    gamma: float = 0.25
    """Exponent of the intensity between -1000 and 400 HU, as ``scale``."""
    kernel: float = 0.5
    """Probability of a sharper or softer image."""
    sharpness: float = 1.0
    """Up to this much of what a blur of one pixel takes away is added or taken."""
    noise: float = 0.4
    """Probability of white noise, added before the change of sharpness."""
    noise_hu: float = 50.0
    """Standard deviation of the noise, from zero up to this."""

    @classmethod
    def none(cls) -> Augmentation:
        """Settings that leave every slice as it is."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


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
    moved = _change_intensity(moved, draws[8:], settings, generators)
    moved_masks = functional.grid_sample(masks.to(hu.dtype), grid, "bilinear", "zeros", align_corners=False) > 0.5
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


def _blur(image: Tensor) -> Tensor:
    """Gaussian of one pixel over (neighbour, row, column), edges repeated."""
    taps = torch.tensor([0.0545, 0.2442, 0.4026, 0.2442, 0.0545])
    padded = functional.pad(image[:, None], (2, 2, 2, 2), "replicate")
    across = functional.conv2d(padded, taps.view(1, 1, 1, 5))
    return functional.conv2d(across, taps.view(1, 1, 5, 1))[:, 0]


def _even(draw: Tensor, reach: float) -> Tensor:
    """From an even draw in [0, 1) to one in [-reach, reach)."""
    return (2 * draw - 1) * reach
