"""Pictures of one finding: its slice with and without outlines, the slices beside it, and the lungs in 3-D with it inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from scipy import ndimage

from lungshift.audit.finding import Finding
from lungshift.audit.judged import Judged
from lungshift.audit.suspects import Opinion
from lungshift.ct.boxes import box_of
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import InputError
from lungshift.measure.lesions import label_lesions
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.show.drawing import rgb
from lungshift.show.figures import PREDICTION, REFERENCE
from lungshift.show.oblique import Box, Oblique

if TYPE_CHECKING:
    from PIL.Image import Image

SUSPECT: Final = "#ff4d4d"
"""What a finding is about."""

OF_A_PIECE: Final = ("lesion-outside-lung", "lesion-in-air", "lesion-in-vessel", "lesion-in-bone", "orphan", "speck")
"""Findings that no network made and that are about the piece of the label at their seat."""

_LOW_HU, _HIGH_HU = -1200, 300
_SIDE, _SMALL, _THUMB = 420, 210, 240
_QUALITY, _THUMB_QUALITY = 82, 70
_MARGIN = 6
_PICTURE = 192
_RING, _RING_SLICE = 9.0, 13.0
_LETTER, _PALE = 14, (205, 212, 220)
_THIRDS: Final = (("lower", "middle", "upper"), ("at the front", "half-way to the back", "at the back"))


@dataclass(frozen=True)
class Shot:
    """A picture on the page.

    Attributes:
        uri: The picture itself, as a data URI.
        alt: What it shows, for those who do not see it.
        caption: A few words for below it.
        kind: What it is: the slice, one beside it, or the lungs in 3-D.
    """

    uri: str
    alt: str
    caption: str
    kind: Literal["slice", "beside", "lungs"] = "slice"


@dataclass(frozen=True, eq=False)
class Seen:
    """What there is to see of a case.

    Attributes:
        opinion: Scan, masks and networks as small pictures.
        first: The slice of the scan where they begin.
        grid: Between the scan's own slices and the pictures.
        networks: Whether any was asked.
        by_threshold: Whether the lungs were found by threshold, as nobody marked them.
    """

    opinion: Opinion
    first: int
    grid: SliceGrid
    networks: bool = True
    by_threshold: bool = False

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns around lungs and label."""
        where = (self.opinion.lung | self.opinion.reference).any(axis=0)
        if not where.any():
            return slice(None), slice(None)
        used = [np.flatnonzero(where.any(axis=axis)) for axis in (1, 0)]
        rows, columns = (slice(max(0, int(one[0]) - _MARGIN), int(one[-1]) + 1 + _MARGIN) for one in used)
        return rows, columns

    @cached_property
    def view(self) -> Oblique:
        """The case in 3-D."""
        layers = (self.opinion.reference, REFERENCE), (self.opinion.predicted, PREDICTION)
        return Oblique(self.opinion.lung, layers, self.opinion.spacing_mm)

    @cached_property
    def pieces(self) -> Int32[np.ndarray, "slice row column"]:
        """The pieces of the label."""
        return self._pieces(self.opinion.reference)

    @cached_property
    def pieces_outside(self) -> Int32[np.ndarray, "slice row column"]:
        """The pieces of the label outside the lung."""
        return self._pieces(self.opinion.reference & ~self.opinion.lung)

    def _pieces(self, mask: Bool[np.ndarray, "slice row column"]) -> Int32[np.ndarray, "slice row column"]:
        return label_lesions(Mask(mask, Geometry.regular(mask.shape, self.opinion.spacing_mm)))


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a finding is in the pictures: the voxel to look at, and its voxels within a box, if they are known."""

    seat: tuple[int, int, int]
    box: Box
    inside: Bool[np.ndarray, "slice row column"]

    @property
    def middle(self) -> tuple[float, float, float]:
        """Middle of its voxels, or the voxel to look at."""
        if not self.inside.any():
            return self.seat
        slice_, row, column = (
            float(at.mean()) + one.start for at, one in zip(np.nonzero(self.inside), self.box, strict=True)
        )
        return slice_, row, column

    def on(self, at: int) -> Bool[np.ndarray, "row column"] | None:
        """Its voxels on a slice within the box's rows and columns; None where there are none."""
        if not self.box[0].start <= at < self.box[0].stop:
            return None
        voxels = self.inside[at - self.box[0].start]
        return voxels if voxels.any() else None


def seen_without_networks(case: Case) -> Seen:
    """A case on small pictures, with what is marked and nothing else; lungs that nobody marked are found by threshold, if they can be."""
    geometry = case.volume.geometry
    grid = SliceGrid(geometry.shape[1], geometry.shape[2], _PICTURE)
    pixel_mm = geometry.spacing_mm[1] * max(geometry.shape[1:]) / _PICTURE
    spacing = (geometry.spacing_mm[0], pixel_mm, pixel_mm)
    nothing = np.zeros((geometry.shape[0], _PICTURE, _PICTURE), bool)

    def masks(mask: Mask | None) -> np.ndarray:
        return nothing if mask is None else np.stack([grid.mask(one) for one in mask.voxels])

    hu = np.stack([grid.image(one, "linear") for one in case.volume.hu])
    lung = masks(case.lung)
    if case.lung is None:
        with suppress(InputError):
            lung = threshold_lungs(Volume(hu, Geometry.regular(hu.shape, spacing))).voxels
    quiet = nothing.astype(np.float32)
    return Seen(
        Opinion(masks(case.lesion), quiet, quiet, quiet, hu, lung, spacing),
        0,
        grid,
        networks=False,
        by_threshold=case.lung is None,
    )


def shots_of(seen: Seen, finding: Finding, one: Judged | None = None) -> tuple[Shot, ...]:
    """The slice without and with outlines, those below and above if there are any, and the lungs in 3-D.

    Args:
        seen: Its case.
        finding: With a voxel to look at; without one there is no picture, nor where its slice is not among the pictures.
        one: What the networks say of it, if they made it.
    """
    spot = _spot(seen, finding, one)
    if spot is None:
        return ()
    at, drawn = spot.seat[0], "label and networks" if seen.networks else "label"
    shots = [
        Shot(_slice(seen, at, None, _SIDE), "CT of the slice", "slice, lung window"),
        Shot(_slice(seen, at, spot, _SIDE), f"The same with {drawn} and finding", f"with {drawn}"),
    ]
    for beside, word in ((at - 1, "lower"), (at + 1, "higher")):
        if 0 <= beside < len(seen.opinion.hu):
            shots.append(
                Shot(_slice(seen, beside, spot, _SMALL), f"The slice one {word}", f"one slice {word}", "beside")
            )
    return (*shots, _in_3d(seen, spot))


def _spot(seen: Seen, finding: Finding, one: Judged | None) -> Spot | None:
    if one is not None:
        here = one.suspect.moved(-seen.first)
        seat, box, inside = here.seat, here.box, here.inside
    elif finding.seat is not None:
        seat = finding.seat[0] - seen.first, *seen.grid.pixel(*finding.seat[1:])
        box, inside = _marked(seen, finding, seat)
    else:
        return None
    return Spot(seat, box, inside) if 0 <= seat[0] < len(seen.opinion.hu) else None


def _marked(seen: Seen, finding: Finding, seat: tuple[int, int, int]) -> tuple[Box, np.ndarray]:
    """What of the label a finding speaks of that no network made; nothing where it does not say, or where small pictures have none of it."""
    box = slice(seat[0], seat[0] + 1), slice(seat[1], seat[1] + 1), slice(seat[2], seat[2] + 1)
    found = np.zeros((1, 1, 1), bool)
    if finding.code in OF_A_PIECE and 0 <= seat[0] < len(seen.opinion.hu):
        pieces = seen.pieces_outside if finding.code == "lesion-outside-lung" else seen.pieces
        # the picture's pixel may show another of the scan's own pixels than the one that is meant: look beside it too
        near = pieces[seat[0], max(0, seat[1] - 1) : seat[1] + 2, max(0, seat[2] - 1) : seat[2] + 2]
        if number := pieces[seat] or near.max():
            found = pieces == number
            box = box_of(found)
            found = found[box]
    return box, found


def _slice(seen: Seen, at: int, spot: Spot | None, width: int) -> str:
    """A slice in a lung window; with label and networks as outlines and the finding tinted, or ringed where too little of it is seen."""
    opinion, (rows, columns) = seen.opinion, seen.window
    grey = np.clip((opinion.hu[at][rows, columns].astype(np.float32) - _LOW_HU) / (_HIGH_HU - _LOW_HU), 0, 1)
    picture = _twice(np.stack([grey] * 3, axis=-1))
    if spot is None:
        return _uri(_resized(picture, width))
    tint = np.zeros(opinion.lung.shape[1:], bool)
    if (voxels := spot.on(at)) is not None:
        tint[spot.box[1:]] = voxels
    tint = _twice(tint[rows, columns])
    picture[tint] = 0.6 * picture[tint] + 0.4 * np.array(rgb(SUSPECT))
    for mask, colour in ((opinion.reference, REFERENCE), (opinion.predicted, PREDICTION)):
        one = _twice(mask[at][rows, columns])
        picture[one & ~ndimage.binary_erosion(one)] = rgb(colour)
    image = _resized(picture, width)
    if at == spot.seat[0]:
        scale = width / picture.shape[1]
        place, reach = _ringed(tint, spot.seat[1] - (rows.start or 0), spot.seat[2] - (columns.start or 0))
        if reach * scale < _RING_SLICE:
            _ring(image, (place[1] * scale, place[0] * scale), _RING_SLICE)
    return _uri(image)


def _ringed(tint: np.ndarray, row: int, column: int) -> tuple[tuple[float, float], float]:
    """Middle and half the extent of what is tinted, in pixels of the picture; without any, the middle of a pixel of the slice."""
    if not tint.any():
        return (2 * row + 1.0, 2 * column + 1.0), 0.0
    ends = [(int(one[0]), int(one[-1]) + 1) for one in (np.flatnonzero(tint.any(axis=axis)) for axis in (1, 0))]
    (top, bottom), (left, right) = ends
    return ((top + bottom) / 2, (left + right) / 2), max(bottom - top, right - left) / 2


def _in_3d(seen: Seen, spot: Spot) -> Shot:
    """The lungs seen obliquely from the front, with the finding in them; a small one is ringed."""
    image = seen.view.picture(_THUMB, spot.inside, spot.box, SUSPECT, spot.seat[0])
    x, y = seen.view.place(_THUMB, spot.middle)
    if not spot.inside.any() or _extent_mm(spot, seen.opinion.spacing_mm) / seen.view.pixel_mm(_THUMB) < 3 * _RING:
        _ring(image, (x, y), _RING)
    _letter(image)
    where = _where(seen, spot)
    alt = (
        "Lungs in 3-D, seen from the front, a little from above and from the patient's left; head up, the patient's right on the left. "
        f"The finding is {where}."
    )
    by = ", lungs by threshold" if seen.by_threshold else ""
    return Shot(_uri(image, _THUMB_QUALITY), alt, f"in 3-D: {where}{by}", "lungs")


def _where(seen: Seen, spot: Spot) -> str:
    """A place in words, by halves and thirds of the box around the lungs."""
    lung = seen.opinion.lung
    box = box_of(lung) if lung.any() else tuple(slice(0, n) for n in lung.shape)
    share = [(at + 0.5 - one.start) / (one.stop - one.start) for at, one in zip(spot.middle, box, strict=True)]
    up, back = (words[min(2, max(0, int(3 * one)))] for words, one in zip(_THIRDS, share[:2], strict=True))
    return f"on the patient's {'right' if share[2] < 0.5 else 'left'}, {up} third, {back}"


def _extent_mm(spot: Spot, spacing_mm: Sequence[float]) -> float:
    return max(n * mm for n, mm in zip(spot.inside.shape, spacing_mm, strict=True))


def _ring(image: Image, middle: tuple[float, float], radius: float) -> None:
    """Draw a ring around a place, within the picture."""
    from PIL import ImageDraw

    x, y = (min(max(one, radius), n - 1 - radius) for one, n in zip(middle, image.size, strict=True))
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), outline=SUSPECT, width=2)


def _letter(image: Image) -> None:
    """R and L where the patient's right and left are."""
    from PIL import ImageDraw

    draw, gap = ImageDraw.Draw(image), 4
    draw.text((gap, gap), "R", fill=_PALE, font=_font(), anchor="lt")
    draw.text((image.width - gap, gap), "L", fill=_PALE, font=_font(), anchor="rt")


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_LETTER)


def _twice(array: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)


def _resized(picture: np.ndarray, width: int) -> Image:
    from PIL import Image

    pixels: UInt8[np.ndarray, "row column 3"] = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    size = (width, max(1, round(width * picture.shape[0] / picture.shape[1])))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _uri(image: Image, quality: int = _QUALITY) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
