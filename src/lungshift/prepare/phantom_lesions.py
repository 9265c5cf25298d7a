"""Lesions of a phantom patient: where they sit, what they look like, and how they change between visits.

The pattern follows COVID-19 pneumonia: several, often on both sides, at the pleura, at the back and in the lower lobes; ground
glass first, consolidation within it later, sometimes an effusion (Bernheim et al., Chest CT findings in coronavirus
disease-19, Radiology 295, 2020; Pan et al., Time course of lung changes, Radiology 295, 2020).
HU: ground glass -650 to -450, consolidation -100 to 40, effusion 0 to 20.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lungshift.prepare.phantom_anatomy import Anatomy, Plane, inside, lung_depth, wave_field

LesionKind = Literal["ground_glass", "consolidation", "effusion"]
Change = Literal["present", "appears", "grows", "shrinks", "stable", "vanishes"]
_EFFUSION_HU = (0.0, 20.0)
_EFFUSION_TOP = 0.45


@dataclass(frozen=True)
class Lesions:
    """How ill the patients of a cohort are.

    Attributes:
        mild: Share of patients with one to three lesions.
        moderate: Share with four to nine.
        severe: Share with ten to eighteen, larger ones; what is left of the three has no lesion at all.
        consolidation: Share of lesions with a dense core.
        effusion: Share of patients with fluid at the back of one lung; it counts as lesion, and as lung, in the truth.
        size: Factor on every radius.
    """

    mild: float = 0.4
    moderate: float = 0.4
    severe: float = 0.2
    consolidation: float = 0.35
    effusion: float = 0.15
    size: float = 1.0


TYPICAL = Lesions()
"""Four in ten mildly, four moderately and two severely ill."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion at one visit.

    Attributes:
        number: The same at every visit of the patient.
        kind: What it is; a consolidation has a rim of ground glass.
        centre_mm: x, y, z. For an effusion only the sign of x, the side, counts.
        radii_mm: Half axes before the border is made irregular; for an effusion its depth three times.
        hu: Of the ground glass, or of the fluid.
        core_hu: Of the dense core.
        core: Radius of the core as a share of the lesion's, 0 for none.
        softness: Width of the border as a share of the radius.
        waves: Plane waves that make border and texture irregular.
    """

    number: int
    kind: LesionKind
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float
    core_hu: float
    core: float
    softness: float
    waves: np.ndarray

    @property
    def reach_mm(self) -> float:
        """No voxel farther than this from the centre belongs to it."""
        return 1.5 * max(self.radii_mm)


@dataclass(frozen=True)
class LesionEvent:
    """What happened to a lesion since the visit before.

    Attributes:
        visit: The visit at which it is seen, 0 the first.
        lesion: The lesion's number.
        change: What happened.
        factor: Its radius against the visit before; 0 when it vanished, 1 when it is new.
        centre_mm: Where, as x, y, z.
    """

    visit: int
    lesion: int
    change: Change
    factor: float
    centre_mm: tuple[float, float, float]


def draw_lesions(rng: np.random.Generator, anatomy: Anatomy, settings: Lesions) -> tuple[Lesion, ...]:
    """The lesions of a first visit."""
    count, size = _severity(rng, settings)
    scale = size * settings.size
    focal = [_draw_focal(rng, anatomy, settings, number, scale) for number in range(count)]
    if count and rng.random() < settings.effusion:
        focal.append(_draw_effusion(rng, count, settings.size))
    return tuple(focal)


def next_visit(
    rng: np.random.Generator,
    anatomy: Anatomy,
    settings: Lesions,
    before: tuple[Lesion, ...],
    visit: int,
    first_free: int,
) -> tuple[tuple[Lesion, ...], tuple[LesionEvent, ...]]:
    """The lesions a visit later, and what happened to each; ``first_free`` is the first number never used before."""
    after: list[Lesion] = []
    events: list[LesionEvent] = []
    for lesion in before:
        change, factor = _draw_change(rng)
        if factor:
            after.append(replace(lesion, radii_mm=_scaled(lesion.radii_mm, factor)))
        events.append(LesionEvent(visit, lesion.number, change, factor, lesion.centre_mm))
    for number in range(first_free, first_free + int(rng.integers(0, 3))):
        new = _draw_focal(rng, anatomy, settings, number, settings.size)
        after.append(new)
        events.append(LesionEvent(visit, number, "appears", 1.0, new.centre_mm))
    return tuple(after), tuple(events)


def paint_lesions(
    hu: Float32[np.ndarray, "row column"],
    share: Float32[np.ndarray, "row column"],
    lesions: tuple[Lesion, ...],
    anatomy: Anatomy,
    plane: Plane,
    z: float,
) -> None:
    """Paint lesions into a slice of lung HU at height ``z`` and raise ``share``, how much of each pixel is lesion."""
    for lesion in lesions:
        if lesion.kind == "effusion":
            _paint_effusion(hu, share, lesion, anatomy, plane, z)
        elif abs(z - lesion.centre_mm[2]) < lesion.reach_mm:
            _paint_focal(hu, share, lesion, plane, z)


def draw_border(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Three long waves for the border, seven short ones for the texture."""
    direction = rng.normal(size=(10, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.concatenate([radius * rng.uniform(0.8, 2.2, 3), rng.uniform(5, 20, 7)])
    return np.hstack([direction * (2 * np.pi / length)[:, None], rng.uniform(0, 2 * np.pi, (10, 1))])


def _severity(rng: np.random.Generator, settings: Lesions) -> tuple[int, float]:
    at = rng.random()
    if at < settings.mild:
        return int(rng.integers(1, 4)), 0.85
    if at < settings.mild + settings.moderate:
        return int(rng.integers(4, 10)), 1.0
    if at < settings.mild + settings.moderate + settings.severe:
        return int(rng.integers(10, 19)), 1.3
    return 0, 1.0


def _draw_focal(rng: np.random.Generator, anatomy: Anatomy, settings: Lesions, number: int, scale: float) -> Lesion:
    dense = rng.random() < settings.consolidation
    radius = float(np.clip(rng.lognormal(np.log(15), 0.35), 7, 32)) * scale
    flat, tall = rng.uniform(0.65, 1.0), rng.uniform(0.8, 1.3)
    return Lesion(
        number=number,
        kind="consolidation" if dense else "ground_glass",
        centre_mm=_draw_place(rng, anatomy),
        radii_mm=_scaled((radius, radius * flat, radius * tall), 1.0),
        hu=float(rng.uniform(-650, -450)),
        core_hu=float(rng.uniform(-100, 40)),
        core=float(rng.uniform(0.35, 0.75)) if dense else 0.0,
        softness=float(rng.uniform(0.25, 0.6)),
        waves=draw_border(rng, radius),
    )


def _draw_effusion(rng: np.random.Generator, number: int, scale: float) -> Lesion:
    depth = float(rng.uniform(10, 26)) * scale
    side = float(rng.choice((-1.0, 1.0)))
    hu = float(rng.uniform(*_EFFUSION_HU))
    waves = np.zeros((0, 4))
    return Lesion(number, "effusion", (side, 0.0, 0.0), _scaled((depth,) * 3, 1.0), hu, hu, 0.0, 0.0, waves)


def _draw_place(rng: np.random.Generator, anatomy: Anatomy) -> tuple[float, float, float]:
    """A place inside the lung, mostly within 15 mm of its surface, low and at the back."""
    a = anatomy
    low = np.array([-a.cavity_width, a.middle_y - a.cavity_depth, 0])
    high = np.array([a.cavity_width, a.middle_y + a.cavity_depth, a.height])
    points = low + (high - low) * rng.random((400, 3))
    depth = lung_depth(a, points[:, 0], points[:, 1], points[:, 2])
    back = (points[:, 1] - a.middle_y) / a.cavity_depth
    level = points[:, 2] / a.height
    weight = np.where(depth > 1, np.exp(-depth / 12 + 1.2 * back - 3.0 * np.abs(level - 0.35)), 0)
    at = points[rng.choice(len(points), p=weight / weight.sum())]
    return float(at[0]), float(at[1]), float(at[2])


def _draw_change(rng: np.random.Generator) -> tuple[Change, float]:
    change: Change = rng.choice(np.array(["grows", "shrinks", "stable", "vanishes"]), p=(0.35, 0.35, 0.15, 0.15)).item()
    low, high = {"grows": (1.15, 1.5), "shrinks": (0.55, 0.85), "stable": (1, 1), "vanishes": (0, 0)}[change]
    return change, float(rng.uniform(low, high))


def _scaled(radii: tuple[float, ...], factor: float) -> tuple[float, float, float]:
    x, y, z = (float(radius) * factor for radius in radii)
    return x, y, z


def _paint_focal(hu: np.ndarray, share: np.ndarray, lesion: Lesion, plane: Plane, z: float) -> None:
    window = plane.window(lesion.centre_mm[:2], lesion.reach_mm)
    part = plane.cut(window)
    if not part.x.size or not part.y.size:
        return
    at_x, at_y, at_z = lesion.centre_mm
    rx, ry, rz = lesion.radii_mm
    form = np.sqrt(((part.x - at_x) / rx) ** 2 + ((part.y - at_y) / ry) ** 2 + ((z - at_z) / rz) ** 2)
    form = form * (1 + 0.16 * wave_field(lesion.waves[:3], part, z))
    weight = _smooth((1 - form) / lesion.softness + 0.5)
    target = lesion.hu + 30 * wave_field(lesion.waves[3:], part, z)
    if lesion.core:
        target += _smooth((lesion.core - form) / 0.15 + 0.5) * (lesion.core_hu - target)
    lung = hu[window]
    lung += (weight * np.maximum(target - lung, 0)).astype(np.float32)
    share[window] = np.maximum(share[window], weight)


def _paint_effusion(
    hu: np.ndarray, share: np.ndarray, lesion: Lesion, anatomy: Anatomy, plane: Plane, z: float
) -> None:
    """Fluid that lies at the back of one pleural space, deepest at the bottom, with a concave front."""
    a, side = anatomy, lesion.centre_mm[0]
    depth = lesion.radii_mm[0] * (1 - z / (_EFFUSION_TOP * a.height))
    if depth <= 0:
        return
    meniscus = 0.35 * ((np.abs(plane.x) - 0.5 * a.cavity_width) / 14) ** 2
    surface = a.middle_y + a.cavity_depth - 1.6 * depth - meniscus
    fluid = inside(np.where(plane.x * side > 0, surface - plane.y, np.float32(99)), plane)
    hu += fluid * (np.float32(lesion.hu) - hu)
    np.maximum(share, fluid, out=share)


def _smooth(value: np.ndarray) -> np.ndarray:
    clipped = np.clip(value, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), dtype=np.float32)
