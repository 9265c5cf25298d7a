"""The viewer: one page with slices and surfaces of one or more dates of a patient, that opens offline by double click.

The page holds a coarser copy of the scan (``coarse_geometry``), so that it stays small and opens fast without a graphics card too;
numbers on it are of the whole scan. NiiVue draws; it lies unchanged in ``vendor`` and is copied into each page.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError, InputError
from lungshift.files import write_text
from lungshift.measure.lesions import Lesion, find_lesions
from lungshift.measure.overlap import count_overlap, dice
from lungshift.measure.regions import SIDES, split_sides
from lungshift.show.coarse import AIR_HU, coarse_geometry, coarse_hu, coarse_shares
from lungshift.show.figures import BOTH, PREDICTION, PREDICTION_ONLY, REFERENCE, REFERENCE_ONLY
from lungshift.show.report import page_environment
from lungshift.show.surfaces import Surface, surface_of_shares
from lungshift.show.words import RESEARCH_ONLY, plural

VOXELS: Final = 6_500_000
"""Voxels of a page, all dates together: about 187 x 187 x 187."""

SHARED: Final = "#B8255F"
"""Where reader and model agree, beside the colours of either; a test simulates red-green blind eyes."""

_FEWEST_VOXELS = 500_000
_STEP_HU, _HIGHEST_HU = 4, 1600
_TRIANGLES: Final = {
    "lung": 60_000,
    "reference": 40_000,
    "prediction": 40_000,
    "tp": 25_000,
    "fp": 25_000,
    "fn": 25_000,
}
_ROWS = 200
_LUNG_BLUR = 1.0
"""In voxels of the page: readers draw lungs slice by slice, and the steps between them are no anatomy."""
_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_COLOURS: Final = {
    "reference": REFERENCE,
    "prediction": PREDICTION,
    "shared": SHARED,
    "tp": BOTH,
    "fp": PREDICTION_ONLY,
    "fn": REFERENCE_ONLY,
    "lung": "#A9C6D6",
}
_PRESETS: Final = (
    {"name": "Lung", "level": -600, "width": 1500},
    {"name": "Mediastinum", "level": 40, "width": 400},
    {"name": "Lesion", "level": -450, "width": 900},
)
_KEYS: Final = (
    ("1 2 3 4 5", "all, axial, coronal, sagittal, 3-D"),
    ("arrows", "move the cursor in the plane last used"),
    (", . or page keys", "slice towards feet, front or right; towards head, back or left"),
    ("n p", "next, previous lesion"),
    ("w", "next window"),
    ("r m l c", "reader's lesions, model's lesions, lungs, cursor lines on and off"),
    ("a", "reader and model, or agreement"),
    ("o", "outlines on slices"),
    ("+ -", "slices nearer, farther"),
    ("0", "back to the start"),
    ("s", "save a picture (PNG)"),
    ("? Esc", "this help, and close it"),
)


@dataclass(frozen=True, eq=False)
class ViewerDate:
    """One date of a patient, as the page shows it.

    Attributes:
        label: What the page calls it, as ``day 0``; it should name nobody.
        case: The scan with its lungs and, where a reader drew them, lesions.
        prediction: The model's lesions, on the scan's grid.
        to_first: 4 x 4, takes LPS mm of this scan to those of the first date, for the linked cursor.
        notes: What to say of a lesion in the list, by its number: of the prediction where there is one, else of the reference.

    Raises:
        GeometryError: The prediction is not on the scan's grid, or ``to_first`` is no invertible 4 x 4.
        InputError: An empty label.
    """

    label: str
    case: Case
    prediction: Mask | None = None
    to_first: np.ndarray = field(default_factory=lambda: np.eye(4))
    notes: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.label.strip():
            raise InputError("A date of the viewer needs a label, for example 'day 0'.")
        if self.prediction is not None:
            self.case.volume.geometry.require_same(
                self.prediction.geometry, f"{self.label}: scan and predicted lesions"
            )
        matrix = np.asarray(self.to_first, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
            raise GeometryError(f"{self.label}: to_first is a 4 x 4 that can be inverted; got {matrix.tolist()}.")

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """The lesion masks that exist, by layer."""
        both = (("reference", self.case.lesion), ("prediction", self.prediction))
        return {layer: mask for layer, mask in both if mask is not None}

    @cached_property
    def lesions(self) -> dict[str, tuple[Lesion, ...]]:
        """The lesions of each mask at full resolution, the largest first."""
        return {layer: find_lesions(mask, self.case.volume) for layer, mask in self.masks.items()}

    @cached_property
    def sides(self) -> UInt8[np.ndarray, "slice row column"] | None:
        """1 in the right lung, 2 in the left; None without lungs."""
        lung = self.case.lung
        return split_sides(lung, self.case.volume) if lung is not None and lung.voxels.any() else None

    def side(self, lesion: Lesion) -> str:
        """The side that a lesion's seat is on; empty outside the lungs."""
        number = 0 if self.sides is None else int(self.sides[lesion.seat])
        return ("", *SIDES)[number]


def write_viewer(path: Path, dates: Sequence[ViewerDate], *, voxels: int = VOXELS) -> Path:
    """Write a page that shows the dates side by side; one file that needs no network and holds nobody's name.

    Args:
        path: The page, as ``viewer.html``; an existing file is replaced once the new one is whole.
        dates: The dates from left to right, the first one first.
        voxels: How many voxels the page holds, all dates together.

    Returns:
        The page.

    Raises:
        InputError: No date, or fewer than 500,000 voxels for each.
        MissingError: VTK, which makes the surfaces, is not installed.
        ResourceError: The disk is full or the folder cannot be written.
    """
    write_text(path, render_viewer(dates, voxels=voxels))
    return path


def render_viewer(dates: Sequence[ViewerDate], *, voxels: int = VOXELS) -> str:
    """The page of ``write_viewer`` as text."""
    if not dates or voxels < _FEWEST_VOXELS * len(dates):
        raise InputError(
            f"The viewer needs a date and {_FEWEST_VOXELS} voxels for each; got {len(dates)} dates, {voxels} voxels."
        )
    blobs: dict[str, str] = {}
    grids = [coarse_geometry(date.case.volume.geometry, voxels // len(dates)) for date in dates]
    packed = [
        _pack(date, grid, blobs, f"d{index}", len(dates))
        for index, (date, grid) in enumerate(zip(dates, grids, strict=True))
    ]
    scripts = {"library": _vendored("umd.js"), "program": _template("viewer.js")}
    layers = {layer for date in dates for layer in date.masks}
    page = page_environment().get_template("viewer.html.j2")
    return page.render(
        research_only=RESEARCH_ONLY,
        dates=[_texts(index, date) for index, date in enumerate(dates)],
        scene={"dates": packed, "colours": _COLOURS},
        blobs=blobs.items(),
        colours=_COLOURS,
        presets=_PRESETS,
        keys=_KEYS,
        has={"lung": any(date.case.lung for date in dates)}
        | {one: one in layers for one in ("reference", "prediction")},
        comparable=len(layers) == 2,
        about=_about(dates, grids),
        notice=_vendored("LICENSE.txt"),
        script_hashes=" ".join(map(_hash, scripts.values())),
        **scripts,
    )


def _pack(date: ViewerDate, grid: Geometry, blobs: dict[str, str], prefix: str, share: int) -> dict[str, Any]:
    """What the program needs of a date, one of ``share`` on the page; the arrays go to ``blobs``."""

    def keep(name: str, array: np.ndarray) -> str:
        blobs[f"{prefix}-{name}"] = base64.b64encode(gzip.compress(array.tobytes(), 6, mtime=0)).decode()
        return f"{prefix}-{name}"

    shares = {layer: coarse_shares(mask, grid, date.lesions[layer]) for layer, mask in date.masks.items()}
    nothing = np.zeros(grid.shape, np.float32)
    reference, prediction = (shares.get(layer, nothing) >= 0.5 for layer in ("reference", "prediction"))
    hu = np.clip(np.rint(coarse_hu(date.case.volume, grid) / _STEP_HU), AIR_HU // _STEP_HU, _HIGHEST_HU // _STEP_HU)
    found = (
        (layer, surface_of_shares(inside, grid, triangles=_TRIANGLES[layer] // share))
        for layer, inside in _structures(date, shares, grid)
    )
    into_first = _RAS @ np.asarray(date.to_first, np.float64) @ _RAS
    return {
        "label": date.label,
        "size": list(grid.shape[::-1]),
        "spacing": list(grid.spacing_mm[::-1]),
        "origin": grid.affine[:3, 3].tolist(),
        "centre": grid.world_mm((np.array(grid.shape) - 1) / 2).tolist(),
        "affine": (_RAS @ grid.affine[:, [2, 1, 0, 3]])[:3].ravel().tolist(),
        "step": _STEP_HU,
        "hu": keep("hu", hu.astype("<i2")),
        "classes": keep("classes", reference + 2 * prediction.astype(np.uint8)),
        "surfaces": [_pack_surface(layer, surface, keep) for layer, surface in found if len(surface.triangles)],
        "to_first": into_first.ravel().tolist(),
        "from_first": np.linalg.inv(into_first).ravel().tolist(),
    }


def _structures(
    date: ViewerDate, shares: Mapping[str, np.ndarray], grid: Geometry
) -> Iterator[tuple[str, Float32[np.ndarray, "slice row column"]]]:
    """The layers that are surfaces, as shares of voxels; the lungs last, for they are drawn over the rest."""
    yield from shares.items()
    if len(shares) == 2:
        reference, prediction = shares["reference"], shares["prediction"]
        yield "tp", np.minimum(reference, prediction)
        yield "fp", np.where(reference < 0.5, prediction, 0)
        yield "fn", np.where(prediction < 0.5, reference, 0)
    if date.case.lung is not None:
        yield "lung", ndimage.gaussian_filter(coarse_shares(date.case.lung, grid), _LUNG_BLUR)


def _pack_surface(layer: str, surface: Surface, keep: Any) -> dict[str, Any]:
    """Points as 16-bit fractions of their box, in RAS as the viewer draws; a step is a few micrometres."""
    points = surface.points_mm.astype(np.float64) * (-1, -1, 1)
    low, high = points.min(axis=0), points.max(axis=0)
    unit = np.maximum(high - low, 1e-6) / 65535
    return {
        "layer": layer,
        "low": low.tolist(),
        "unit": unit.tolist(),
        "points": keep(f"{layer}-points", np.rint((points - low) / unit).astype("<u2")),
        "triangles": keep(f"{layer}-triangles", surface.triangles.astype("<u4")),
    }


def _texts(index: int, date: ViewerDate) -> dict[str, Any]:
    names = {"reference": "Reader", "prediction": "Model"}
    summary = [f"{names[layer].lower()} {mask.volume_ml:.1f} ml" for layer, mask in date.masks.items()]
    if len(date.masks) == 2:
        score = dice(count_overlap(date.masks["reference"], date.masks["prediction"]))
        summary.append(f"Dice {'undefined' if math.isnan(score) else f'{score:.3f}'}")
    if date.case.lung is not None:
        summary.append(f"lungs {date.case.lung.volume_ml / 1000:.2f} l")
    noted = "prediction" if "prediction" in date.masks else "reference"
    tables = [_table(layer, names[layer], date, date.notes if layer == noted else {}) for layer in date.masks]
    return {"label": date.label, "index": index, "summary": summary, "tables": tables}


def _table(layer: str, name: str, date: ViewerDate, notes: Mapping[int, str]) -> dict[str, Any]:
    """The list of lesions of one mask; a button goes to the voxel in the lesion that is nearest to its centre."""
    lesions, geometry = date.lesions[layer], date.case.volume.geometry
    rows = [
        {
            "number": lesion.number,
            "ml": f"{lesion.volume_ml:.2f}" if lesion.volume_ml >= 0.01 else "<0.01",
            "hu": f"{lesion.mean_hu:.0f}".replace("-", "−"),
            "mm": [f"{one:.3f}" for one in geometry.world_mm(np.array(lesion.seat))],
            "side": date.side(lesion),
            "note": notes.get(lesion.number, ""),
        }
        for lesion in lesions[:_ROWS]
    ]
    rest = lesions[_ROWS:]
    left_out = (
        f"And {plural(len(rest), 'lesion')} more, {sum(one.volume_ml for one in rest):.2f} ml together." if rest else ""
    )
    count = plural(len(lesions), "lesion")
    return {
        "layer": layer,
        "name": name,
        "count": count,
        "lesions": rows,
        "with_notes": bool(notes),
        "with_sides": date.sides is not None,
        "left_out": left_out,
    }


def _about(dates: Sequence[ViewerDate], grids: Sequence[Geometry]) -> str:
    sizes = []
    for date, grid in zip(dates, grids, strict=True):
        of = date.case.volume.geometry
        sizes.append(
            f"{date.label}: {_by(grid.shape[::-1])} voxels of {_by(f'{one:.2f}' for one in grid.spacing_mm[::-1])} mm, from "
            f"{_by(of.shape[::-1])} of {_by(f'{one:.2f}' for one in of.spacing_mm[::-1])} mm."
        )
    return (
        f"Pictures are of a coarser copy along the patient's own axes. {' '.join(sizes)} HU are in steps of {_STEP_HU}, from {AIR_HU} to {_HIGHEST_HU}. "
        "Lists and volumes are of the whole scan."
    )


def _by(numbers: Any) -> str:
    return " x ".join(map(str, numbers))


def _vendored(suffix: str) -> str:
    return (resources.files("lungshift.show") / "vendor" / f"niivue-0.69.0.{suffix}").read_text("utf-8")


def _template(name: str) -> str:
    return (resources.files("lungshift.show") / "templates" / name).read_text("utf-8")


def _hash(script: str) -> str:
    """What the page's content policy allows to run: these scripts and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
