"""Those who train and predict, one function each; see ``benchmarks.turns``. Imports stay inside: each may live in its own environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


def matmul(kind: str, side: int = 2048, times: int = 4) -> Work:
    """Square matrix products in ``float32`` or ``bfloat16`` by oneDNN, through torch."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(side, side).to(getattr(torch, kind))

    def work() -> None:
        for _ in range(times):
            a @ a

    work()
    return work


def lungshift(width: int, size: int, micro_batch: int, keep_memory: bool = True) -> Work:
    """``fit``'s own step (bf16, channels-last, fused Adam) on one micro-batch that stays in memory."""
    import torch

    from lungshift.learn import machine, training
    from lungshift.learn.data import Batch

    torch.set_num_threads(1)
    if not keep_memory:
        machine.keep_freed_memory = lambda: None
    job, fabric = _job(width, micro_batch, micro_batch), machine.start_fabric("cpu", "bf16")
    state = training._begin(job, fabric, None)
    state.model.train()
    images = torch.rand(micro_batch, 2, size, size).contiguous(memory_format=torch.channels_last)
    batch = Batch(images, (torch.rand(micro_batch, 1, size, size) > 0.9).float())

    def work() -> None:
        training._step(job, state, fabric, [batch], micro_batch)

    work()
    return work


def keras(width: int, size: int, micro_batch: int) -> Work:
    """The same network and step in Keras on TensorFlow, fp32, as the source paper's: no torch, no lungshift."""
    import keras as k
    import numpy as np

    def two(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = k.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    inputs = x = k.Input((size, size, 2))
    skips = []
    for level in range(4):
        skips.append(two(x, width << level))
        x = k.layers.MaxPooling2D()(skips[-1])
    x = two(x, width << 4)
    for level in (3, 2, 1, 0):
        x = k.layers.Conv2DTranspose(width << level, 2, strides=2)(x)
        x = two(k.layers.Concatenate()([skips[level], x]), width << level)
    model = k.Model(inputs, k.layers.Conv2D(1, 1)(x))
    model.compile(k.optimizers.Adam(1e-4), k.losses.BinaryCrossentropy(from_logits=True))
    images = np.random.default_rng(0).random((micro_batch, size, size, 2), dtype=np.float32)
    target = (images[..., :1] > 0.9).astype(np.float32)

    def work() -> None:
        model.train_on_batch(images, target)

    work()
    return work


def whole_batch(prepared: str, width: int, micro_batch: int, parts: int, keep_memory: bool = True) -> Work:
    """``fit`` itself for two epochs of one exact step each: ``parts`` micro-batches, all the memory that training has."""
    import torch

    from lungshift.learn import machine, training

    torch.set_num_threads(1)
    if not keep_memory:
        machine.keep_freed_memory = lambda: None
    slices = parts * micro_batch
    job = _job(width, slices, micro_batch, prepared, epochs=2)
    return lambda: training.fit(job, device="cpu") and None


def loading(prepared: str, augmented: bool, slices: int, micro_batch: int = 5) -> Work:
    """Random prepared slices as micro-batches of the paper's two channels, in this process."""
    import numpy as np
    import torch

    from lungshift.learn.data import MicroBatch, load_batches, seed_epoch
    from lungshift.learn.pictures import SliceSet, chunks
    from lungshift.learn.settings import Augmentation, NetworkSettings
    from lungshift.prepare.prepared import open_prepared

    torch.set_num_threads(1)
    cohort = open_prepared(Path(prepared))
    everything = SliceSet.of(cohort, np.arange(len(cohort.table)))
    order = np.random.default_rng(0)

    def work() -> None:
        chosen = order.integers(len(everything), size=slices).tolist()
        plan = chunks(chosen, micro_batch)
        seeds = seed_epoch(plan, 0, 0)
        batches = [MicroBatch(part, part, one) for part, one in zip(plan, seeds, strict=True)]
        for _ in load_batches(everything, batches, NetworkSettings(), Augmentation() if augmented else None):
            pass

    work()
    return work


def inference(width: int, size: int, slices: int = 8) -> Work:
    """``Predictor.probability`` of whole slices, bf16."""
    import numpy as np
    import torch

    from lungshift.learn.checkpoint import Checkpoint, build_network
    from lungshift.learn.prediction import Predictor
    from lungshift.learn.settings import NetworkSettings

    torch.set_num_threads(1)
    network = NetworkSettings(width=width)
    predictor = Predictor.of(Checkpoint(build_network(network).state_dict(), network, size), "cpu")
    hu = np.random.default_rng(0).uniform(-1000, 200, (slices, 1, size, size)).astype(np.float32)
    lung = np.ones((slices, size, size), dtype=bool)

    def work() -> None:
        predictor.probability(hu, lung)

    work()
    return work


def _job(width: int, slices: int, micro_batch: int, prepared: str | None = None, epochs: int = 1) -> Any:
    """A job like that of the protocol ``paper``, without early stopping; without ``prepared`` its slices are never read."""
    from dataclasses import replace

    import numpy as np

    from lungshift.learn.pictures import SliceSet
    from lungshift.learn.training import Job
    from lungshift.prepare.prepared import PreparedCohort, open_prepared
    from lungshift.prepare.slices import SLICE_DTYPE
    from lungshift.transfer.protocol import read_protocol

    paper = read_protocol("paper")
    cohort = (
        open_prepared(Path(prepared))
        if prepared
        else PreparedCohort(Path(), "none", "none", 320, "linear", (), np.zeros(slices, SLICE_DTYPE), {})
    )
    settings = replace(paper.training, batch=slices, micro_batch=micro_batch, epochs=epochs)
    rows = np.arange(slices)
    return Job(
        SliceSet.of(cohort, rows),
        SliceSet.of(cohort, rows[:8]),
        replace(paper.network, width=width),
        settings,
    )
