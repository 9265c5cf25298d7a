"""Slices to look at: a good, a typical and a bad one of the runs that a reader asks for first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lungshift.learn.checkpoint import load_checkpoint
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.measure.overlap import dice
from lungshift.prepare.prepared import PreparedCohort
from lungshift.transfer.outcome import Example
from lungshift.transfer.plan import Plan, Trial
from lungshift.transfer.watcher import Watcher
from lungshift.transfer.work import Bench, read_scores

_KINDS = (("good", 0.95), ("typical", 0.5), ("bad", 0.05))
_ENOUGH_PIXELS = 100


def pick_examples(bench: Bench, plan: Plan, watcher: Watcher) -> tuple[Example, ...]:
    """Three slices of the source model at home and abroad, and of the retrained one at its largest budget."""
    watcher.stage("Predicting slices to look at")
    return tuple(example for trial in _worth_seeing(plan) for example in _pick(bench, trial))


def _worth_seeing(plan: Plan) -> Iterator[Trial]:
    """The first test of each arm, of the first seed; with labels, the first at the largest budget."""
    for arm in ("source", "zero_shot", "fine_tuned", "chain", "leave_one_out"):
        mine = [trial for trial in plan.trials if trial.arm == arm and (trial.role == "target" or arm == "source")]
        most = max((trial.labels for trial in mine), default=0)
        yield from [trial for trial in mine if trial.labels == most][:1]


def _pick(bench: Bench, trial: Trial) -> Iterator[Example]:
    """The 95th, 50th and 5th percentile of Dice among slices with enough lesion to see."""
    scores, prepared = read_scores(bench, trial), bench.cohorts[trial.on]
    lesion, quality = scores.counts[:, 0] + scores.counts[:, 2], dice(scores.counts)
    visible = np.flatnonzero((lesion >= min(_ENOUGH_PIXELS, lesion.max())) & np.isfinite(quality))
    if not len(visible):
        return
    ranked = visible[np.argsort(quality[visible], kind="stable")]
    predictor = Predictor.of(load_checkpoint(bench.checkpoint(trial.model)), bench.device)
    for kind, share in _KINDS:
        one = ranked[round(share * (len(ranked) - 1))]
        row = _row(prepared, str(scores.cases[one]), int(scores.slices[one]))
        _, probability = next(iter(predict_slices(predictor, SliceSet.of(prepared, np.array([row])))))
        mask = decide(probability, predictor.checkpoint.decision)[0]
        pictures = np.array(prepared.hu(row)), prepared.lung(row), prepared.lesion(row)
        label = f"{trial.arm} on {prepared.name}, {trial.budget}, seed {trial.seed}"
        yield Example(
            label, kind, str(scores.cases[one]), int(scores.slices[one]), float(quality[one]), *pictures, mask
        )


def _row(prepared: PreparedCohort, case_id: str, index: int) -> int:
    return int(np.flatnonzero((prepared.case_ids == case_id) & (prepared.table["index"] == index))[0])
