"""Training: one loop on one screen. Fine-tuning is the same loop, started from a checkpoint.

A run that is killed goes on from its last whole epoch, and ends with the same bits as one that was not: batches and
random changes are keyed by seed and epoch, the learning rate by step, and the rest is in the saved state.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from lungshift.errors import ProtocolError, TrainingError
from lungshift.learn.checkpoint import Checkpoint, build_network, load_weights, require_target, weight_checksums
from lungshift.learn.data import Batch, MicroBatch, load_batches, plan_epoch, seed_epoch, slice_seed
from lungshift.learn.history import EpochRecord, History
from lungshift.learn.losses import slice_loss
from lungshift.learn.machine import describe_software, start_fabric
from lungshift.learn.pictures import SliceSet, chunks, require_size
from lungshift.learn.settings import Augmentation, NetworkSettings, Trainable, TrainingSettings
from lungshift.learn.state import TrainingState, load_state, save_state
from lungshift.learn.unet import UNet

Score = Callable[[Iterable[tuple[np.ndarray, np.ndarray]]], float]
"""Judges validation slices: is given (probability, reference) batches (n, row, column), returns one number, more is better."""

_NOBODY = 2**31
"""The number of no slice, for what is random in an epoch but belongs to none."""

Watch = Callable[[EpochRecord, int], None]
"""Is told every epoch that ends, and how many there may be."""


@dataclass(frozen=True)
class Job:
    """What is trained on what: everything that the resulting weights depend on, the machine aside."""

    train: SliceSet
    validation: SliceSet
    network: NetworkSettings
    training: TrainingSettings
    seed: int = 0
    start: Checkpoint | None = None
    name: str = "training"
    trainable: Trainable = "all"

    def __post_init__(self) -> None:
        if self.trainable not in get_args(Trainable) or (self.trainable != "all" and self.start is None):
            raise ProtocolError(
                f"Training changes one of {', '.join(get_args(Trainable))}, and all unless it starts from a checkpoint: fresh "
                f"weights that stay as they are have learnt nothing. Got {self.trainable!r}."
            )
        if self.start:
            require_target(self.start, self.network.target)
        if self.training.augmentation.consolidation and self.network.target != "lung":
            raise ProtocolError(
                "augmentation.consolidation paints dense lung that no lesion mask knows of; set it to 0 for a network that finds "
                f"{self.network.target}.",
                code="E_TARGET",
            )
        require_size(self.train.size, self.network)
        pictures = self.train.size, self.train.interpolation
        if self.start and (self.start.size, self.start.interpolation) != pictures:
            raise ProtocolError(
                f"Fine-tuning keeps the pictures it starts from, {self.start.size} pixels and {self.start.interpolation}; "
                f"these are {pictures[0]} and {pictures[1]}. Change prepare.size and prepare.interpolation."
            )
        if self.start and self.start.network != self.network:
            raise ProtocolError(
                f"Fine-tuning keeps the network it starts from; that is {self.start.network}, and {self.network} was asked for."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Two jobs of one fingerprint end with the same weights on the same machine."""
        sets = [self.train.contents, self.validation.contents]
        start = self.start and weight_checksums(self.start.weights)
        training, network = asdict(self.training), asdict(self.network)
        if not self.training.epoch_slices:  # what is off leaves the fingerprints of before it was there
            del training["epoch_slices"]
        if not self.training.augmentation.consolidation:
            del training["augmentation"]["consolidation"]
        if self.network.target == "lesion":
            del network["target"]
        what = [sets, network, training, self.seed, start]
        text = json.dumps(what if self.trainable == "all" else [*what, self.trainable], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def fit(
    job: Job,
    *,
    score: Score | None = None,
    state_file: Path | None = None,
    watch: Watch | None = None,
    device: str = "auto",
    workers: int = 0,
) -> Checkpoint:
    """Train until the validation value no longer gets better; return the weights of the best epoch.

    Args:
        job: What is trained on what.
        score: Judges the validation slices, if more than their loss is to be known; ``learn`` does not grade itself.
        state_file: Where the state is kept between epochs; a run found there goes on.
        watch: Is told every epoch.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; another than asked for is never taken.
        workers: Processes that make batches beside this one.

    Raises:
        TrainingError: The loss is no longer a number.
        MissingError: The device is not there.
    """
    if job.training.monitor == "score" and score is None:
        raise ProtocolError("Training watches a score, but none was given; give fit(score=…) or monitor the loss.")
    fabric = start_fabric(device, job.training.precision, job.seed)
    state = _begin(job, fabric, state_file)
    while not state.finished(job.training):
        started = time.monotonic()
        loss = _train_epoch(job, state, fabric, workers)
        record = _judge(job, state, fabric, score, loss, time.monotonic() - started)
        state.note(record, record.score if job.training.monitor == "score" else -record.validation_loss)
        if state_file and fabric.is_global_zero:
            save_state(state, state_file, job.fingerprint)
        if watch:
            watch(record, job.training.epochs)
    if not state.best_epoch:
        raise TrainingError(
            f"{job.name}: no epoch had a validation value that is a number, so no weights are worth keeping. Is there anything "
            "to validate on?",
            code="E_LOSS",
        )
    return _checkpoint(job, state)


def _begin(job: Job, fabric: Fabric, state_file: Path | None) -> TrainingState:
    network = build_network(job.network)
    if job.start:
        load_weights(network, job.start.weights)
    for part in network.frozen(job.trainable):
        part.requires_grad_(False)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, optimiser = fabric.setup(network, _optimiser(network, job.training))
    state = TrainingState.fresh(model, optimiser, averaged=job.training.average_decay > 0)
    if state_file and state_file.is_file():
        load_state(state, state_file, job.fingerprint)
    return state


def _train_epoch(job: Job, state: TrainingState, fabric: Fabric, workers: int) -> float:
    """One pass over the training slices; the mean of their losses."""
    settings = job.training
    torch.manual_seed(slice_seed(job.seed, state.epoch, _NOBODY))  # dropout of an epoch is the same after a resume
    steps = plan_epoch(job.train, settings.batch, job.seed, state.epoch, settings.balance, settings.epoch_slices)
    seeds = seed_epoch(steps, job.seed, state.epoch)
    shards = [_shard(*planned, fabric, settings) for planned in zip(steps, seeds, strict=True)]
    plan = [part for shard in shards for part in shard]
    batches = iter(load_batches(job.train, plan, job.network, _augmentation(settings), workers))
    _set_mode(job, state)
    total = 0.0
    for number, (step, shard) in enumerate(zip(steps, shards, strict=True)):
        _set_rate(state, learning_rate(settings, state.epoch * len(steps) + number, settings.epochs * len(steps)))
        total += _step(job, state, fabric, [next(batches) for _ in shard], len(step))
        if not math.isfinite(total):
            raise TrainingError(
                f"{job.name}: the loss is {total} in epoch {state.epoch + 1}, step {number + 1} (slices {step[:8]} …). The last good "
                "state is kept; lower the learning rate or look at these slices.",
                code="E_LOSS",
            )
    _require_finite(job, state, steps[-1])
    return total / sum(map(len, steps))


def _require_finite(job: Job, state: TrainingState, last: list[int]) -> None:
    """Refuse weights that the last step spoiled, which no loss has seen yet: they would be saved as the state to go on from."""
    if not all(bool(weight.isfinite().all()) for weight in state.model.parameters()):
        raise TrainingError(
            f"{job.name}: weights are no numbers after epoch {state.epoch + 1} (its last step had slices {last[:8]} …). The last good "
            "state is kept; lower the learning rate, clip, or look at these slices.",
            code="E_LOSS",
        )


def _set_mode(job: Job, state: TrainingState) -> None:
    """Training mode for the layers that are trained; norm layers and dropout of the others act as in prediction."""
    state.model.train()
    for part in cast(UNet, state.model.module).frozen(job.trainable):  # inside Fabric's wrappers
        part.eval()


def _step(job: Job, state: TrainingState, fabric: Fabric, parts: Iterable[Batch], slices: int) -> float:
    """One step of the optimiser; gradients of the parts add up to exactly the mean over the step's slices."""
    loss_of, settings = slice_loss(job.training.loss), job.training
    parts = list(parts)
    state.optimiser.zero_grad()
    total = 0.0
    for number, (images, targets) in enumerate(map(fabric.to_device, parts)):
        with fabric.no_backward_sync(state.model, enabled=number < len(parts) - 1):
            losses = loss_of(state.model(images), targets).sum()
            fabric.backward(losses * (fabric.world_size / slices))
        total += losses.item()
    if settings.clip:
        fabric.clip_gradients(state.model, state.optimiser, max_norm=settings.clip)
    state.optimiser.step()
    if settings.average_decay:
        state.average(settings.average_decay)
    return float(fabric.all_reduce(torch.tensor(total, dtype=torch.float64), reduce_op="sum"))


def _shard(step: list[int], seeds: list[int], fabric: Fabric, settings: TrainingSettings) -> list[MicroBatch]:
    """The micro-batches of a step that this process computes; each process has at least one slice."""
    if len(step) < fabric.world_size:
        raise ProtocolError(
            f"A step of {len(step)} slices cannot be shared by {fabric.world_size} processes; use fewer."
        )
    mine = slice(fabric.global_rank, None, fabric.world_size)
    parts = (chunks(numbers[mine], settings.micro_batch) for numbers in (step, seeds))
    return [MicroBatch(chosen, step, keys) for chosen, keys in zip(*parts, strict=True)]


def _set_rate(state: TrainingState, rate: float) -> None:
    for group in state.optimiser.param_groups:
        group["lr"] = rate


def _augmentation(settings: TrainingSettings) -> Augmentation | None:
    return None if settings.augmentation == Augmentation.none() else settings.augmentation


def _judge(
    job: Job, state: TrainingState, fabric: Fabric, score: Score | None, loss: float, seconds: float
) -> EpochRecord:
    """The epoch's record: loss and score of the validation slices with the weights that would be kept."""
    losses: list[float] = []
    network = state.kept_model.eval()
    loss_of = slice_loss(job.training.loss)

    def predictions() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        plan = [MicroBatch(part, part, []) for part in chunks(range(len(job.validation)), 8)]
        for images, targets in load_batches(job.validation, plan, job.network):
            with torch.no_grad(), fabric.autocast():
                logits = network(fabric.to_device(images)).float()
            losses.extend(loss_of(logits, fabric.to_device(targets)).tolist())
            yield logits.sigmoid()[:, 0].cpu().numpy(), targets[:, 0].numpy() > 0.5

    value = score(predictions()) if score else _exhaust(predictions())
    rate = state.optimiser.param_groups[0]["lr"]
    record = EpochRecord(state.epoch + 1, loss, float(np.mean(losses)), float(value), rate, seconds)
    return cast(EpochRecord, fabric.broadcast(record))  # all processes stop together


def _exhaust(batches: Iterable) -> float:
    """Run through the batches for their losses alone."""
    for _ in batches:
        pass
    return math.nan


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate of a step, from its number alone, so that a resumed run goes on exactly.

    ``one_cycle`` rises from a 25th over the first tenth (a cosine), then falls to nearly nothing; ``cosine`` only falls.
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    warm = 0.1 * steps if settings.schedule == "one_cycle" else 0.0
    if step < warm:
        low = settings.learning_rate / 25
        return low + (settings.learning_rate - low) * (1 - math.cos(math.pi * step / warm)) / 2
    return settings.learning_rate * max(1e-4, (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2)


def _optimiser(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    if settings.optimiser == "adam":
        return torch.optim.Adam(trained, lr=settings.learning_rate, eps=1e-7, fused=True)
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def _checkpoint(job: Job, state: TrainingState) -> Checkpoint:
    return Checkpoint(
        weights={name: tensor.numpy(force=True).copy() for name, tensor in state.best.items()},
        network=job.network,
        size=job.train.size,
        interpolation=job.train.interpolation,
        history=History(job.name, tuple(state.records), state.best_epoch),
        trained_on=job.train.describe("train") + job.validation.describe("validation"),
        seed=job.seed,
        made_with=describe_software(),
        parent=job.start.describe() if job.start else None,
        fingerprint=job.fingerprint,
    )
