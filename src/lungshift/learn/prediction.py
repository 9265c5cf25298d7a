"""From a checkpoint and slices to probabilities, and to a mask on the scan's own grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped
from lightning.fabric import Fabric
from torch import Tensor, nn

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.volume import Mask
from lungshift.errors import CheckpointError
from lungshift.learn.checkpoint import Checkpoint, Decision, require_target
from lungshift.learn.data import SliceSet, chunks, cut_slices, frame_shapes, make_images, place_frame
from lungshift.learn.machine import start_fabric
from lungshift.learn.settings import Target
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.prepared import slices_away
from lungshift.prepare.slices import bounding_box

_BATCH = 8
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A checkpoint on a device, ready to predict pictures."""

    checkpoint: Checkpoint
    model: nn.Module
    fabric: Fabric

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: str = "auto", precision: str = "bf16") -> Predictor:
        """Build the network and put it on the device.

        Raises:
            MissingError: The device is not there.
            CheckpointError: The weights do not fit the network.
        """
        fabric = start_fabric(device, "bf16" if precision == "bf16" else "fp32", checkpoint.seed)
        network = checkpoint.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(checkpoint, fabric.setup(network).eval(), fabric)

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
                np.stack([array[n][..., *p] for n, p in zip(alive[same], places, strict=True)]) for array in (hu, lung)
            ]
            for n, place, part in zip(alive[same], places, self._run(*cut), strict=True):
                result[n][place] = part
        return result * lung if self.checkpoint.decision.inside_lung else result

    def _run(self, hu: np.ndarray, lung: np.ndarray) -> np.ndarray:
        images = self.fabric.to_device(make_images(hu, lung, self.checkpoint.network))
        probability = self._forward(images)
        if self.checkpoint.decision.flips:
            probability = (probability + self._forward(images.flip(-1)).flip(-1)) / 2
        return np.asarray(probability.cpu().numpy())

    def _forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(images)
            return logits.float().sigmoid()[:, 0]


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
    checkpoint, scale = predictor.checkpoint, max(grid.rows, grid.columns) / grid.size
    pictures = (
        _Picture(piece.index, grid.image(piece.hu, checkpoint.interpolation), grid.mask(_lung_of(piece)))
        for piece in slices
    )
    steps = [slices_away(offset, slice_mm) for offset in checkpoint.network.offsets_mm]
    for group in _batched(_with_neighbours(pictures, steps), _BATCH):
        hu = np.stack([stack for _, stack in group]).astype(np.float32)
        lung = np.stack([picture.lung for picture, _ in group])
        for (picture, _), probability in zip(group, predictor.probability(hu, lung), strict=True):
            yield picture.index, decide(grid.back(probability), checkpoint.decision, scale**2)


@dataclass(frozen=True, eq=False)
class _Picture:
    index: int
    hu: np.ndarray
    lung: np.ndarray


def _with_neighbours(pictures: Iterable[_Picture], steps: list[int]) -> Iterator[tuple[_Picture, np.ndarray]]:
    """Each picture with those so many slices away; past an end of the scan the last one stands in. Keeps only what is near."""
    reach = max((abs(step) for step in steps), default=0)
    near: dict[int, _Picture] = {}
    waiting: deque[_Picture] = deque()

    def stacked(picture: _Picture) -> tuple[_Picture, np.ndarray]:
        low, high = min(near), max(near)
        wanted = [min(max(picture.index + step, low), high) for step in (0, *steps)]
        return picture, np.stack([near[index].hu for index in wanted])

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
    n, rows, columns = case.volume.geometry.shape
    voxels = np.zeros((n, rows, columns), dtype=bool)
    lung = None if case.lung is None else case.lung.voxels
    pieces = (CaseSlice(k, case.volume.hu[k], None if lung is None else lung[k], None) for k in range(n))
    for index, mask in predict_stream(
        predictor, pieces, SliceGrid(rows, columns, predictor.checkpoint.size), case.volume.geometry.spacing_mm[0]
    ):
        voxels[index] = mask
    return Mask(voxels, case.volume.geometry)


def _lung_of(piece: CaseSlice) -> np.ndarray:
    if piece.lung is None:
        raise CheckpointError(
            "The network wants a lung mask and the scan has none; make one, by threshold say.", code="E_NO_LUNG"
        )
    return piece.lung


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
