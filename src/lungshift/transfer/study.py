"""The study: train at home, test abroad, repair with a little of the target, test again on the same held-out slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungshift.ct.case import Cohort
from lungshift.learn.checkpoint import Checkpoint, load_checkpoint
from lungshift.learn.engine import name_engine
from lungshift.learn.machine import describe_software, name_device
from lungshift.transfer.engine import carry_out
from lungshift.transfer.examples import pick_examples
from lungshift.transfer.explain import explain_drop
from lungshift.transfer.outcome import Explanation, Outcome, Run, StudyKind
from lungshift.transfer.plan import Plan, Trial, plan_chain, plan_leak, plan_leave_one_out, plan_transfer
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.sides import (
    Side,
    prepare_side,
    require_study,
    settle_patients,
    summarise_side,
)
from lungshift.transfer.watcher import Silent, Watcher
from lungshift.transfer.work import Bench, read_scores
from lungshift.workers import Workers


@dataclass(frozen=True)
class _Setting:
    """Where and by whom a study is carried out; none of it changes what is asked."""

    folder: Path
    device: str
    cache: Path
    workers: Workers
    watcher: Watcher

    @classmethod
    def of(
        cls, folder: Path, device: str, cache: Path | None, workers: Workers | None, watcher: Watcher | None
    ) -> _Setting:
        # absolute, for the workers of a cluster start elsewhere
        folder, cache = folder.absolute(), (cache or folder / "prepared").absolute()
        return cls(folder, device, cache, workers or Workers(), watcher or Silent())


def run(
    protocol: Protocol,
    source: Cohort,
    target: Cohort,
    folder: Path,
    *,
    device: str = "auto",
    cache: Path | None = None,
    workers: Workers | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Carry out a transfer; every arm is tested on the same held-out slices of the target, and again at home.

    A run that was stopped goes on: trainings and tests that are finished are not done again, a training that is not goes
    on from its last epoch, and the numbers are those of a run that was not stopped.

    Args:
        protocol: What is asked.
        source: Where the model is trained.
        target: Where it is to work.
        folder: Where checkpoints, training states and counts go.
        device: ``auto``, ``cpu``, ``cuda``.
        cache: Where prepared cohorts lie; inside ``folder`` if None.
        workers: How many networks are trained at a time, and by whom; one at a time, here, if None.
        watcher: Is told how it goes on.

    Raises:
        CohortError: A cohort has no lesion masks, or both are one.
        LeakageError: A patient would stand on two sides of a split by patient, by id or by content.
    """
    setting = _Setting.of(folder, device, cache, workers, watcher)
    return _study("transfer", plan_transfer, protocol, (source, target), setting)


def run_chain(
    protocol: Protocol,
    cohorts: Sequence[Cohort],
    folder: Path,
    *,
    device: str = "auto",
    cache: Path | None = None,
    workers: Workers | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Train one network on the cohorts one after another and test it on all of them after each.

    The first is trained by ``protocol.training``, each later one by ``protocol.fine_tuning``; both on all patients that are
    not held back. Arms, budgets and folds are not used. The other arguments are those of ``run``.

    Raises:
        ProtocolError: Fewer than two cohorts.
        CohortError, LeakageError: As for ``run``.
    """
    return _study("chain", plan_chain, protocol, cohorts, _Setting.of(folder, device, cache, workers, watcher))


def run_leave_one_out(
    protocol: Protocol,
    cohorts: Sequence[Cohort],
    folder: Path,
    *,
    device: str = "auto",
    cache: Path | None = None,
    workers: Workers | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Test on each cohort a network that was trained on all others, and one that was trained there, on the same slices.

    The other arguments are those of ``run``.

    Raises:
        ProtocolError: Fewer than two cohorts.
        CohortError, LeakageError: As for ``run``.
    """
    setting = _Setting.of(folder, device, cache, workers, watcher)
    return _study("leave_one_out", plan_leave_one_out, protocol, cohorts, setting)


def _study(
    kind: StudyKind,
    plan_of: Callable[[Protocol, Sequence[Side]], Plan],
    protocol: Protocol,
    cohorts: Sequence[Cohort],
    setting: _Setting,
) -> Outcome:
    """Check, prepare, plan, work, and put together what came of it."""
    require_study(protocol, cohorts)
    sides, twins = settle_patients(_prepare(protocol, cohorts, setting))
    bench = Bench(protocol, tuple(side.prepared for side in sides), setting.folder, setting.device)
    plan = plan_of(protocol, sides)
    leak = plan_leak(protocol, sides[0]) if protocol.price_leak and kind == "transfer" else Plan((), (), ())
    whole = Plan((*plan.trainings, *leak.trainings), (*plan.trials, *leak.trials), plan.splits)
    carry_out(bench, whole, setting.workers, setting.watcher)
    return Outcome(
        protocol=protocol,
        cohorts=tuple(summarise_side(side) for side in sides),
        splits=plan.splits,
        runs=_runs(bench, plan),
        histories=tuple(_model(bench, training.name).history for training in whole.trainings),
        examples=pick_examples(bench, plan, setting.watcher),
        manifest=_manifest(bench),
        kind=kind,
        leak=_runs(bench, leak),
        twins=twins,
        explanation=_explain(bench, plan, setting.watcher) if kind == "transfer" and protocol.explain_drop else None,
    )


def _prepare(protocol: Protocol, cohorts: Sequence[Cohort], setting: _Setting) -> list[Side]:
    roles = ("source", *("target",) * (len(cohorts) - 1))
    return [
        prepare_side(role, cohort, setting.cache, protocol.prepare, setting.watcher)
        for role, cohort in zip(roles, cohorts, strict=True)
    ]


def _runs(bench: Bench, plan: Plan) -> tuple[Run, ...]:
    return tuple(_run(bench, trial) for trial in plan.trials)


def _run(bench: Bench, trial: Trial) -> Run:
    rule = _model(bench, trial.model).decision
    return Run(
        arm=trial.arm,
        tested_on=bench.cohorts[trial.on].name,
        role=trial.role,
        budget=trial.budget,
        seed=trial.seed,
        scores=read_scores(bench, trial),
        threshold=rule.threshold,
        min_pixels=rule.min_pixels,
        labels=trial.labels,
        fold=trial.fold,
        trained_on=trial.trained_on,
    )


def _model(bench: Bench, training: str) -> Checkpoint:
    return load_checkpoint(bench.checkpoint(training))


def _explain(bench: Bench, plan: Plan, watcher: Watcher) -> Explanation | None:
    """The first seed's source model replayed on all target slices that any fold tests."""
    source = plan.trainings[0]
    home = next(trial for trial in plan.trials if trial.arm == "source")
    away = [
        t for t in plan.trials if t.role == "target" and t.seed == source.seed and t.labels == 0 and not t.adaptation
    ]
    if not away:
        return None
    rows = np.unique(np.concatenate([trial.rows for trial in away]))
    watcher.stage("Replaying the source model without one difference at a time")
    return explain_drop(
        _model(bench, source.name),
        bench.cohorts[0],
        home.rows,
        bench.cohorts[1],
        rows,
        source_train=source.train[0][1],
        device=bench.device,
        watcher=watcher,
    )


def _manifest(bench: Bench) -> dict[str, Any]:
    from lungshift import __version__

    return {
        "lungshift": __version__,
        "software": describe_software(),
        "device": name_device(bench.device),
        "predicted_by": name_engine(bench.device),
        "protocol": bench.protocol.as_dict(),
        "inputs": {cohort.name: cohort.checksums for cohort in bench.cohorts},
        "prepared": {cohort.name: cohort.key for cohort in bench.cohorts},
        "looked_for_twins": True,
    }
