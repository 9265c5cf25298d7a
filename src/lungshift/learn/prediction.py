"""From a checkpoint and slices to probabilities, and to a mask on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from lightning.fabric import Fabric
from torch import Tensor, nn

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.volume import Mask
from lungshift.errors import CheckpointError
from lungshift.learn.checkpoint import Checkpoint, Decision
from lungshift.learn.data import Frame, SliceSet, chunks, make_images
from lungshift.learn.machine import start_fabric
from lungshift.prepare.grid import SliceGrid
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
        self, hu: Float32[np.ndarray, "n size size"], lung: Bool[np.ndarray, "n size size"]
    ) -> Float32[np.ndarray, "n size size"]:
        """Lesion probability of every pixel; 0 outside the frame around the lungs, and where a slice has no lung."""
        result = np.zeros(hu.shape, dtype=np.float32)
        alive = np.flatnonzero(lung.any(axis=(1, 2)))
        if not len(alive):
            return result
        boxes = np.array([bounding_box(lung[n]) for n in alive])
        frame = self._frame(boxes, hu.shape[-1])
        places = [frame.place(box, hu.shape[-1]) for box in boxes]
        cut = [np.stack([array[n][place] for n, place in zip(alive, places, strict=True)]) for array in (hu, lung)]
        for n, place, part in zip(alive, places, self._run(cut[0], cut[1]), strict=True):
            result[n][place] = part
        return result

    def _frame(self, boxes: np.ndarray, size: int) -> Frame:
        """The checkpoint's frame, or the whole picture for lungs larger than any it was trained on."""
        frame = self.checkpoint.frame
        if (boxes[:, 1] - boxes[:, 0]).max() > frame.rows or (boxes[:, 3] - boxes[:, 2]).max() > frame.columns:
            return Frame(size, size)
        return frame

    def _run(self, hu: np.ndarray, lung: np.ndarray) -> np.ndarray:
        images = self.fabric.to_device(make_images(hu, lung, self.checkpoint.network))
        probability = self._forward(images)
        if self.checkpoint.decision.flips:
            probability = (probability + self._forward(images.flip(-1)).flip(-1)) / 2
        return probability.cpu().numpy()

    def _forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(images)
            return logits.float().sigmoid()[:, 0]


def predict_slices(
    predictor: Predictor, slices: SliceSet
) -> Iterator[tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "n size size"]]]:
    """Lesion probabilities of prepared slices, a few at a time with their numbers in the set.

    Raises:
        CheckpointError: The slices were prepared at another size than the checkpoint's.
    """
    size = predictor.checkpoint.size
    if slices.size != size:
        raise CheckpointError(
            f"The checkpoint takes pictures of {size} pixels; these are of {slices.size}. Prepare them anew.",
            code="E_SIZE",
        )
    for chosen in chunks(range(len(slices)), _BATCH):
        hu, masks = slices.read(chosen)
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
    predictor: Predictor, slices: Iterable[CaseSlice], grid: SliceGrid
) -> Iterator[tuple[int, Bool[np.ndarray, "row column"]]]:
    """Lesion masks of a scan's slices on their own pixels, as the slices come, in constant memory.

    Args:
        predictor: What predicts.
        slices: Slices with a lung mask, in any order.
        grid: The scan's slices and the checkpoint's picture.

    Raises:
        CheckpointError: A slice comes without lung mask; make one first.
    """
    checkpoint, scale = predictor.checkpoint, max(grid.rows, grid.columns) / grid.size
    for pieces in _batched(slices, _BATCH):
        hu = np.stack([grid.image(piece.hu, checkpoint.interpolation) for piece in pieces]).astype(np.float32)
        lung = np.stack([grid.mask(_lung_of(piece)) for piece in pieces])
        for piece, probability in zip(pieces, predictor.probability(hu, lung), strict=True):
            yield piece.index, decide(grid.back(probability), checkpoint.decision, scale**2)


def predict(predictor: Predictor, case: Case) -> Mask:
    """The lesion mask of a case, on the scan's own grid.

    Raises:
        CheckpointError: The case has no lung mask; make one first, by threshold say.
    """
    n, rows, columns = case.volume.geometry.shape
    voxels = np.zeros((n, rows, columns), dtype=bool)
    lung = None if case.lung is None else case.lung.voxels
    pieces = (CaseSlice(k, case.volume.hu[k], None if lung is None else lung[k], None) for k in range(n))
    for index, mask in predict_stream(predictor, pieces, SliceGrid(rows, columns, predictor.checkpoint.size)):
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
