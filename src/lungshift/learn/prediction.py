"""From a checkpoint and slices to probabilities, and to a mask on the scan's own grid. Arrays only: the engine is behind ``learn.engine``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from lungshift.ct.case import Case, CaseSlice, CaseSource, InMemory
from lungshift.ct.volume import Mask
from lungshift.errors import CheckpointError
from lungshift.learn.checkpoint import Checkpoint, Decision, require_target
from lungshift.learn.engine import Engine, start_engine
from lungshift.learn.pictures import (
    SliceSet,
    chunks,
    cut_slices,
    frame_shapes,
    place_frame,
    require_size,
    stack_channels,
)
from lungshift.learn.settings import Target
from lungshift.prepare.grid import Interpolation, SliceGrid
from lungshift.prepare.prepared import slices_away
from lungshift.prepare.slices import bounding_box

_BATCH = 8
_T = TypeVar("_T")

AddLungs = Callable[[Iterator[CaseSlice]], Iterable[CaseSlice]]
"""Gives the slices of a scan their lung masks as they pass, in the order in which they come; ``dataclasses.replace`` does it."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A checkpoint and the engine that computes it, ready to predict pictures.

    Attributes:
        checkpoint: The network, and what it takes.
        engine: What computes it.
    """

    checkpoint: Checkpoint
    engine: Engine

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: str = "auto", precision: str = "bf16") -> Predictor:
        """Start the engine: OpenVINO on a CPU, torch on a graphics card or where OpenVINO is missing.

        Args:
            checkpoint: The network.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            precision: ``bf16`` (where the processor has it) or ``fp32``.

        Raises:
            MissingError: The device is not there.
            CheckpointError: The weights do not fit the network.
            ProtocolError: The network cannot halve its pictures often enough, or there is no such precision.
        """
        require_size(checkpoint.size, checkpoint.network)
        return cls(checkpoint, start_engine(checkpoint, device, precision))

    def describe(self) -> dict[str, str]:
        """What computes, for the manifest of a run: engine with version, device, precision, threads, instructions."""
        return self.engine.describe()

    def probability(
        self, hu: Shaped[np.ndarray, "n neighbour size size"], lung: Bool[np.ndarray, "n size size"]
    ) -> Float32[np.ndarray, "n size size"]:
        """Lesion probability of every pixel; 0 outside the frame around the lungs, and where a slice has no lung.

        Each slice is looked at in its own frame, so its result does not depend on those it comes with.
        """
        result = np.zeros(lung.shape, dtype=np.float32)
        alive = np.flatnonzero(lung.any(axis=(1, 2)))
        if not len(alive):
            return result
        size, boxes = hu.shape[-1], np.array([bounding_box(lung[n]) for n in alive])
        shapes = frame_shapes(boxes, size, self.checkpoint.network)
        for shape in np.unique(shapes, axis=0):
            same = (shapes == shape).all(axis=1)
            places = [place_frame(box, shape, size) for box in boxes[same]]
            cut = [
                _stack([array[n][..., *p] for n, p in zip(alive[same], places, strict=True)]) for array in (hu, lung)
            ]
            for n, place, part in zip(alive[same], places, self._run(*cut), strict=True):
                result[n][place] = part
        return result * lung if self.checkpoint.decision.inside_lung else result

    def _run(self, hu: np.ndarray, lung: np.ndarray) -> np.ndarray:
        images = stack_channels(hu, lung, self.checkpoint.network)
        probability = _sigmoid(self.engine.logits(images))
        if self.checkpoint.decision.flips:
            mirrored = _sigmoid(self.engine.logits(images[..., ::-1]))
            probability = (probability + mirrored[..., ::-1]) / 2
        return probability


def _sigmoid(logits: Float32[np.ndarray, "n row column"]) -> Float32[np.ndarray, "n row column"]:
    with np.errstate(over="ignore"):  # beyond the range of float32 the answer is 0, as it should be
        return np.asarray(1 / (1 + np.exp(-logits)))


def require_pictures(checkpoint: Checkpoint, slices: SliceSet) -> None:
    """Refuse slices that were prepared at another size than the checkpoint's.

    Raises:
        CheckpointError: They were.
    """
    if slices.size != checkpoint.size:
        raise CheckpointError(
            f"The checkpoint takes pictures of {checkpoint.size} pixels; these are of {slices.size}. Prepare them anew.",
            code="E_SIZE",
        )


def predict_slices(
    predictor: Predictor, slices: SliceSet
) -> Iterator[tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "n size size"]]]:
    """Lesion probabilities of prepared slices, a few at a time with their numbers in the set.

    Raises:
        CheckpointError: The slices were prepared at another size than the checkpoint's.
    """
    require_pictures(predictor.checkpoint, slices)
    whole = replace(predictor.checkpoint.network, crop=False)
    for chosen in chunks(range(len(slices)), _BATCH):
        hu, masks = cut_slices(slices, chosen, whole, lesion=False)
        yield np.array(chosen), predictor.probability(hu, masks[:, 0] > 0)


def decide(
    probability: Float32[np.ndarray, "*slice row column"], decision: Decision, pixels: float = 1.0
) -> Bool[np.ndarray, "*slice row column"]:
    """The mask of a probability: what reaches the threshold, in slices where enough of it does.

    Args:
        probability: Of one slice or of several.
        decision: Threshold and smallest area.
        pixels: How many of these pixels stand for one of the prepared picture.
    """
    mask = probability >= decision.threshold
    few = mask.sum(axis=(-2, -1), keepdims=True) < decision.min_pixels * pixels
    return np.asarray(mask & ~few)


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """What was found in one slice of a scan, on its own pixels.

    Attributes:
        index: Of the slice, from the foot.
        hu: The slice.
        lung: The lung mask that the prediction went by.
        lesion: The predicted lesion.
    """

    index: int
    hu: Shaped[np.ndarray, "row column"]
    lung: Bool[np.ndarray, "row column"]
    lesion: Bool[np.ndarray, "row column"]


def predict_source(
    predictor: Predictor, source: CaseSource, add_lungs: AddLungs | None = None
) -> Iterator[SlicePrediction]:
    """Lung and lesion masks of a scan's slices on their own pixels, as the slices come from its files, in constant memory.

    What only the whole scan shows (damage, values that are not HU, a mirrored lung mask) is raised in the end: trust nothing
    before the iteration is over, and write through ``lungshift.io.writing.new_mask``, which keeps nothing of a scan that fails.

    Args:
        predictor: What predicts.
        source: The scan; slices come in the order of its files.
        add_lungs: Makes the lung masks, where the source has none or where others are wanted.

    Raises:
        CheckpointError: ``E_NO_LUNG``: a slice comes without lung mask. ``E_TARGET``: the checkpoint finds lungs.
        InputError: Whatever keeps the scan from being read.
    """
    require_target(predictor.checkpoint, "lesion")
    _, rows, columns = source.geometry.shape
    pieces: Iterable[CaseSlice] = source.slices()
    if add_lungs:
        pieces = add_lungs(iter(pieces))
    grid = SliceGrid(rows, columns, predictor.checkpoint.size)
    return _predict(predictor, pieces, grid, source.geometry.spacing_mm[0])


def decide_on_scan(
    probability: Float32[np.ndarray, "size size"], decision: Decision, grid: SliceGrid
) -> Bool[np.ndarray, "row column"]:
    """The mask of a picture's probability on the scan's own pixels."""
    mask = grid.back_reaching(probability, decision.threshold)
    least = decision.min_pixels * (max(grid.rows, grid.columns) / grid.size) ** 2
    return mask if np.count_nonzero(mask) >= least else np.zeros_like(mask)


def predict_stream(
    predictor: Predictor, slices: Iterable[CaseSlice], grid: SliceGrid, slice_mm: float, target: Target = "lesion"
) -> Iterator[tuple[int, Bool[np.ndarray, "row column"]]]:
    """Lesion masks of a scan's slices on their own pixels, as the slices come, in constant memory.

    Args:
        predictor: What predicts.
        slices: Slices with a lung mask, from one end of the scan to the other.
        grid: The scan's slices and the checkpoint's picture.
        slice_mm: Distance of the scan's slices.
        target: What is to be found; lungs are found by ``learn.lungs``, which calls this.

    Raises:
        CheckpointError: A slice comes without lung mask; make one first. Or the checkpoint finds something else.
    """
    require_target(predictor.checkpoint, target)
    for found in _predict(predictor, slices, grid, slice_mm):
        yield found.index, found.lesion


def _predict(
    predictor: Predictor, slices: Iterable[CaseSlice], grid: SliceGrid, slice_mm: float
) -> Iterator[SlicePrediction]:
    """Slices without lung take no part: they are not resized, not looked at, and have no lesion."""
    checkpoint = predictor.checkpoint
    pictures = (_Picture(piece, _lung_of(piece), grid, checkpoint.interpolation) for piece in slices)
    steps = [slices_away(offset, slice_mm) for offset in checkpoint.network.offsets_mm]
    for group in _batched(_with_neighbours(pictures, steps), predictor.engine.batch):
        alive = [(picture, stack) for picture, stack in group if stack is not None]
        masks = {}
        if alive:
            hu, lung = _stack([stack for _, stack in alive]), _stack([picture.lung for picture, _ in alive])
            found = predictor.probability(hu, lung)
            for (picture, _), probability in zip(alive, found, strict=True):
                masks[picture.index] = decide_on_scan(probability, checkpoint.decision, grid)
        for picture, _ in group:
            lesion = masks.get(picture.index)
            lesion = np.zeros_like(picture.own_lung) if lesion is None else lesion
            yield SlicePrediction(picture.index, picture.piece.hu, picture.own_lung, lesion)


@dataclass(frozen=True, eq=False)
class _Picture:
    """A slice that becomes a picture when it is first looked at."""

    piece: CaseSlice
    own_lung: np.ndarray
    grid: SliceGrid
    interpolation: Interpolation

    @property
    def index(self) -> int:
        return self.piece.index

    @cached_property
    def hu(self) -> np.ndarray:
        return self.grid.image(self.piece.hu, self.interpolation)

    @cached_property
    def lung(self) -> np.ndarray:
        return self.grid.mask(self.own_lung)

    @cached_property
    def has_lung(self) -> bool:
        return bool(self.own_lung.any()) and bool(self.lung.any())


def _with_neighbours(
    pictures: Iterable[_Picture], steps: list[int]
) -> Iterator[tuple[_Picture, Float32[np.ndarray, "neighbour size size"] | None]]:
    """Each picture with those so many slices away, or with None if it has no lung; past an end of the scan the last one stands in.

    Keeps only what is near.
    """
    reach = max((abs(step) for step in steps), default=0)
    near: dict[int, _Picture] = {}
    waiting: deque[_Picture] = deque()

    def stacked(picture: _Picture) -> tuple[_Picture, np.ndarray | None]:
        if not picture.has_lung:
            return picture, None
        low, high = min(near), max(near)
        wanted = [min(max(picture.index + step, low), high) for step in (0, *steps)]
        return picture, _stack([near[index].hu for index in wanted]).astype(np.float32, copy=False)

    for picture in pictures:
        near[picture.index] = picture
        waiting.append(picture)
        while waiting and abs(picture.index - waiting[0].index) >= reach:
            ready = waiting.popleft()
            yield stacked(ready)
            for index in [index for index in near if abs(index - picture.index) > 2 * reach]:
                del near[index]
    while waiting:
        yield stacked(waiting.popleft())


def predict(predictor: Predictor, case: Case) -> Mask:
    """The lesion mask of a case, on the scan's own grid.

    Raises:
        CheckpointError: The case has no lung mask; make one first, by threshold say. Or it is a checkpoint that finds lungs.
    """
    voxels = np.zeros(case.volume.geometry.shape, dtype=bool)
    for found in predict_source(predictor, InMemory.of(case)):
        voxels[found.index] = found.lesion
    return Mask(voxels, case.volume.geometry)


def _lung_of(piece: CaseSlice) -> np.ndarray:
    if piece.lung is None:
        raise CheckpointError(
            "The network wants a lung mask and the scan has none; make one, by threshold say.", code="E_NO_LUNG"
        )
    return piece.lung


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """``np.stack``, which copies, where there is more than one."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
