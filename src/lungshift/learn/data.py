"""Prepared slices to batches: chosen, framed, augmented, windowed. The random state of a slice is keyed, never carried along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lungshift.errors import ProtocolError
from lungshift.learn.augment import augment
from lungshift.learn.settings import Augmentation, NetworkSettings
from lungshift.prepare.grid import Interpolation
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.windows import apply_windows

_MARGIN = 8


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Rows of one or more prepared cohorts, as one list of slices.

    Raises:
        ProtocolError: The cohorts were prepared at different sizes.
    """

    parts: tuple[tuple[PreparedCohort, Int64[np.ndarray, " row"]], ...]

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

    def read(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """HU (n, size, size) and masks (n, 2, size, size) — lung, lesion — of the chosen slices, in their order."""
        hu = np.empty((len(chosen), self.size, self.size), dtype=np.float32)
        masks = np.empty((len(chosen), 2, self.size, self.size), dtype=np.float32)
        for place, number in enumerate(chosen):
            cohort, row = self._locate(number)
            hu[place] = cohort.hu(row)
            masks[place, 0], masks[place, 1] = cohort.lung(row), cohort.lesion(row)
        return hu, masks

    def _locate(self, number: int) -> tuple[PreparedCohort, np.ndarray]:
        for cohort, rows in self.parts:
            if number < len(rows):
                return cohort, rows[number]
            number -= len(rows)
        raise IndexError(number)


class Batch(NamedTuple):
    """What the network sees and what it should say: (n, channel, row, column) and (n, 1, row, column)."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Frame:
    """Rows and columns of what the network looks at: the whole picture, or a part that holds the lungs."""

    rows: int
    columns: int

    @classmethod
    def for_slices(cls, slices: SliceSet, network: NetworkSettings) -> Frame:
        """The frame for a set of slices: the picture, or the largest lung box and a margin, as the network needs it.

        Raises:
            ProtocolError: The picture's size does not suit the depth of the network.
        """
        step = 1 << network.levels
        if slices.size % step:
            raise ProtocolError(
                f"Pictures of {slices.size} pixels cannot be halved {network.levels} times; choose a size that {step} divides.",
                code="E_SIZE",
            )
        if not network.crop:
            return cls(slices.size, slices.size)
        boxes = slices.boxes
        heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
        rows, columns = (min(slices.size, _round_up(int(n.max()) + 2 * _MARGIN, step)) for n in (heights, widths))
        return cls(rows, columns)

    def union(self, other: Frame) -> Frame:
        """The smallest frame that holds both."""
        return Frame(max(self.rows, other.rows), max(self.columns, other.columns))

    def place(self, box: np.ndarray, size: int) -> tuple[slice, slice]:
        """Where the frame lies on the picture: around the middle of the lung box, inside the picture."""
        middle = (box[:2].sum(), box[2:].sum()) if box.any() else (size, size)
        first = [min(max(0, int(m - n) // 2), size - n) for m, n in zip(middle, (self.rows, self.columns), strict=True)]
        return slice(first[0], first[0] + self.rows), slice(first[1], first[1] + self.columns)


def make_images(hu: Float32[np.ndarray, "n row column"], lung: np.ndarray, network: NetworkSettings) -> Tensor:
    """The network's input (n, channel, row, column): a channel for each window, then the lung mask if it is one."""
    channels = torch.from_numpy(apply_windows(hu, network.windows))
    if network.lung_channel:
        channels = torch.cat([channels, torch.from_numpy(np.asarray(lung, dtype=np.float32))[:, None]], dim=1)
    return channels.contiguous(memory_format=torch.channels_last)


def make_batch(
    slices: SliceSet,
    chosen: Sequence[int],
    frame: Frame,
    network: NetworkSettings,
    augmentation: Augmentation | None = None,
    seeds: Sequence[int] = (),
) -> Batch:
    """Read, frame, augment and window the chosen slices; ``seeds`` are one per slice where ``augmentation`` is given."""
    hu, masks = _cut(slices, chosen, frame)
    if augmentation is not None:
        changed_hu, changed = augment(torch.from_numpy(hu), torch.from_numpy(masks), augmentation, list(seeds))
        hu, masks = changed_hu.numpy(), changed.numpy()
    return Batch(make_images(hu, masks[:, 0], network), torch.from_numpy(masks[:, 1:]))


def _cut(slices: SliceSet, chosen: Sequence[int], frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    hu, masks = slices.read(chosen)
    if (frame.rows, frame.columns) == hu.shape[1:]:
        return hu, masks
    places = [frame.place(box, slices.size) for box in slices.boxes[list(chosen)]]
    cut_hu = np.stack([picture[place] for picture, place in zip(hu, places, strict=True)])
    return cut_hu, np.stack([pair[:, *place] for pair, place in zip(masks, places, strict=True)])


class _MicroBatches(Dataset):
    """One item is one micro-batch, made in whichever process asks for it."""

    def __init__(
        self,
        slices: SliceSet,
        plan: list[list[int]],
        frame: Frame,
        network: NetworkSettings,
        augmentation: Augmentation | None,
        key: tuple[int, int],
    ) -> None:
        self._slices, self._plan, self._frame, self._network = slices, plan, frame, network
        self._augmentation, self._key = augmentation, key

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> Batch:
        chosen = self._plan[item]
        seeds = [slice_seed(*self._key, number) for number in chosen] if self._augmentation else []
        return make_batch(self._slices, chosen, self._frame, self._network, self._augmentation, seeds)


def load_batches(
    slices: SliceSet,
    plan: list[list[int]],
    frame: Frame,
    network: NetworkSettings,
    augmentation: Augmentation | None = None,
    key: tuple[int, int] = (0, 0),
    workers: int = 0,
) -> DataLoader:
    """The planned micro-batches one after another; ``key`` is (seed, epoch); the result does not depend on ``workers``."""
    batches = _MicroBatches(slices, plan, frame, network, augmentation, key)
    return DataLoader(batches, batch_size=None, shuffle=False, num_workers=workers)


def slice_seed(seed: int, epoch: int, number: int) -> int:
    """The random seed of one slice in one epoch, the same whoever makes it and whenever."""
    return int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0])


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Every slice once, in the random order of this epoch."""
    return [int(number) for number in np.random.default_rng((seed, epoch)).permutation(count)]


def chunks(numbers: Sequence[int], size: int) -> list[list[int]]:
    """``numbers`` in pieces of ``size``; the last may be shorter."""
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
