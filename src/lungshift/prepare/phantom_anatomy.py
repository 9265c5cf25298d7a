"""The chest of a phantom patient: shapes in millimetres that any grid can sample.

Everything is written in the patient's own LPS millimetres (x to the left, y to the back, z to the head; z = 0 is the lowest
point of the lungs), so slice thickness and pixel size change how the chest is sampled and never the chest itself.

The Hounsfield units follow the literature: healthy lung in inspiration about -860 and denser towards the back in a
supine patient (Hedlund, Anderson, Goulding, Beck, Effmann, Putman: Two methods for isolating the lung area of a CT scan
for density information, Radiology 144, 1982; Verschakelen et al., AJR 160, 1993), fat -100, muscle 50, unenhanced blood 40,
liver 55, bone 300 to 700, air -1000 (Kalender, Computed Tomography, 3rd edition, 2011, chapter 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

AIR_HU, FAT_HU, MUSCLE_HU, BLOOD_HU, LIVER_HU = -1000.0, -100.0, 50.0, 40.0, 55.0
_CORTEX_HU, _MARROW_HU, _DISC_HU, _CARTILAGE_HU, _CANAL_HU, _TABLE_HU = 650.0, 220.0, 90.0, 110.0, 15.0, -250.0
_RIB_STEP_MM = 25.0
_VERTEBRA_MM = 24.0


@dataclass(frozen=True, eq=False)
class Plane:
    """The pixel centres of one slice.

    Attributes:
        x: (1, columns), mm to the left.
        y: (rows, 1), mm to the back.
        pixel_mm: Distance of neighbours; edges are drawn this wide, as a pixel averages over its area.
    """

    x: Float32[np.ndarray, "1 column"]
    y: Float32[np.ndarray, "row 1"]
    pixel_mm: float

    @classmethod
    def centred(cls, size: int, pixel_mm: float) -> Plane:
        """A square of ``size`` pixels around the middle of the chest."""
        at = ((np.arange(size) - (size - 1) / 2) * pixel_mm).astype(np.float32)
        return cls(at[None, :], at[:, None], pixel_mm)

    def window(self, centre: tuple[float, float], half_mm: float) -> tuple[slice, slice]:
        """The rows and columns within ``half_mm`` of an (x, y), possibly none."""
        columns = np.searchsorted(self.x[0], (centre[0] - half_mm, centre[0] + half_mm))
        rows = np.searchsorted(self.y[:, 0], (centre[1] - half_mm, centre[1] + half_mm))
        return slice(*map(int, rows)), slice(*map(int, columns))

    def cut(self, window: tuple[slice, slice]) -> Plane:
        """The part of the plane in a window."""
        return Plane(self.x[:, window[1]], self.y[window[0]], self.pixel_mm)


@dataclass(frozen=True, eq=False)
class Tubes:
    """Branching tubes as many overlapping balls, in order of z.

    Attributes:
        centre_mm: (balls, 3) as x, y, z.
        radius_mm: (balls,).
    """

    centre_mm: Float32[np.ndarray, "ball 3"]
    radius_mm: Float32[np.ndarray, " ball"]

    @classmethod
    def along(cls, start: np.ndarray, end: np.ndarray, radius: np.ndarray, taper: float = 1.0) -> Tubes:
        """Balls along straight pieces of (n, 3) starts and ends, thinning to ``taper`` times their radius."""
        length = np.linalg.norm(end - start, axis=1)
        steps = np.maximum(2, np.ceil(length / np.maximum(0.8, 0.5 * radius))).astype(int)
        piece = np.repeat(np.arange(len(steps)), steps)
        first = np.repeat(np.cumsum(steps) - steps, steps)
        share = (np.arange(len(piece)) - first) / (steps[piece] - 1)
        centre = start[piece] + share[:, None] * (end - start)[piece]
        thick = radius[piece] * (1 + (taper - 1) * share)
        return cls.joined(cls(centre.astype(np.float32), thick.astype(np.float32)))

    @classmethod
    def joined(cls, *parts: Tubes) -> Tubes:
        """Several tubes as one, in order of z."""
        centre = np.concatenate([part.centre_mm for part in parts])
        radius = np.concatenate([part.radius_mm for part in parts])
        order = np.argsort(centre[:, 2], kind="stable")
        return cls(centre[order], radius[order])

    def thicker(self, by_mm: float) -> Tubes:
        """The same course with a larger radius."""
        return Tubes(self.centre_mm, self.radius_mm + np.float32(by_mm))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One patient's chest; lengths in mm. ``draw_anatomy`` draws one at random."""

    half_width: float
    half_depth: float
    fat: float
    cavity_width: float
    cavity_depth: float
    middle_y: float
    height: float
    mediastinum: float
    heart: tuple[float, float, float, float, float, float]
    heart_turn: float
    dome: tuple[float, float]
    lung_hu: float
    gravity_hu: float
    rib_drop: float
    stomach_gas: float
    table_gap: float
    waves: Float[np.ndarray, "wave 4"]

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """From below the lungs to above them: what a chest CT covers."""
        return -22.0, self.height + 14.0


@dataclass(frozen=True, eq=False)
class Trees:
    """What branches in one patient's chest.

    Attributes:
        vessels: In both lungs, from the hila.
        airways: Trachea and main bronchi.
        airway_walls: The same with their walls.
        bronchi: In both lungs, from the hila.
        bronchus_walls: The same with their walls.
    """

    vessels: Tubes
    airways: Tubes
    airway_walls: Tubes
    bronchi: Tubes
    bronchus_walls: Tubes


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random adult chest, about 3.5 to 5.5 litres of lung."""
    half_width, half_depth, fat = rng.uniform(154, 169), rng.uniform(106, 120), rng.uniform(8, 20)
    width, depth = half_width - fat - rng.uniform(16, 20), half_depth - 0.7 * fat - rng.uniform(14, 18)
    height, middle_y = rng.uniform(230, 275), rng.uniform(-8, -3)
    heart = (
        rng.uniform(17, 25),
        middle_y - rng.uniform(18, 26),
        height * rng.uniform(0.28, 0.34),
        rng.uniform(52, 61),
        rng.uniform(38, 45),
        rng.uniform(48, 57),
    )
    right_dome = rng.uniform(66, 82)
    return Anatomy(
        half_width=half_width,
        half_depth=half_depth,
        fat=fat,
        cavity_width=width,
        cavity_depth=depth,
        middle_y=middle_y,
        height=height,
        mediastinum=rng.uniform(21, 27),
        heart=heart,
        heart_turn=rng.uniform(0.5, 0.75),
        dome=(right_dome, right_dome - rng.uniform(10, 18)),
        lung_hu=rng.uniform(-880, -845),
        gravity_hu=rng.uniform(35, 65),
        rib_drop=rng.uniform(70, 100),
        stomach_gas=float(rng.choice((0.0, rng.uniform(14, 24)))),
        table_gap=rng.uniform(3, 9),
        waves=_draw_waves(rng, 4, 40, 120),
    )


def draw_trees(rng: np.random.Generator, anatomy: Anatomy) -> Trees:
    """Random vessels and airways for a chest."""
    height, middle_y = anatomy.height, anatomy.middle_y
    hilum = np.array([[-36, middle_y + 6, 0.53 * height], [38, middle_y + 6, 0.55 * height]])
    carina = np.array([[2.0, middle_y + 6, 0.63 * height]])
    top = np.array([[0.0, middle_y - 2, 1.15 * height]])
    airways = Tubes.joined(
        Tubes.along(top, carina, np.array([rng.uniform(7.5, 9.0)])),
        Tubes.along(np.repeat(carina, 2, axis=0), hilum, np.array([6.5, 5.8])),
    )
    vessels = Tubes.joined(*(_tree(rng, root, side, 12, 6, 4.4) for root, side in zip(hilum, (-1, 1), strict=True)))
    bronchi = Tubes.joined(*(_tree(rng, root, side, 4, 4, 3.2) for root, side in zip(hilum, (-1, 1), strict=True)))
    return Trees(vessels, airways, airways.thicker(1.5), bronchi, bronchi.thicker(1.0))


def lung_depth(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: float | np.ndarray) -> np.ndarray:
    """How many mm a point lies inside the lungs, negative outside; exact in sign, approximate in size."""
    away = np.maximum(cavity_distance(anatomy, x, y, z), -_beside_mediastinum(anatomy, x, y, z))
    away = np.maximum(away, 0.6 * (_dome(anatomy, x, y) - z))
    return np.asarray(-np.maximum(np.maximum(away, -z), z - anatomy.height))


def cavity_distance(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: float | np.ndarray) -> np.ndarray:
    """Distance in mm from the inner surface of the rib cage, negative inside."""
    level = np.clip(np.float32(1 / anatomy.height) * np.asarray(z, np.float32), 0, 1)
    narrow = np.maximum((1 - level**3) ** 0.55, 0.25)
    return _oval(
        x, y - anatomy.middle_y - 8 * level**2, anatomy.cavity_width * narrow, anatomy.cavity_depth * narrow**0.8
    )


def body_distance(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance in mm from the skin, negative inside the body; the same at every height."""
    return _oval(x, y, anatomy.half_width, anatomy.half_depth)


def draw_body(anatomy: Anatomy, plane: Plane, z: float) -> Float32[np.ndarray, "row column"]:
    """HU of everything but the lungs and what is in them: body, bones, organs, table."""
    a, x, y = anatomy, plane.x, plane.y
    cavity = cavity_distance(a, x, y, z)
    hu = np.full(cavity.shape, AIR_HU, np.float32)
    _paint(hu, _table(a, x, y), _TABLE_HU, plane)
    _paint(hu, body_distance(a, x, y), FAT_HU, plane)
    wall = np.maximum(_under_fat(a, x, y), cavity - 30)
    _paint(hu, wall, MUSCLE_HU, plane)
    if z < a.height:
        _paint(hu, cavity, FAT_HU, plane)
    _paint_organs(hu, a, plane, z, cavity)
    _paint_bones(hu, a, plane, z, cavity)
    return hu


def lung_field(anatomy: Anatomy, plane: Plane, z: float) -> Float32[np.ndarray, "row column"]:
    """HU of healthy lung without vessels: denser towards the back, with slow variations."""
    back = (plane.y - anatomy.middle_y) / anatomy.cavity_depth
    slow = wave_field(anatomy.waves, plane, z)
    return np.asarray(anatomy.lung_hu + anatomy.gravity_hu * back + 10 * slow, dtype=np.float32)


def draw_tubes(tubes: Tubes, plane: Plane, z: float) -> Float32[np.ndarray, "row column"]:
    """Share of each pixel (0 to 1) that the tubes take at height ``z``."""
    share = np.zeros((plane.y.shape[0], plane.x.shape[1]), np.float32)
    reach = float(tubes.radius_mm.max())
    near = slice(*np.searchsorted(tubes.centre_mm[:, 2], (z - reach, z + reach)))
    centre, radius = tubes.centre_mm[near], tubes.radius_mm[near]
    square = radius**2 - (centre[:, 2] - np.float32(z)) ** 2
    centre, radius = centre[square > 0], np.sqrt(square[square > 0])
    half = np.ceil(radius / plane.pixel_mm).astype(int) + 1
    for size in np.unique(half):
        _splat(share, centre[half == size], radius[half == size], int(size), plane)
    return share


def wave_field(waves: np.ndarray, plane: Plane, z: float) -> Float32[np.ndarray, "row column"]:
    """Sum of plane waves (wave vectors in 1/mm, phase) at height ``z``: a smooth field of about unit spread."""
    field = np.zeros((plane.y.shape[0], plane.x.shape[1]), np.float32)
    for kx, ky, kz, phase in waves.tolist():
        along, across = kx * plane.x, ky * plane.y + (kz * z + phase)
        field += np.sin(along) * np.cos(across) + np.cos(along) * np.sin(across)
    return field * np.float32(math.sqrt(2 / max(1, len(waves))))


def inside(distance: np.ndarray, plane: Plane) -> Float32[np.ndarray, "row column"]:
    """Share of each pixel inside a surface, from its signed distance (negative inside)."""
    return np.clip(0.5 - distance / max(plane.pixel_mm, 0.5), 0, 1, dtype=np.float32)


def _draw_waves(rng: np.random.Generator, count: int, shortest_mm: float, longest_mm: float) -> np.ndarray:
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    number = 2 * np.pi / rng.uniform(shortest_mm, longest_mm, size=(count, 1))
    return np.hstack([direction * number, rng.uniform(0, 2 * np.pi, size=(count, 1))])


def _oval(x: np.ndarray, y: np.ndarray, a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    """Signed distance along the ray from the centre to a curve between an ellipse and a rounded box."""
    u, v = (x / a) ** 2, (y / b) ** 2
    form = np.maximum(0.55 * np.sqrt(u + v) + 0.45 * np.sqrt(np.sqrt(u * u + v * v)), 1e-3)
    return np.asarray(np.sqrt(x * x + y * y) * (1 - 1 / form))


def _under_fat(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _oval(x, y, anatomy.half_width - anatomy.fat, anatomy.half_depth - 0.7 * anatomy.fat)


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.asarray((np.sqrt((x / a) ** 2 + (y / b) ** 2) - 1) * min(a, b))


def _heart(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: float | np.ndarray) -> np.ndarray:
    """An egg whose tip points to the patient's left front."""
    at_x, at_y, at_z, long, short, tall = anatomy.heart
    cos, sin = math.cos(anatomy.heart_turn), math.sin(anatomy.heart_turn)
    along, across = (x - at_x) * cos - (y - at_y) * sin, (x - at_x) * sin + (y - at_y) * cos
    form = np.sqrt((along / long) ** 2 + (across / short) ** 2 + ((z - at_z) / tall) ** 2)
    return np.asarray((form - 1) * short)


def _spine_y(anatomy: Anatomy) -> float:
    return anatomy.middle_y + anatomy.cavity_depth - 8


def _aorta(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((x - 22) ** 2 + (y - _spine_y(anatomy) + 22) ** 2) - 12)


def _beside_mediastinum(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: float | np.ndarray) -> np.ndarray:
    """Distance from heart, great vessels and spine, negative inside them."""
    a = anatomy
    column = _ellipse(x - 2, y - a.middle_y + 2, a.mediastinum, a.cavity_depth + 8)
    spine = np.sqrt(x * x + (y - _spine_y(a) - 4) ** 2) - 25
    arch = np.where(np.asarray(z) < 0.78 * a.height, _aorta(a, x, y) - 2, np.float32(99))
    return np.minimum(np.minimum(column, spine), np.minimum(_heart(a, x, y, z) - 3, arch))


def _dome(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the diaphragm in mm: two domes, the right one higher, falling towards the back and the sides."""
    a = anatomy
    front = a.middle_y - y
    height = np.where(np.asarray(x) < 0, np.float32(a.dome[0]), np.float32(a.dome[1]))
    across = (np.abs(x) - 0.5 * a.cavity_width) / (0.62 * a.cavity_width)
    return np.asarray(height * (1 - across**2 - ((front - 12) / (1.05 * a.cavity_depth)) ** 2) + 0.3 * front)


def _table(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two thin shells of a curved couch behind the back."""
    below = y - anatomy.half_depth - anatomy.table_gap + (x / 55) ** 2
    shells = np.minimum(np.abs(below), np.abs(below - 22 + (x / 60) ** 2)) - 1.2
    return np.maximum(shells, np.abs(x) - 190)


def _paint(hu: np.ndarray, distance: np.ndarray, value: float | np.ndarray, plane: Plane) -> None:
    share = inside(distance, plane)
    hu += share * (value - hu)


def _paint_organs(hu: np.ndarray, a: Anatomy, plane: Plane, z: float, cavity: np.ndarray) -> None:
    x, y = plane.x, plane.y
    if z < max(a.dome) + 25:
        below = np.maximum(cavity, 0.6 * (z - _dome(a, x, y)))
        _paint(hu, below, np.where(x < 12, LIVER_HU, 45).astype(np.float32), plane)
        if a.stomach_gas:
            gas = np.sqrt((x - 55) ** 2 + (y - a.middle_y + 15) ** 2 + (1.4 * (z - a.dome[1] + 42)) ** 2)
            _paint(hu, gas - a.stomach_gas, AIR_HU, plane)
    _paint(hu, np.maximum(_heart(a, x, y, z), cavity), BLOOD_HU, plane)
    if z < 0.75 * a.height:
        _paint(hu, _aorta(a, x, y), BLOOD_HU, plane)
    _paint_great_vessels(hu, a, plane, z)


def _paint_great_vessels(hu: np.ndarray, a: Anatomy, plane: Plane, z: float) -> None:
    x, y, level = plane.x, plane.y, z / a.height
    if 0.45 < level < 0.8:
        _paint(hu, _ellipse(x + 8, y - a.middle_y + 22, 15, 15), BLOOD_HU, plane)
        _paint(hu, _ellipse(x + 20, y - a.middle_y + 12, 8, 9), BLOOD_HU, plane)
    if 0.45 < level < 0.6:
        _paint(hu, _ellipse(x - 2, y - a.middle_y + 2, 26, 13), BLOOD_HU, plane)
    if 0.72 < level < 0.8:
        slope = 0.6 * x - (y - a.middle_y - 4)
        _paint(hu, np.maximum(np.abs(slope) - 12, np.abs(x - 10) - 20), BLOOD_HU, plane)
    if level >= 0.8:
        for at_x, at_y in ((-16, -14), (-12, -2), (10, -16), (16, -4)):
            _paint(hu, _ellipse(x - at_x, y - a.middle_y - at_y, 6, 6), BLOOD_HU, plane)
    _paint(hu, _ellipse(x - 4, y - _spine_y(a) + 27, 8, 5), 30, plane)


def _paint_bones(hu: np.ndarray, a: Anatomy, plane: Plane, z: float, cavity: np.ndarray) -> None:
    x, y = plane.x, plane.y
    _paint_spine(hu, a, plane, z)
    turn = np.arctan2(np.abs(x), y - a.middle_y) / np.pi
    offset = np.mod(z + a.rib_drop * turn**1.3 + _RIB_STEP_MM / 2, _RIB_STEP_MM) - _RIB_STEP_MM / 2
    ribs = (np.sqrt(((cavity - 6) / 4) ** 2 + (offset / 6) ** 2) - 1) * 4
    bony = np.where(turn < 0.8, _CORTEX_HU, _CARTILAGE_HU).astype(np.float32)
    _paint(hu, ribs, bony, plane)
    _paint(hu, ribs + 1.8, np.minimum(bony, _MARROW_HU), plane)
    if 0.3 < z / a.height < 0.85:
        front = a.middle_y - a.cavity_depth - 6
        sternum = _ellipse(x, y - front, 17, 6)
        _paint(hu, sternum, 450, plane)
        _paint(hu, sternum + 2, _MARROW_HU, plane)
    if z > 0.5 * a.height:
        _paint_scapulae(hu, a, plane, cavity)


def _paint_spine(hu: np.ndarray, a: Anatomy, plane: Plane, z: float) -> None:
    x, y = plane.x, plane.y - _spine_y(a)
    process = np.maximum(np.abs(x) - 3, np.abs(y - 27) - 7)
    wings = np.maximum(np.abs(y - 19 - 0.1 * np.abs(x)) - 4, np.abs(x) - 28)
    _paint(hu, np.minimum(process, wings), 400, plane)
    body = _ellipse(x, y, 18, 15)
    if z % _VERTEBRA_MM < 4:
        _paint(hu, body, _DISC_HU, plane)
    else:
        _paint(hu, body, _CORTEX_HU, plane)
        _paint(hu, body + 2, _MARROW_HU, plane)
    _paint(hu, _ellipse(x, y - 20, 10, 8), 400, plane)
    _paint(hu, _ellipse(x, y - 20, 8, 6.5), _CANAL_HU, plane)


def _paint_scapulae(hu: np.ndarray, a: Anatomy, plane: Plane, cavity: np.ndarray) -> None:
    """Thin plates over the back of the rib cage, where the chest wall is thick enough to hold them."""
    across, back = np.abs(plane.x), plane.y - a.middle_y
    plate = np.maximum(np.abs(cavity - 17) - 2.5, np.abs(across - 0.72 * a.cavity_width) - 22)
    outer = _under_fat(a, plane.x, plane.y)
    _paint(hu, np.maximum(np.maximum(plate, 20 - back), outer + 2), 420, plane)


def _splat(share: np.ndarray, centre: np.ndarray, radius: np.ndarray, half: int, plane: Plane) -> None:
    """Draw discs that fit in squares of 2 * half + 1 pixels, keeping the larger share where they overlap."""
    reach = np.arange(-half, half + 1)
    column = (centre[:, 0] - plane.x[0, 0]) / plane.pixel_mm
    row = (centre[:, 1] - plane.y[0, 0]) / plane.pixel_mm
    columns = np.rint(column).astype(int)[:, None] + reach
    rows = np.rint(row).astype(int)[:, None] + reach
    far = np.sqrt(((rows - row[:, None]) ** 2)[:, :, None] + ((columns - column[:, None]) ** 2)[:, None, :])
    rim = (radius / plane.pixel_mm)[:, None, None]
    part = np.clip(rim - far + 0.5, 0, 1) * np.minimum(1, 2 * rim)
    fits = ((rows >= 0) & (rows < share.shape[0]))[:, :, None] & ((columns >= 0) & (columns < share.shape[1]))[:, None]
    place = rows[:, :, None] * share.shape[1] + columns[:, None, :]
    np.maximum.at(share.reshape(-1), place[fits], part[fits].astype(np.float32))


def _tree(rng: np.random.Generator, root: np.ndarray, side: int, roots: int, levels: int, radius: float) -> Tubes:
    """Branches that fork in two at every level, each thinner and shorter, spreading from the hilum."""
    polar = np.linspace(0.15, 0.95, roots) * np.pi + rng.normal(0, 0.12, roots)
    depth = rng.uniform(-0.7, 0.8, roots)
    way = np.stack([side * np.sin(polar), depth, np.cos(polar)], axis=1)
    start, thick, parts = np.repeat(root[None], roots, axis=0), np.full(roots, radius), []
    for level in range(levels):
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        end = start + way * (30 * 0.85**level * rng.uniform(0.75, 1.25, len(way)))[:, None]
        parts.append(Tubes.along(start, end, thick, 0.78))
        start, thick, way = np.repeat(end, 2, axis=0), np.repeat(thick * 0.76, 2), np.repeat(way, 2, axis=0)
        way = way + rng.normal(0, 0.5, way.shape)
    return Tubes.joined(*parts)
