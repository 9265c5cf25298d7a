"""Who does the work changes no number; work that was interrupted is taken up where it was."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungshift.errors import MissingError, ProtocolError
from lungshift.learn.machine import use_threads
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.prepare.prepared import prepare_cohort
from lungshift.prepare.slices import select_slices
from lungshift.transfer.engine import carry_out
from lungshift.transfer.plan import Plan, Training, Trial, plan_transfer
from lungshift.transfer.protocol import PrepareSettings, Protocol, SplitSettings
from lungshift.transfer.sides import Side
from lungshift.transfer.watcher import Silent
from lungshift.transfer.work import Bench, do_task, read_scores
from lungshift.workers import Workers, start_executor
from worlds import cohort_of, tiny_case

SHORT = TrainingSettings(epochs=2, patience=0, batch=8, micro_batch=8, learning_rate=1e-2)
TINY = Protocol(
    "tiny",
    prepare=PrepareSettings(size=16),
    split=SplitSettings(test_share=0.4),
    network=NetworkSettings(width=2, levels=2),
    training=SHORT,
    fine_tuning=SHORT,
    budgets=(1,),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, tuple]:
    folder, sides = tmp_path_factory.mktemp("prepared"), []
    for number, name in enumerate(("home", "away")):
        cases = (tiny_case(seed) for seed in range(10 * number, 10 * number + 5))
        prepared = prepare_cohort(cohort_of(*cases, name=name), folder, size=16)
        sides.append(Side("target" if number else "source", prepared, select_slices(prepared.table, "lung")))
    return plan_transfer(TINY, sides), tuple(side.prepared for side in sides)


@pytest.fixture(scope="module")
def alone(study: tuple[Plan, tuple], tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    return _counts(study, tmp_path_factory.mktemp("alone"), Workers())


def _counts(study: tuple[Plan, tuple], folder: Path, workers: Workers) -> list[np.ndarray]:
    plan, cohorts = study
    bench = Bench(TINY, cohorts, folder, "cpu")
    carry_out(bench, plan, workers, Silent())
    return [read_scores(bench, trial).counts for trial in plan.trials]


def test_two_processes_count_what_one_does(study: Any, alone: list[np.ndarray], tmp_path: Path) -> None:
    for one, other in zip(alone, _counts(study, tmp_path, Workers(2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cluster_counts_what_one_process_does(study: Any, alone: list[np.ndarray], tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        counts = _counts(study, tmp_path, Workers(scheduler=cluster.scheduler_address))

    for one, other in zip(alone, counts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scheduler_that_does_not_answer_is_named(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("lungshift.workers._ANSWER_S", 1)

    with pytest.raises(MissingError, match=r"No dask scheduler answers at tcp://127.0.0.1:9"):
        _counts(study, tmp_path, Workers(scheduler="tcp://127.0.0.1:9"))


def test_workers_with_several_threads_are_refused(study: Any, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        pytest.raises(ProtocolError, match="--nthreads 1"),
    ):
        _counts(study, tmp_path, Workers(scheduler=cluster.scheduler_address))


def test_an_interrupt_ends_the_work_of_other_processes_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), start_executor(Workers(2), use_threads) as executor:
        executor.submit(abs, 1).result()
        executor.submit(time.sleep, 60)
        raise KeyboardInterrupt

    assert time.monotonic() - started < 30


@pytest.mark.parametrize("words", [{"jobs": 0}, {"jobs": 2, "scheduler": "tcp://host:1"}])
def test_nobody_and_both_at_once_cannot_work(words: dict) -> None:
    with pytest.raises(ProtocolError, match="at least one process, here or on a cluster"):
        Workers(**words)


class Stopped(Exception):
    """Somebody pulls the plug."""


class Unplugged(Silent):
    """Stops the work at its n-th word."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def _tick(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Stopped

    def stage(self, text: str) -> None:
        self._tick()

    def slices(self, done: int, total: int) -> None:
        self._tick()

    def epoch(self, record: object, epochs: int) -> None:
        self._tick()


def test_stopped_again_and_again_and_taken_up_each_time_it_ends_with_the_same_counts(
    study: tuple[Plan, tuple], alone: list[np.ndarray], tmp_path: Path
) -> None:
    plan, cohorts = study
    bench = Bench(TINY, cohorts, tmp_path, "cpu")
    stops, went_through = 0, False
    while not went_through:
        try:
            carry_out(bench, plan, Workers(), Unplugged(2 + stops % 4))
            went_through = True
        except Stopped:
            stops += 1

    assert stops >= 5
    for trial, counts in zip(plan.trials, alone, strict=True):
        np.testing.assert_array_equal(read_scores(bench, trial).counts, counts)


class Listening(Silent):
    """Keeps the first word of every stage."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text.split(maxsplit=1)[0])


def test_what_is_finished_is_not_done_again(study: tuple[Plan, tuple], tmp_path: Path) -> None:
    plan, cohorts = study
    bench, first, second = Bench(TINY, cohorts, tmp_path, "cpu"), Listening(), Listening()

    carry_out(bench, plan, Workers(), first)
    carry_out(bench, plan, Workers(), second)

    assert first.said.count("Training") == len(plan.trainings)
    assert second.said == []


def test_a_test_that_is_lost_or_damaged_is_done_again_and_its_training_is_not(
    study: tuple[Plan, tuple], alone: list[np.ndarray], tmp_path: Path
) -> None:
    plan, cohorts = study
    bench, listening = Bench(TINY, cohorts, tmp_path, "cpu"), Listening()
    carry_out(bench, plan, Workers(), Silent())
    bench.counts(plan.trials[0]).unlink()
    bench.counts(plan.trials[1]).write_bytes(b"half a file")

    carry_out(bench, plan, Workers(), listening)

    assert listening.said == ["Testing", "Testing"]
    for trial, counts in zip(plan.trials, alone, strict=True):
        np.testing.assert_array_equal(read_scores(bench, trial).counts, counts)


def test_other_rows_are_not_answered_with_old_counts(study: tuple[Plan, tuple], tmp_path: Path) -> None:
    plan, cohorts = study
    bench, training = Bench(TINY, cohorts, tmp_path, "cpu"), plan.trainings[0]
    trial = plan.trials_of(training)[0]
    do_task(bench, training, [trial])

    fewer = replace(trial, rows=trial.rows[:3])
    do_task(bench, training, [fewer])

    assert len(read_scores(bench, fewer).slices) == 3


def test_an_error_of_one_training_is_told_and_the_rest_is_kept(study: tuple[Plan, tuple], tmp_path: Path) -> None:
    plan, cohorts = study
    broken = replace(plan.trainings[1], trainable="head", start="")
    bench = Bench(TINY, cohorts, tmp_path, "cpu")

    with pytest.raises(ProtocolError, match="weights that stay as they are"):
        carry_out(bench, Plan((plan.trainings[0], broken), plan.trials, ()), Workers(2), Silent())

    assert bench.checkpoint(plan.trainings[0].name).is_dir()


def test_what_is_sent_to_another_process_is_small(study: tuple[Plan, tuple], tmp_path: Path) -> None:
    import pickle

    plan, cohorts = study
    cohorts[0].hu(0)
    training: Training = plan.trainings[0]
    trials: tuple[Trial, ...] = plan.trials_of(training)

    assert len(pickle.dumps((Bench(TINY, cohorts, tmp_path), training, trials))) < 60_000
