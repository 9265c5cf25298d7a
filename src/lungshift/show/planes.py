"""Slices of a scan as a radiologist looks at them, with lesion and lung drawn on: axial and coronal, and the lungs by zone.

Front and head are up, the patient's right is on the left of every picture. Pixels are stretched to their size in mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from scipy import ndimage

from lungshift.ct.boxes import box_of
from lungshift.ct.volume import Mask, Volume
from lungshift.measure.burden import Burden
from lungshift.measure.density import is_dense
from lungshift.measure.regions import THIRDS, ZONES, Regions
from lungshift.show.drawing import INK, MUTED, Drawing, finish, new_figure, rgb, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LUNG_LINE, GROUND_GLASS, CONSOLIDATION = "#56b4e9", "#ffb000", "#e0218a"
"""Outline of the lung mask, and the two densities of a lesion: apart for every eye, also in grey."""

CLASS_COLOURS: Final = ("#eef2f5", "#cfe3ef", "#8fbfdc", "#3f8ab8", "#0b4f7d")
"""Classes 0 to 4; without lung a zone is white."""

_WINDOW_HU = (-1350.0, 150.0)
_FILL = 0.38
_MARGIN_MM = 8.0
_FINE_MM = 0.8


@dataclass(frozen=True, eq=False)
class View:
    """One plane of a scan, right way up.

    Attributes:
        title: What it shows.
        hu: As a picture, first row on top.
        lesion: The lesion in it.
        lung: The lung mask in it.
        pixel_mm: Height and width of a pixel.
    """

    title: str
    hu: Shaped[np.ndarray, "row column"]
    lesion: Bool[np.ndarray, "row column"]
    lung: Bool[np.ndarray, "row column"]
    pixel_mm: tuple[float, float]


def pick_views(volume: Volume, lesion: Mask, regions: Regions) -> tuple[View, ...]:
    """The coronal plane with most lesion, and of each third the axial slice with most; where there is none, the middle."""
    inside = box_of(regions.zones > 0, [math.ceil(_MARGIN_MM / mm) for mm in volume.geometry.spacing_mm])
    axial = [_axial(volume, lesion, regions, third, inside) for third in THIRDS]
    return (_coronal(volume, lesion, regions, inside), *(view for view in axial if view))


def draw_views(views: Sequence[View]) -> Drawing:
    """The views side by side, at one scale."""
    sizes = [(view.hu.shape[0] * view.pixel_mm[0], view.hu.shape[1] * view.pixel_mm[1]) for view in views]
    widths = [width for _, width in sizes]
    width = 10.0
    height = width * max(tall for tall, _ in sizes) / sum(widths) + 0.3
    with style():
        figure = new_figure(width, height)
        axes = figure.subplots(1, len(views), width_ratios=widths, squeeze=False)[0]
        for axis, view, (tall, wide) in zip(axes, views, sizes, strict=True):
            axis.imshow(paint(view), extent=(0, wide, tall, 0), interpolation="bilinear")
            axis.set_title(view.title, fontsize=8, color=INK)
            _mark_sides(axis)
        caption = "Window −1350 to 150 HU. Blue line: lung mask. Amber: ground glass. Magenta: consolidation. R is the patient's right."
        return finish(figure, "planes", "planes", caption, f"CT slices with the lesion drawn on: {_listed(views)}.")


def draw_zones(regions: Regions, burden: Burden) -> Drawing:
    """The lungs from the front, each zone in the colour of its class and with its percent."""
    slice_mm, _, column_mm = regions.geometry.spacing_mm
    picture = _nearest(_silhouette(regions.zones), (slice_mm, column_mm))
    tall, wide = picture.shape[0] * _FINE_MM, picture.shape[1] * _FINE_MM
    width = 3.4
    with style():
        figure = new_figure(width, width * tall / wide + 0.1)
        axis = figure.subplots()
        axis.imshow(_coloured(picture, burden), extent=(0, wide, tall, 0), interpolation="nearest")
        for number, zone in enumerate(ZONES, 1):
            _label_zone(axis, picture == number, burden, zone)
        _mark_sides(axis, INK)
        named = ", ".join(f"{zone.replace('_', ' ')} {_percent(burden.extents[zone].percent)}" for zone in ZONES)
        caption = "Percent of each zone that is lesion, seen from the front; colours by class."
        return finish(figure, "zones", "zones", caption, f"Lung zones from the front: {named}.")


def paint(view: View) -> UInt8[np.ndarray, "y x 3"]:
    """A view as colours, in square pixels: the scan in a lung window, lesion tinted by density and outlined, the lung outlined."""
    low, high = _WINDOW_HU
    hu = _smooth(view.hu.astype(np.float32), view.pixel_mm)
    lesion, lung = (_nearest(mask, view.pixel_mm) for mask in (view.lesion, view.lung))
    dense = _nearest(is_dense(view.hu) & view.lesion, view.pixel_mm)
    image = np.repeat(np.clip((hu - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    for mask, colour in ((lesion & ~dense, GROUND_GLASS), (dense, CONSOLIDATION)):
        image[mask] = (1 - _FILL) * image[mask] + _FILL * np.array(rgb(colour))
    image[_outline(lung)] = rgb(LUNG_LINE)
    return (image * 255).astype(np.uint8)


def _fine_shape(array: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[int, int]:
    rows, columns = (max(1, round(count * mm / _FINE_MM)) for count, mm in zip(array.shape, pixel_mm, strict=True))
    return rows, columns


def _nearest(array: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """The same on fine square pixels, so that outlines are thin however thick the slices are."""
    shape = _fine_shape(array, pixel_mm)
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(shape, array.shape, strict=True)
    )
    return np.asarray(array[np.ix_(rows, columns)])


def _smooth(array: Float32[np.ndarray, "row column"], pixel_mm: tuple[float, float]) -> Float32[np.ndarray, "y x"]:
    from PIL import Image

    rows, columns = _fine_shape(array, pixel_mm)
    return np.asarray(Image.fromarray(array).resize((columns, rows), Image.Resampling.BILINEAR))


def _axial(volume: Volume, lesion: Mask, regions: Regions, third: str, box: tuple[slice, slice, slice]) -> View | None:
    where = regions.mask(third).voxels
    index = _richest(np.count_nonzero(lesion.voxels & where, axis=(1, 2)), np.count_nonzero(where, axis=(1, 2)))
    if index is None:
        return None
    _, row_mm, column_mm = volume.geometry.spacing_mm
    cut = (index, *box[1:])
    title = f"{third}, slice {index + 1} of {len(volume.hu)}"
    return View(title, volume.hu[cut], lesion.voxels[cut], regions.zones[cut] > 0, (row_mm, column_mm))


def _coronal(volume: Volume, lesion: Mask, regions: Regions, box: tuple[slice, slice, slice]) -> View:
    inside = regions.zones > 0
    row = _richest(np.count_nonzero(lesion.voxels & inside, axis=(0, 2)), np.count_nonzero(inside, axis=(0, 2)))
    slice_mm, _, column_mm = volume.geometry.spacing_mm
    planes = [array[box[0], row or 0, box[2]][::-1] for array in (volume.hu, lesion.voxels, inside)]
    return View("coronal", planes[0], planes[1], planes[2], (slice_mm, column_mm))


def _richest(lesion: np.ndarray, lung: np.ndarray) -> int | None:
    """Where most lesion is, else where most lung is, else nowhere."""
    counts = lesion if lesion.any() else lung
    return int(counts.argmax()) if counts.any() else None


def _outline(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def _silhouette(zones: np.ndarray) -> np.ndarray:
    """The lungs seen from the front, head up: for each place the zone of which most lies behind it."""
    depth = np.stack([np.count_nonzero(zones == number, axis=1) for number in range(1, len(ZONES) + 1)])
    picture = np.where(depth.any(axis=0), 1 + depth.argmax(axis=0), 0)
    rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    return np.asarray(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][::-1])


def _coloured(picture: np.ndarray, burden: Burden) -> np.ndarray:
    colours = np.ones((len(ZONES) + 1, 3))
    for number, zone in enumerate(ZONES, 1):
        severity = burden.extents[zone].severity
        colours[number] = (1, 1, 1) if np.isnan(severity) else rgb(CLASS_COLOURS[int(severity)])
    image = colours[picture]
    edge = np.zeros(picture.shape, np.bool_)
    for number in range(1, len(ZONES) + 1):
        zone = picture == number
        edge |= zone & ~ndimage.binary_erosion(zone)
    image[edge] = rgb(MUTED)
    return np.asarray(image)


def _label_zone(axis: Axes, mask: np.ndarray, burden: Burden, zone: str) -> None:
    if not mask.any():
        return
    row, column = ndimage.center_of_mass(mask)
    extent = burden.extents[zone]
    dark = not np.isnan(extent.severity) and extent.severity >= 3
    axis.text(
        (column + 0.5) * _FINE_MM,
        (row + 0.5) * _FINE_MM,
        _percent(extent.percent),
        ha="center",
        va="center",
        fontsize=11,
        color="white" if dark else INK,
    )


def _percent(value: float) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


def _mark_sides(axis: Axes, colour: str = "white") -> None:
    axis.set_axis_off()
    box = {"facecolor": INK, "edgecolor": "none", "boxstyle": "square,pad=0.15"} if colour == "white" else None
    for place, word in ((0.03, "R"), (0.97, "L")):
        side = "left" if word == "R" else "right"
        axis.text(place, 0.97, word, transform=axis.transAxes, va="top", ha=side, color=colour, fontsize=8, bbox=box)


def _listed(views: Sequence[View]) -> str:
    return ", ".join(view.title for view in views)
