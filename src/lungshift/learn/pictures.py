"""Prepared slices to what a network sees: chosen, framed, windowed. Arrays only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from lungshift.errors import ProtocolError
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.grid import Interpolation
from lungshift.prepare.prepared import Place, PreparedCase, PreparedCohort
from lungshift.prepare.views import ChangedCohort
from lungshift.prepare.windows import apply_windows

_MARGIN = 8


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Rows of one or more prepared cohorts, as one list of slices.

    Raises:
        ProtocolError: The cohorts were prepared at different sizes.
    """

    parts: tuple[tuple[PreparedCohort, Int64[np.ndarray, " _"]], ...]

    def __post_init__(self) -> None:
        sizes = {cohort.size for cohort, _ in self.parts}
        if len(sizes) != 1:
            raise ProtocolError(
                f"Slices of one set must be of one size; got {sorted(sizes)}. Prepare the cohorts alike."
            )

    @classmethod
    def of(cls, cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> SliceSet:
        """Rows of one cohort."""
        return cls(((cohort, np.asarray(rows)),))

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def __add__(self, other: SliceSet) -> SliceSet:
        return SliceSet(self.parts + other.parts)

    @property
    def size(self) -> int:
        """Rows and columns of a picture."""
        return self.parts[0][0].size

    @property
    def interpolation(self) -> Interpolation:
        """How CT values were resized."""
        return self.parts[0][0].interpolation

    @cached_property
    def boxes(self) -> np.ndarray:
        """Lung box of every slice: first row, end row, first column, end column; zeros without lung."""
        return np.concatenate([cohort.table["box"][rows] for cohort, rows in self.parts]).astype(int)

    @cached_property
    def patients(self) -> np.ndarray:
        """Patient of every slice, told apart by cohort."""
        return np.concatenate(
            [[f"{cohort.name}/{patient}" for patient in cohort.patients[rows]] for cohort, rows in self.parts]
        )

    @property
    def contents(self) -> list[tuple[str, list[int]]]:
        """Which pictures of which rows: all that tells one set from another."""
        return [(cohort.key, rows.tolist()) for cohort, rows in self.parts]

    def describe(self, role: str) -> tuple[dict[str, Any], ...]:
        """What a checkpoint tells of its slices, so that a later test on the same patients or scans can be refused."""
        return tuple(_describe_part(role, cohort, rows) for cohort, rows in self.parts)

    def locate(self, number: int) -> tuple[PreparedCohort, int]:
        """The cohort of a slice of the set, and its row there."""
        for cohort, rows in self.parts:
            if number < len(rows):
                return cohort, int(rows[number])
            number -= len(rows)
        raise IndexError(number)


def _describe_part(role: str, cohort: PreparedCohort, rows: np.ndarray) -> dict[str, Any]:
    cases = set(cohort.case_ids[rows].tolist())
    scans = {d for case in cases for name, d in cohort.checksums[case].items() if name.startswith("scan ")}
    patients = sorted(set(cohort.patients[rows].tolist()))
    told = {"role": role, "cohort": cohort.name, "key": cohort.key, "slices": len(rows)}
    own = cohort
    while isinstance(own, ChangedCohort):  # a view may call its pictures the scans' own pixels
        own = own.seen
    seen = [case for case in own.cases if case.case_id in cases]
    return told | {"patients": patients, "scans": sorted(scans), "seen": _range_of(seen)}


def _range_of(cases: Sequence[PreparedCase]) -> dict[str, list[float]]:
    """Lowest and highest distance of slices, and longer side of a slice, in mm: a later scan can be told to be unlike them."""
    slices = [case.spacing_mm[0] for case in cases]
    sides = [max(case.rows * case.spacing_mm[1], case.columns * case.spacing_mm[2]) for case in cases]
    return {"slice_mm": [min(slices), max(slices)], "picture_mm": [min(sides), max(sides)]}


def require_size(size: int, network: NetworkSettings) -> None:
    """Refuse pictures that the network cannot halve often enough.

    Raises:
        ProtocolError: The size is no multiple of 2 to the power of the levels.
    """
    step = 1 << network.levels
    if size % step:
        raise ProtocolError(
            f"Pictures of {size} pixels cannot be halved {network.levels} times; choose a size that {step} divides.",
            code="E_SIZE",
        )


def frame_shapes(boxes: Int64[np.ndarray, "n 4"], size: int, network: NetworkSettings) -> Int64[np.ndarray, "n 2"]:
    """Rows and columns that the network looks at for each slice: the picture, or its lung box, a margin, and rounded up."""
    if not network.crop:
        return np.full((len(boxes), 2), size)
    step = 1 << network.levels
    extent = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1) + 2 * _MARGIN
    return np.minimum(-(-extent // step) * step, size)


def place_frame(box: np.ndarray, shape: Int64[np.ndarray, " 2"], size: int) -> Place:
    """Where a frame lies on the picture: around the middle of the lung box, inside the picture."""
    middle = (box[:2].sum(), box[2:].sum()) if box.any() else (size, size)
    first = [min(max(0, int(m - n) // 2), size - int(n)) for m, n in zip(middle, shape, strict=True)]
    return slice(first[0], first[0] + int(shape[0])), slice(first[1], first[1] + int(shape[1]))


def stack_channels(
    hu: Float32[np.ndarray, "n neighbour row column"], lung: np.ndarray, network: NetworkSettings
) -> Float32[np.ndarray, "n channel row column"]:
    """The network's input: the slice in each window, its neighbours in the first, the lung mask."""
    channels = [apply_windows(hu[:, 0], network.windows)]
    channels += [apply_windows(hu[:, k], network.windows[:1]) for k in range(1, hu.shape[1])]
    if network.lung_channel:
        channels.append(np.asarray(lung, dtype=np.float32)[:, None])
    return np.concatenate(channels, axis=1)


def cut_slices(
    slices: SliceSet,
    chosen: Sequence[int],
    network: NetworkSettings,
    beside: Sequence[int] = (),
    *,
    lesion: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """HU (n, 1 + neighbours, row, column) and masks (n, 2, row, column) — lung, lesion — in one frame.

    The frame holds the lungs of the chosen and of those ``beside``, the rest of their step. Without ``lesion`` there is
    the lung mask alone and no label is read.
    """
    boxes = slices.boxes[list(chosen)]
    shape = frame_shapes(slices.boxes[[*chosen, *beside]], slices.size, network).max(axis=0)
    hu = np.empty((len(chosen), 1 + 2 * network.neighbours, *shape), dtype=np.float32)
    masks = np.empty((len(chosen), 1 + lesion, *shape), dtype=np.float32)
    for number, (one, box) in enumerate(zip(chosen, boxes, strict=True)):
        cohort, row = slices.locate(one)
        place = place_frame(box, shape, slices.size)
        for channel, offset in enumerate((0.0, *network.offsets_mm)):
            hu[number, channel] = cohort.hu(cohort.neighbour(row, offset) if offset else row, place)
        masks[number, 0] = cohort.lung(row, place)
        if lesion:
            masks[number, 1] = cohort.lesion(row, place)
    return hu, masks


def chunks(numbers: Sequence[int], size: int) -> list[list[int]]:
    """``numbers`` in pieces of ``size``; the last may be shorter."""
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]
