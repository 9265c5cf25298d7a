"""Pictures to torch's batches: augmented, windowed, in a planned order. The random state of a slice is keyed, never carried along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lungshift.learn.augment import augment
from lungshift.learn.pictures import SliceSet, chunks, cut_slices, stack_channels
from lungshift.learn.settings import Augmentation, NetworkSettings


class MicroBatch(NamedTuple):
    """Slices that are computed at once, the whole step that they are part of, whose frame they share, and a seed for each."""

    chosen: list[int]
    step: list[int]
    seeds: list[int]


class Batch(NamedTuple):
    """What the network sees and what it should say: (n, channel, row, column) and (n, 1, row, column)."""

    images: Tensor
    targets: Tensor


def make_images(
    hu: Float32[np.ndarray, "n neighbour row column"], lung: np.ndarray, network: NetworkSettings
) -> Tensor:
    """``stack_channels`` as a tensor whose channels lie next to each other in memory, as torch computes quickest."""
    return torch.from_numpy(stack_channels(hu, lung, network)).contiguous(memory_format=torch.channels_last)


def make_batch(
    slices: SliceSet,
    chosen: Sequence[int],
    network: NetworkSettings,
    augmentation: Augmentation | None = None,
    seeds: Sequence[int] = (),
    beside: Sequence[int] = (),
) -> Batch:
    """Read, frame, augment and window the chosen slices; ``seeds`` are one per slice where ``augmentation`` is given."""
    hu, masks = cut_slices(slices, chosen, network, beside)
    if augmentation is not None:
        changed_hu, changed = augment(torch.from_numpy(hu), torch.from_numpy(masks), augmentation, list(seeds))
        hu, masks = changed_hu.numpy(), changed.numpy()
    return Batch(make_images(hu, masks[:, 0], network), torch.from_numpy(masks[:, 1:]))


class _MicroBatches(Dataset):
    """One item is one micro-batch, made in whichever process asks for it."""

    def __init__(
        self,
        slices: SliceSet,
        plan: list[MicroBatch],
        network: NetworkSettings,
        augmentation: Augmentation | None,
    ) -> None:
        self._slices, self._plan, self._network, self._augmentation = slices, plan, network, augmentation

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> Batch:
        chosen, step, seeds = self._plan[item]
        return make_batch(self._slices, chosen, self._network, self._augmentation, seeds, step)


def load_batches(
    slices: SliceSet,
    plan: list[MicroBatch],
    network: NetworkSettings,
    augmentation: Augmentation | None = None,
    workers: int = 0,
) -> DataLoader:
    """The planned micro-batches one after another; the result does not depend on ``workers``."""
    batches = _MicroBatches(slices, plan, network, augmentation)
    return DataLoader(batches, batch_size=None, shuffle=False, num_workers=workers)


def slice_seed(seed: int, epoch: int, number: int, times: int = 0) -> int:
    """The random seed of one slice in one epoch, where it was drawn so many times before; the same whoever makes it."""
    return int(np.random.SeedSequence((seed, epoch, number, times)).generate_state(1)[0])


def seed_epoch(steps: list[list[int]], seed: int, epoch: int) -> list[list[int]]:
    """A random seed for every slice of an epoch's steps; one that is drawn again gets another."""
    drawn: Counter[int] = Counter()

    def seed_of(number: int) -> int:
        drawn[number] += 1
        return slice_seed(seed, epoch, number, drawn[number] - 1)

    return [[seed_of(number) for number in step] for step in steps]


def plan_epoch(
    slices: SliceSet, batch: int, seed: int, epoch: int, balance: float = 0.0, epoch_slices: int = 0
) -> list[list[int]]:
    """The steps of an epoch, ``batch`` random slices each; the last may be shorter.

    Steps are not sorted by size, though small lungs would then be computed in small frames: batch norm would see batches of
    one kind at a time, and its running statistics would fit none (patients held out lost 5 points of Dice by it).

    Args:
        slices: What to train on.
        batch: Slices of a step.
        seed: Of the training.
        epoch: Each has an order of its own.
        balance: 0 takes every slice once. Above, as many are drawn with replacement, each with a weight of its patient's
            number of slices to the power of ``-balance``: 1 gives every patient the same share.
        epoch_slices: How many are drawn; 0 draws as many as there are. Without balance none is drawn again before all were.
    """
    generator = np.random.default_rng((seed, epoch))
    wanted = epoch_slices or len(slices)
    if not balance:
        rounds = [generator.permutation(len(slices)) for _ in range(0, wanted, len(slices))]
        return chunks(np.concatenate(rounds)[:wanted].tolist(), batch)
    _, patient, count = np.unique(slices.patients, return_inverse=True, return_counts=True)
    weight = count[patient] ** -balance
    drawn = generator.choice(len(slices), wanted, p=weight / weight.sum())
    return chunks(drawn.tolist(), batch)
