"""Training: exact accumulation, exact resume, early stopping, the best weights, no silent NaN."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from killing import full_after
from lungshift.errors import CheckpointError, MissingError, ProtocolError, ResourceError, TrainingError
from lungshift.learn import training
from lungshift.learn.history import EpochRecord
from lungshift.learn.machine import start_fabric
from lungshift.learn.settings import Augmentation, TrainingSettings
from lungshift.learn.state import TrainingState
from lungshift.learn.training import Job, fit, learning_rate


def weights_of(job: Job, **options: object) -> Mapping[str, np.ndarray]:
    return fit(job, device="cpu", **options).weights  # type: ignore[arg-type]


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_loss_goes_down(job: Job) -> None:
    history = fit(replace(job, training=replace(job.training, epochs=8)), device="cpu").history

    assert history.epochs[-1].loss < 0.8 * history.epochs[0].loss
    assert [record.epoch for record in history.epochs] == list(range(1, 9))


@pytest.mark.parametrize("crop", [False, True], ids=["whole slices", "lungs only"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(job: Job, micro_batch: int, crop: bool) -> None:
    job = replace(job, network=replace(job.network, crop=crop))
    whole = replace(job, training=replace(job.training, epochs=1, batch=8, micro_batch=8))
    parts = replace(whole, training=replace(whole.training, micro_batch=micro_batch))

    one, other = weights_of(whole), weights_of(parts)

    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [5, 6])
def test_the_same_seed_gives_the_same_bits(job: Job, seed: int) -> None:
    augmented = replace(job, seed=seed, training=replace(job.training, augmentation=Augmentation()))

    assert same(weights_of(augmented), weights_of(augmented))
    assert not same(weights_of(augmented), weights_of(replace(augmented, seed=seed + 1)))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(job: Job, folder: Path, stop_after: int) -> None:
    job = replace(
        job,
        training=replace(
            job.training, augmentation=Augmentation(), average_decay=0.9, optimiser="adamw", schedule="one_cycle"
        ),
    )
    job = replace(job, network=replace(job.network, dropout=0.5))
    state = folder / "state.safetensors"

    class Killed(BaseException):
        pass

    def kill(record: EpochRecord, _: int) -> None:
        if record.epoch == stop_after:
            raise Killed

    with pytest.raises(Killed):
        fit(job, device="cpu", state_file=state, watch=kill)
    seen: list[int] = []

    resumed = fit(job, device="cpu", state_file=state, watch=lambda record, _: seen.append(record.epoch))

    assert seen == list(range(stop_after + 1, 4)), "finished epochs are not done again"
    assert same(resumed.weights, weights_of(job))


def test_f75_a_full_disk_is_told_in_words_and_leaves_the_state_of_the_epoch_before(job: Job, folder: Path) -> None:
    state = folder / "state.safetensors"

    def fill(record: EpochRecord, _: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

    with (
        full_after(1 << 40),
        pytest.raises(ResourceError, match=r"state.safetensors: File too large; [\d,]+ bytes") as caught,
    ):
        fit(job, device="cpu", state_file=state, watch=fill)

    assert caught.value.exit_code == 6
    assert [path.name for path in folder.iterdir()] == [state.name]
    seen: list[int] = []
    resumed = fit(job, device="cpu", state_file=state, watch=lambda record, _: seen.append(record.epoch))
    assert seen == [2, 3]
    assert same(resumed.weights, weights_of(job))


def test_the_state_of_another_run_is_refused(job: Job, folder: Path) -> None:
    fit(job, device="cpu", state_file=folder / "state.safetensors")

    with pytest.raises(CheckpointError, match="other settings, data or seed"):
        fit(replace(job, seed=99), device="cpu", state_file=folder / "state.safetensors")


def test_a_damaged_state_is_refused_in_words(job: Job, folder: Path) -> None:
    (folder / "state.safetensors").write_bytes(b"no tensors")

    with pytest.raises(CheckpointError, match="delete it to start again"):
        fit(job, device="cpu", state_file=folder / "state.safetensors")


def scripted(values: list[float]):  # type: ignore[no-untyped-def]
    """A score that says these values, epoch after epoch."""
    left = iter(values)

    def score(batches) -> float:  # type: ignore[no-untyped-def]
        for _ in batches:
            pass
        return next(left)

    return score


def test_training_stops_after_the_patience_and_keeps_the_best_epoch(job: Job) -> None:
    job = replace(job, training=replace(job.training, epochs=9, patience=2, monitor="score"))

    kept = fit(job, device="cpu", score=scripted([0.1, 0.5, 0.3, 0.4, 0.9]))

    assert len(kept.history.epochs) == 4
    assert kept.history.best_epoch == 2
    until_best = replace(job, training=replace(job.training, epochs=2))
    assert same(kept.weights, fit(until_best, device="cpu", score=scripted([0.1, 0.5])).weights)


def test_the_average_of_weights_is_kept_where_it_was_asked_for(job: Job) -> None:
    averaged = replace(job, training=replace(job.training, average_decay=0.5))

    assert not same(weights_of(job), weights_of(averaged))


def test_fine_tuning_is_the_same_function_started_from_a_checkpoint(job: Job) -> None:
    start = fit(job, device="cpu")
    still = replace(job, start=start, training=replace(job.training, epochs=1, learning_rate=1e-12))

    tuned = fit(still, device="cpu")

    for name, tensor in tuned.weights.items():
        np.testing.assert_allclose(tensor, start.weights[name], atol=1e-6, rtol=0)
    assert tuned.parent is not None
    assert tuned.parent["seed"] == start.seed


def frozen_job(job: Job, trainable: str, **training_settings: object) -> Job:
    """A fine-tuning in which everything that could move does: batch norm, dropout, a moving average, changed slices."""
    source = replace(job, network=replace(job.network, norm="batch", dropout=0.5))
    settings = replace(job.training, augmentation=Augmentation(), average_decay=0.9, **training_settings)
    return replace(source, start=fit(source, device="cpu"), training=settings, trainable=trainable)


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [("all", {"down", "grow", "up", "last"}), ("decoder", {"grow", "up", "last"}), ("head", {"last"})],
)
def test_frozen_layers_keep_every_bit_and_the_others_learn(job: Job, trainable: str, parts: set[str]) -> None:
    tuned = frozen_job(job, trainable)
    assert tuned.start is not None

    weights = weights_of(tuned)

    changed = {name for name, tensor in weights.items() if not np.array_equal(tensor, tuned.start.weights[name])}
    assert changed == {name for name in weights if name.split(".")[0] in parts}


@pytest.mark.parametrize("trainable", ["decoder", "head"])
def test_a_killed_run_with_frozen_layers_ends_with_the_same_bits(job: Job, folder: Path, trainable: str) -> None:
    tuned = frozen_job(job, trainable, optimiser="adamw", weight_decay=0.1, epoch_slices=10, balance=0.5)

    class Killed(BaseException):
        pass

    def kill(record: EpochRecord, _: int) -> None:
        if record.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(tuned, device="cpu", state_file=folder / "state", watch=kill)

    assert same(weights_of(tuned, state_file=folder / "state"), weights_of(tuned))


def test_the_number_of_workers_changes_no_bit_where_slices_are_drawn_again(job: Job) -> None:
    augmented = replace(job, training=replace(job.training, augmentation=Augmentation(), balance=1.0, epoch_slices=12))

    assert same(weights_of(augmented), weights_of(augmented, workers=2))


@pytest.mark.parametrize("trainable", ["decoder", "head", "hat"])
def test_fresh_weights_are_not_frozen(job: Job, trainable: str) -> None:
    with pytest.raises(ProtocolError, match="fresh weights"):
        replace(job, trainable=trainable)


def test_jobs_with_other_layers_or_other_epochs_are_other_jobs(job: Job) -> None:
    tuned = replace(job, start=fit(job, device="cpu"))
    jobs = [tuned, replace(tuned, trainable="head"), replace(tuned, trainable="decoder")]
    jobs.append(replace(tuned, training=replace(tuned.training, epoch_slices=9)))

    assert len({one.fingerprint for one in jobs}) == 4


def test_an_epoch_takes_as_many_steps_whatever_there_is_to_train_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(training, "_step", lambda *arguments: taken.append(arguments[-1]) or 3.0 * arguments[-1])
    few = replace(job.train, parts=((job.train.parts[0][0], job.train.parts[0][1][:3]),))
    asked = replace(job, train=few, training=replace(job.training, epochs=1, epoch_slices=10))

    history = fit(asked, device="cpu").history

    assert taken == [4, 4, 2]
    assert history.epochs[0].loss == 3.0, "the mean over the slices drawn"


def test_an_epoch_of_fewer_than_no_slices_is_refused() -> None:
    with pytest.raises(ProtocolError, match="got -1"):
        TrainingSettings(epoch_slices=-1)


def test_fine_tuning_with_another_network_is_refused(job: Job) -> None:
    start = fit(job, device="cpu")

    with pytest.raises(ProtocolError, match="keeps the network"):
        replace(job, start=start, network=replace(job.network, width=4))


def test_fine_tuning_on_other_pictures_is_refused(job: Job) -> None:
    start = replace(fit(job, device="cpu"), size=64)

    with pytest.raises(ProtocolError, match="keeps the pictures"):
        replace(job, start=start)


def test_a_loss_that_is_no_number_stops_with_the_slices_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "slice_loss", lambda _: lambda logits, _: logits.flatten(1).mean(1) * math.nan)

    with pytest.raises(TrainingError, match=r"epoch 1, step 1 \(slices \["):
        fit(job, device="cpu")


def test_f87_the_state_of_the_last_good_epoch_is_kept_when_the_loss_turns_into_no_number(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = folder / "state.safetensors"

    def spoil(record: EpochRecord, _: int) -> None:
        monkeypatch.setattr(training, "slice_loss", lambda _: lambda logits, _: logits.flatten(1).mean(1) * math.inf)

    with pytest.raises(
        TrainingError, match=r"loss is -?(inf|nan) in epoch 2, step 1 \(slices \[.*last good state is kept"
    ):
        fit(job, device="cpu", state_file=state, watch=spoil)

    monkeypatch.undo()
    assert same(weights_of(job, state_file=state), weights_of(job))


def test_f87_weights_that_the_last_step_of_an_epoch_spoils_are_not_kept_as_its_state(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, step, taken = folder / "state.safetensors", training._step, []

    def explode(job: Job, now: TrainingState, *rest) -> float:  # type: ignore[no-untyped-def]
        loss = step(job, now, *rest)
        taken.append(1)
        if len(taken) == 4:  # the last of the second epoch
            next(now.model.parameters()).data.fill_(math.inf)
        return loss

    with monkeypatch.context() as patched:
        patched.setattr(training, "_step", explode)
        with pytest.raises(TrainingError, match=r"weights are no numbers after epoch 2 \(its last step had slices \["):
            fit(job, device="cpu", state_file=state)

    assert same(weights_of(job, state_file=state), weights_of(job))


def test_a_score_that_is_never_a_number_does_not_pass_untrained_weights_off_as_trained(job: Job) -> None:
    watched = replace(job, training=replace(job.training, monitor="score"))

    with pytest.raises(TrainingError, match="no weights are worth keeping"):
        fit(watched, device="cpu", score=scripted([math.nan] * 3))


def test_a_score_that_is_watched_must_be_given(job: Job) -> None:
    with pytest.raises(ProtocolError, match="none was given"):
        fit(replace(job, training=replace(job.training, monitor="score")), device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_never_replaced(device: str) -> None:
    with pytest.raises(MissingError, match=device):
        start_fabric(device)


def test_the_learning_rate_is_a_function_of_the_step_alone() -> None:
    settings = TrainingSettings(learning_rate=1.0, schedule="one_cycle")
    rates = [learning_rate(settings, step, 100) for step in range(100)]

    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) == 10
    assert 0 < rates[-1] < 0.01
    assert learning_rate(TrainingSettings(learning_rate=0.5), 77, 100) == 0.5


def test_bf16_trains_and_keeps_weights_in_fp32(job: Job) -> None:
    weights = weights_of(replace(job, training=replace(job.training, precision="bf16")))

    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
