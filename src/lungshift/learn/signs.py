"""Signs of how good a prediction is, read from a scan and the network alone: no label is looked at.

A network that is sure of what it sees says the same of a picture that was mirrored, made a little brighter or a little larger: the
overlap of such predictions forecasts their overlap with a reader (as in Roy et al., NeuroImage 195:11, 2019, who drew them by
dropout). Where a scan is like none seen before a network may be sure and wrong, so two more signs say how like others it is: the
features at the bottom of the U, and the HU of the lung, as a window clips what lies outside and the network cannot see it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch.nn import functional

from lungshift.files import digest
from lungshift.learn.checkpoint import Checkpoint, weight_checksums
from lungshift.learn.pictures import SliceSet, chunks, cut_slices, frame_shapes, place_frame, stack_channels
from lungshift.learn.prediction import Predictor, decide, require_pictures
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.slices import bounding_box

_BATCH = 8
_LOW_HU, _HIGH_HU = -1024, 3071
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NEAR = 3
"""Pixels around the predicted lesion that still count as near it."""


@dataclass(frozen=True)
class View:
    """A small change of a picture after which the lesion is known to be where it was.

    Attributes:
        mirrored: Left to right.
        offset_hu: Added to every pixel.
        zoom: Size of what is seen, about the middle of the picture.
        shift: How far it is moved down and to the right, as a part of the picture.
    """

    mirrored: bool = False
    offset_hu: float = 0.0
    zoom: float = 1.0
    shift: float = 0.0


VIEWS: Final = (
    View(),
    View(mirrored=True),
    View(offset_hu=30),
    View(offset_hu=-30),
    View(zoom=1.05, shift=0.01),
    View(zoom=0.95, shift=-0.01),
)
"""What is compared; the first two are also what a decision with ``flips`` averages."""


@dataclass(frozen=True, eq=False)
class Signs:
    """What a scan and the network say of a prediction. Undefined is NaN.

    Attributes:
        agreement: Dice in 3-D between the predictions of two views, the mean over all pairs; NaN if none predicts anything.
        entropy: Mean entropy of the probability in and near the predicted lesion, in bits; NaN if nothing is predicted.
        share: Predicted lesion as a part of the lung; NaN without lung.
        features: Mean over the lung of each channel at the bottom of the U; NaN without lung.
        lung_hu: The 5th, 25th, 50th, 75th and 95th percentile of the lung's HU; NaN without lung.
    """

    agreement: float
    entropy: float
    share: float
    features: Float64[np.ndarray, " channel"]
    lung_hu: Float64[np.ndarray, " percentile"]

    @property
    def predicts(self) -> bool:
        """Whether anything is predicted, so that there is an agreement to speak of."""
        return self.share > 0 and not np.isnan(self.agreement)


def signs_of_case(predictor: Predictor, slices: SliceSet) -> Signs:
    """The signs of one case, from all its slices; lesion masks are not read.

    Args:
        predictor: What predicts.
        slices: The slices of the case; those without lung add nothing.

    Raises:
        CheckpointError: The slices were prepared at another size than the checkpoint's.
    """
    require_pictures(predictor.checkpoint, slices)
    whole = replace(predictor.checkpoint.network, crop=False)
    tally = _Tally(predictor.checkpoint.network)
    for chosen in chunks(range(len(slices)), _BATCH):
        hu, masks = cut_slices(slices, chosen, whole, lesion=False)
        lung = masks[:, 0] > 0
        tally.add_views(predictor, hu, lung)
        for one in np.flatnonzero(lung.any(axis=(1, 2))):
            tally.add_features(*_features(predictor, hu[one], lung[one]))
    return tally.signs()


def identify_model(checkpoint: Checkpoint) -> str:
    """SHA-256 of all that the signs of a scan depend on: weights, network, pictures, the rule for masks, and the views."""
    rule = (VIEWS, checkpoint.network, checkpoint.size, checkpoint.interpolation, checkpoint.decision)
    return digest((rule, sorted(weight_checksums(checkpoint.weights).items())))


class _Tally:
    """Sums over the slices of a case, in memory that does not grow with them."""

    def __init__(self, network: NetworkSettings) -> None:
        self._both = np.zeros((len(VIEWS), len(VIEWS)))
        self._hu = np.zeros(_HIGH_HU - _LOW_HU + 1, dtype=np.int64)
        self._predicted = self._near = 0
        self._entropy = self._area = 0.0
        self._features = np.zeros(network.width << network.levels)

    def add_views(self, predictor: Predictor, hu: np.ndarray, lung: np.ndarray) -> None:
        """Count what the views of some slices say, alone and together."""
        decision = predictor.checkpoint.decision
        plain = replace(predictor, checkpoint=predictor.checkpoint.with_decision(replace(decision, flips=False)))
        seen = np.stack([_look(plain, view, hu, lung) for view in VIEWS])
        flat = np.stack([decide(one, decision) for one in seen]).reshape(len(VIEWS), -1).astype(np.float32)
        self._both += flat @ flat.T
        probability = seen[:2].mean(axis=0) if decision.flips else seen[0]
        mask = decide(probability, decision)
        near = _widen(mask)
        self._entropy += float(_entropy(probability[near]).sum())
        self._near += int(near.sum())
        self._predicted += int(mask.sum())
        inside = hu[:, 0][lung].astype(np.int64) - _LOW_HU
        self._hu += np.bincount(inside, minlength=len(self._hu))

    def add_features(self, total: np.ndarray, area: float) -> None:
        """Add the features of a slice, summed over its lung, and how much lung that was."""
        self._features += total
        self._area += area

    def signs(self) -> Signs:
        """What the sums say."""
        sizes, lung = np.diag(self._both), int(self._hu.sum())
        pairs = np.triu_indices(len(VIEWS), 1)
        together, apart = self._both[pairs], (sizes[:, None] + sizes)[pairs]
        return Signs(
            agreement=float(np.mean(2 * together[apart > 0] / apart[apart > 0])) if apart.any() else float("nan"),
            entropy=self._entropy / self._near if self._near else float("nan"),
            share=self._predicted / lung if lung else float("nan"),
            features=self._features / self._area if lung else np.full_like(self._features, np.nan),
            lung_hu=_percentiles(self._hu) if lung else np.full(len(_QUANTILES), np.nan),
        )


def _look(predictor: Predictor, view: View, hu: np.ndarray, lung: np.ndarray) -> Float32[np.ndarray, "n size size"]:
    """The probability that a view gives, brought back to the picture's own pixels."""
    seen_hu, seen_lung = hu + np.float32(view.offset_hu), lung
    if view.zoom != 1 or view.shift:
        seen_hu = _zoom(seen_hu, view, "bilinear")
        seen_lung = _zoom(lung[:, None].astype(np.float32), view, "nearest")[:, 0] > 0.5
    if view.mirrored:
        return predictor.probability(seen_hu[..., ::-1], seen_lung[..., ::-1])[..., ::-1]
    probability = predictor.probability(seen_hu, seen_lung)
    if view.zoom == 1 and not view.shift:
        return probability
    back = View(zoom=1 / view.zoom, shift=-view.shift / view.zoom)
    return _zoom(probability[:, None], back, "bilinear", "zeros")[:, 0]


def _zoom(
    pictures: Float32[np.ndarray, "n k size size"], view: View, mode: str, outside: str = "border"
) -> Float32[np.ndarray, "n k size size"]:
    """Pictures larger or smaller about their middle, then moved."""
    move = -2 * view.shift / view.zoom
    matrix = torch.tensor([[[1 / view.zoom, 0, move], [0, 1 / view.zoom, move]]]).expand(len(pictures), 2, 3)
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(torch.from_numpy(pictures), grid, mode, outside, align_corners=False)
    return np.asarray(moved.numpy())


def _features(
    predictor: Predictor, hu: Float32[np.ndarray, "neighbour size size"], lung: Bool[np.ndarray, "size size"]
) -> tuple[Float64[np.ndarray, " channel"], float]:
    """Each channel at the bottom of the U summed over the lung, in the frame that prediction looks at, and the lung's area."""
    settings, size = predictor.checkpoint.network, len(lung)
    box = np.array(bounding_box(lung))
    place = place_frame(box, frame_shapes(box[None], size, settings)[0], size)
    images = stack_channels(hu[None][..., *place], lung[None][..., *place], settings)
    bottom = torch.from_numpy(predictor.engine.bottom(images))
    share = torch.from_numpy(lung[place].astype(np.float32))[None, None]
    share = functional.avg_pool2d(share, 1 << settings.levels)
    total = (bottom * share).sum(dim=(0, 2, 3))
    return total.double().numpy(), float(share.sum())


def _widen(mask: Bool[np.ndarray, "n size size"]) -> Bool[np.ndarray, "n size size"]:
    widened = functional.max_pool2d(torch.from_numpy(mask.astype(np.float32))[:, None], 2 * _NEAR + 1, 1, _NEAR)
    return np.asarray(widened[:, 0].numpy() > 0)


def _percentiles(counts: Int64[np.ndarray, " hu"]) -> Float64[np.ndarray, " percentile"]:
    """The lowest HU that so many of the counted pixels do not exceed."""
    share = np.cumsum(counts) / counts.sum()
    return np.searchsorted(share, _QUANTILES).astype(np.float64) + _LOW_HU


def _entropy(probability: np.ndarray) -> np.ndarray:
    """Of yes or no at each probability, in bits."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
