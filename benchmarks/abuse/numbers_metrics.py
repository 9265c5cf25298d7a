"""Metrics against closed forms, and on random pairs of masks against SimpleITK and surface-distance; see ``benchmarks.abuse.numbers``."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.result import Result
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.measure.overlap import count_overlap, dice
from lungshift.measure.surface import hausdorff95_mm, surface_dice

PAIRS, SEED = 500, 20
_BOTH_EMPTY, _ONE_EMPTY = 20, 40
_RIVAL = Path(__file__).with_name("numbers_rival.py")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks on one grid, and a tolerance for their surface Dice."""

    reference: Mask
    prediction: Mask
    tolerance_mm: float


def ask_rival(python: Path, what: str, given: Path) -> list[dict]:
    """The answers of ``numbers_rival.py``."""
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "told.json"
        subprocess.run(
            [python, "-I", _RIVAL, what, given, told], check=True
        )  # isolated: nothing of lungshift is in its way
        answers: list[dict] = json.loads(told.read_text())
        return answers


def random_pairs(count: int = PAIRS, seed: int = SEED) -> list[Pair]:
    """Pairs of every kind: blobs, specks, boxes at the edge, one inside the other, far apart, alike, and empty ones."""
    rng = np.random.default_rng(seed)
    return [_pair(rng, number) for number in range(count)]


def _pair(rng: np.random.Generator, number: int) -> Pair:
    shape = tuple(int(n) for n in rng.integers(4, 26, 3))
    row_mm = rng.uniform(0.4, 2.5)
    spacing_mm = (float(rng.uniform(0.5, 8)), float(row_mm), float(row_mm * rng.choice([1.0, rng.uniform(0.6, 1.6)])))
    grid = Geometry.regular(shape, spacing_mm, tuple(rng.uniform(-300, 300, 3)))  # type: ignore[arg-type]
    reference = _mask(rng, shape)
    prediction = _other(rng, reference)
    if number < _BOTH_EMPTY:
        reference, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    elif number < _BOTH_EMPTY + _ONE_EMPTY:
        (reference if number % 2 else prediction)[:] = False
    tolerance_mm = float(rng.choice([0.0, *spacing_mm, rng.uniform(0.2, 6), rng.uniform(0.2, 6)]))
    return Pair(Mask(reference, grid), Mask(prediction, grid), tolerance_mm)


def _mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    from scipy import ndimage

    kind = rng.integers(4)
    mask = np.zeros(shape, bool)
    if kind == 0:
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.5, 2.5))
        mask = noise > np.quantile(noise, rng.uniform(0.5, 0.97))
    elif kind == 1:
        mask = rng.random(shape) < rng.uniform(0.005, 0.4)
    elif kind == 2:
        low = [int(rng.integers(0, n)) for n in shape]
        mask[tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))] = True
    else:
        centre, radii = rng.uniform(0, shape), rng.uniform(1, np.array(shape) / 1.5)
        axes = np.ogrid[tuple(slice(0, n) for n in shape)]
        mask = np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1)
    if not mask.any():
        mask[tuple(int(rng.integers(n)) for n in shape)] = True
    return mask


def _other(rng: np.random.Generator, reference: np.ndarray) -> np.ndarray:
    """What a reader, a model or nonsense would make of it."""
    from scipy import ndimage

    kind = rng.integers(5)
    if kind == 0:
        return np.roll(reference, tuple(rng.integers(-3, 4, 3)), axis=(0, 1, 2))
    if kind == 1:
        grown: np.ndarray = (ndimage.binary_dilation if rng.random() < 0.5 else ndimage.binary_erosion)(reference)
        return grown if grown.any() else reference.copy()
    if kind == 2:
        return reference ^ (rng.random(reference.shape) < 0.05)
    return reference.copy() if kind == 3 and rng.random() < 0.2 else _mask(rng, reference.shape)


@dataclass(frozen=True, eq=False)
class Answers:
    """Our numbers and theirs, a row per pair."""

    ours: dict[str, np.ndarray]
    theirs: dict[str, np.ndarray]
    empty: np.ndarray
    """0, 1 or 2 empty masks."""
    voxel_mm: np.ndarray
    """The diagonal of a voxel."""


def answer(pairs: list[Pair], python: Path) -> Answers:
    """Ask both sides."""
    ours = [
        {
            "dice": dice(count_overlap(pair.reference, pair.prediction)),
            "nsd": surface_dice(pair.reference, pair.prediction, pair.tolerance_mm),
            "hd95": hausdorff95_mm(pair.reference, pair.prediction),
        }
        for pair in pairs
    ]
    arrays = {f"{side}{n}": getattr(pair, name).voxels for n, pair in enumerate(pairs) for side, name in _SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pairs.npz"
        spacing = np.array([pair.reference.geometry.spacing_mm for pair in pairs])
        np.savez(file, **arrays, spacing_mm=spacing, tolerance_mm=np.array([pair.tolerance_mm for pair in pairs]))
        theirs = ask_rival(python, "metrics", file)
    empty = np.array([2 - pair.reference.voxels.any() - int(pair.prediction.voxels.any()) for pair in pairs])
    return Answers(_columns(ours), _columns(theirs), empty, np.linalg.norm(spacing, axis=1))


_SIDES = (("a", "reference"), ("b", "prediction"))


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def against_rivals(python: Path, count: int = PAIRS) -> tuple[list[Result], list[str]]:
    """The goals on random pairs, and what of the rivals is told but not judged."""
    pairs = random_pairs(count)
    found = answer(pairs, python)
    ours, theirs, filled = found.ours, found.theirs, found.empty == 0
    some = found.empty < 2
    goals = [
        _apart(
            f"Dice, SimpleITK, {some.sum()} pairs with a voxel in either", ours["dice"], theirs["sitk_dice"], some, 1e-6
        ),
        _apart(
            f"Surface Dice, surface-distance, {some.sum()} pairs with a voxel in either",
            ours["nsd"],
            theirs["google_nsd"],
            some,
            1e-3,
        ),
        _apart(
            f"HD95 in mm, SimpleITK's contours and distance map, {filled.sum()} pairs",
            ours["hd95"],
            theirs["sitk_hd95"],
            filled,
            1e-3,
        ),
        *_empty_goals(found),
    ]
    return goals, _told(found)


def _apart(what: str, ours: np.ndarray, theirs: np.ndarray, judged: np.ndarray, most: float) -> Result:
    off = np.abs(ours - theirs)[judged]
    return Result(f"{what}: largest difference", float(np.where(np.isnan(off), np.inf, off).max()), "", most)


def _empty_goals(found: Answers) -> Iterator[Result]:
    """What empty masks mean, exactly."""
    policy = {2: (math.nan, math.nan, math.nan), 1: (0.0, 0.0, math.nan)}
    for empty, expected in policy.items():
        rows = found.empty == empty
        wrong = sum(
            int(np.count_nonzero(~_same(found.ours[name][rows], value)))
            for name, value in zip(("dice", "nsd", "hd95"), expected, strict=True)
        )
        said = ", ".join(
            f"{name} {value:g}" for name, value in zip(("Dice", "surface Dice", "HD95"), expected, strict=True)
        )
        yield Result(f"{rows.sum()} pairs with {empty} empty: answers other than {said}", wrong, "", 0)


def _same(values: np.ndarray, expected: float) -> np.ndarray:
    return np.isnan(values) if math.isnan(expected) else values == expected


def _told(found: Answers) -> list[str]:
    both = found.empty == 0
    off = np.abs(found.ours["hd95"] - found.theirs["google_hd95"])[both]
    within = float(np.mean(off <= found.voxel_mm[both]))
    one = found.theirs["google_nsd"][found.empty == 1]
    sitk_empty = found.theirs["sitk_dice"][found.empty == 2]
    return [
        f"surface-distance's HD95 is another quantity: a percentile of surface area between voxel corners, ours is one of surface voxels between their "
        f"centres. Not judged: median difference {np.median(off):.2f} mm, 95 % below {np.quantile(off, 0.95):.2f} mm, largest {off.max():.2f} mm; "
        f"{100 * within:.1f} % are within the diagonal of a voxel.",
        "lungshift has no average surface distance (ASSD), so there is nothing to compare.",
        f"Where one mask is empty surface-distance says {_words(one)}; where both are, SimpleITK's Dice is {_words(sitk_empty)} and ours NaN.",
    ]


def _words(values: np.ndarray) -> str:
    return ", ".join(sorted({f"{value:g}" for value in values}))


def closed_forms() -> list[Result]:
    """Balls and boxes whose numbers are known: each value must lie between those of shapes a voxel smaller and a voxel larger."""
    grids = (
        (1.0, 1.0, 1.0),
        (2.5, 0.7, 0.7),
        (5.0, 1.0, 0.5),
    )
    checked = [one for spacing in grids for one in _shapes(spacing)]
    by_kind: dict[str, list[bool]] = {}
    for kind, holds in checked:
        by_kind.setdefault(kind, []).append(holds)
    return [
        Result(f"{kind}: {len(all_)} values, of them further off than a voxel", len(all_) - sum(all_), "", 0)
        for kind, all_ in by_kind.items()
    ]


def _shapes(spacing: tuple[float, float, float]) -> Iterator[tuple[str, bool]]:
    voxel, diagonal = max(spacing), math.hypot(*spacing)
    for radius in (14.0, 20.0):
        one = _ball(spacing, radius)
        yield "Volume of a ball", _between(one.volume_ml * 1000, lambda r: 4 / 3 * math.pi * r**3, radius, voxel / 2)
        for step in (voxel * 2, voxel * 4):
            off = _ball(spacing, radius, step)
            overlap = dice(count_overlap(one, off))
            yield "Dice of two balls, the lens", _between(overlap, lambda d, r=radius: _lens(r, d), step, voxel)
            yield "HD95 of a ball in a ball", abs(hausdorff95_mm(one, _ball(spacing, radius + step)) - step) <= voxel
            for tolerance in (step / 3, step / 2):
                nsd = surface_dice(one, off, tolerance)
                yield (
                    "Surface Dice of two balls",
                    _between(nsd, lambda t, r=radius, d=step: _near_ball(r, d, t), tolerance, voxel),
                )
            apart = _ball(spacing, radius + step)
            yield "Surface Dice of a ball in a ball, 0 or 1", surface_dice(one, apart, step - diagonal) == 0
            yield "Surface Dice of a ball in a ball, 0 or 1", surface_dice(one, apart, step + diagonal) == 1
    for axis in range(3):
        side, step = 6 * voxel * 2, 2 * voxel
        one, off = _box(spacing, side), _box(spacing, side, axis, step)
        yield "Volume of a box", math.isclose(one.volume_ml, np.prod(_sides(spacing, side)) / 1000, rel_tol=1e-9)
        moved = round(step / spacing[axis]) * spacing[axis]
        length = _sides(spacing, side)[axis]
        yield (
            "Dice of two boxes",
            math.isclose(dice(count_overlap(one, off)), (length - moved) / length, rel_tol=1e-9),
        )
        yield "HD95 of a moved box", abs(hausdorff95_mm(one, off) - moved) <= 1e-4


def _between(value: float, form: Callable[[float], float], at: float, reach: float) -> bool:
    ends = sorted((form(max(at - reach, 0.0)), form(at + reach)))
    return ends[0] <= value <= ends[1]


def _lens(radius: float, apart: float) -> float:
    """Dice of two balls of one radius whose centres lie apart."""
    if apart >= 2 * radius:
        return 0.0
    return math.pi * (4 * radius + apart) * (2 * radius - apart) ** 2 / 12 / (4 / 3 * math.pi * radius**3)


def _near_ball(radius: float, apart: float, tolerance: float) -> float:
    """The part of a sphere within ``tolerance`` of an equal one: even in the cosine of the angle to the shift."""

    def cosine(distance: float) -> float:
        return min(max((radius**2 + apart**2 - distance**2) / (2 * radius * apart), -1.0), 1.0)

    return (cosine(max(radius - tolerance, 0.0)) - cosine(radius + tolerance)) / 2


def _grid(spacing: tuple[float, float, float], reach: float) -> Geometry:
    half = [math.ceil(reach / mm) for mm in spacing]
    origin = [-n * mm for n, mm in zip(half, spacing, strict=True)][::-1]
    return Geometry.regular(tuple(2 * n + 1 for n in half), spacing, tuple(origin))  # type: ignore[arg-type]


def _ball(spacing: tuple[float, float, float], radius: float, off: float = 0.0) -> Mask:
    """A ball, moved along an oblique line."""
    grid = _grid(spacing, 48.0)
    centre = off * np.array([1, 2, 2]) / 3
    places = grid.world_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Mask(np.linalg.norm(places - centre, axis=-1) <= radius, grid)


def _sides(spacing: tuple[float, float, float], side: float) -> np.ndarray:
    return np.array([round(side / mm) * mm for mm in spacing])


def _box(spacing: tuple[float, float, float], side: float, axis: int = 0, step: float = 0.0) -> Mask:
    counts = [round(side / mm) for mm in spacing]
    more = [round(step / mm) if n == axis else 0 for n, mm in enumerate(spacing)]
    room = [n + round(3 * max(spacing) / mm) + 2 for n, mm in zip(counts, spacing, strict=True)]
    grid = Geometry.regular(tuple(room), spacing)  # type: ignore[arg-type]
    voxels = np.zeros(grid.shape, bool)
    voxels[tuple(slice(1 + add, 1 + add + n) for add, n in zip(more, counts, strict=True))] = True
    return Mask(voxels, grid)
