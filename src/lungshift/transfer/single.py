"""One cohort at a time: train on it, fine-tune with it, judge a checkpoint on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import LeakageError, ProtocolError
from lungshift.learn.checkpoint import Checkpoint, require_target
from lungshift.learn.prediction import Predictor
from lungshift.prepare.slices import SliceRule
from lungshift.transfer.outcome import Scores, SplitSummary
from lungshift.transfer.plan import Training
from lungshift.transfer.protocol import PrepareSettings, Protocol
from lungshift.transfer.sides import (
    aim,
    group_by_content,
    prepare_side,
    require_scorable,
    settle_patients,
    split_of,
    summarise_split,
)
from lungshift.transfer.watcher import Silent, Watcher
from lungshift.transfer.work import Bench, score_rows, train


@dataclass(frozen=True, eq=False)
class Trained:
    """A checkpoint and its folder, with the counts of the slices that it was held back from, and the split."""

    checkpoint: Checkpoint
    folder: Path
    scores: Scores
    split: SplitSummary


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Counts of a checkpoint on a cohort, and the cases among them that it knew from its training."""

    scores: Scores
    known: tuple[str, ...] = ()


def train_cohort(
    protocol: Protocol,
    cohort: Cohort,
    folder: Path,
    *,
    start: Checkpoint | None = None,
    budget: int | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Trained:
    """Train on one cohort by a protocol's first seed, or fine-tune ``start`` with it; score the held-out slices.

    Args:
        protocol: Split, network and training; network and pictures must be those of ``start`` if given.
        cohort: Where it is trained and tested.
        folder: Checkpoints and prepared pictures go here.
        start: Fine-tune this instead of training from scratch.
        budget: Train on so many patients only.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        CohortError: The cohort has no lesion masks, or for a network that finds lungs no lung masks by readers.
        CheckpointError: ``start`` finds something else than the protocol's network.
        LeakageError: ``start`` was trained on, or chosen by, patients that would be tested here.
        ProtocolError: A budget of patients for a split by slice, or settings that do not fit ``start``.
    """
    if budget is not None and protocol.split.kind == "slice":
        raise ProtocolError(
            "A budget is in patients, and this protocol splits by slice; set split.train_slices instead."
        )
    target = protocol.network.target
    if start:
        require_target(start, target)
    require_scorable(cohort, target=target)
    watcher = watcher or Silent()
    (side,), _ = settle_patients([prepare_side("source", cohort, folder / "prepared", protocol.prepare, watcher)])
    side = aim(side, target)
    seed = protocol.seeds[0]
    split = split_of(protocol, side, seed, budget)
    if start:
        held = set(side.prepared.case_ids[np.concatenate([split.validation, split.test])])
        _refuse(find_known(start, cohort, [case for case in cohort.cases if case.case_id in held]), cohort)
    name = f"{'fine_tuned' if start else 'source'}-seed{seed}"
    bench = Bench(protocol, (side.prepared,), folder, device)
    settings = protocol.fine_tuning if start else protocol.training
    training = Training(name, ((0, split.train),), ((0, split.validation),), settings, seed)
    checkpoint = train(bench, training, watcher, start)
    watcher.stage(f"Testing on {len(split.test)} held-out slices")
    scores = score_rows(Predictor.of(checkpoint, device), side.prepared, split.test, watcher)
    return Trained(checkpoint, bench.checkpoint(name), scores, summarise_split(side, split))


def evaluate_cohort(
    checkpoint: Checkpoint,
    cohort: Cohort,
    cache: Path,
    *,
    slices: SliceRule = "lung_or_lesion",
    allow_leak: bool = False,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Evaluated:
    """Counts of a checkpoint on every case of a cohort.

    Args:
        checkpoint: What is judged.
        cohort: On what; each case needs a lesion mask.
        cache: Where prepared pictures go.
        slices: Which slices take part; by default also those with lesion but no lung, where nothing is predicted. Lungs are judged on
            all slices.
        allow_leak: Also judge patients that the checkpoint was trained on.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        LeakageError: The checkpoint was trained on, or chosen by, patients or scans of this cohort.
        CohortError: The cohort has no lesion masks, or a case has no slice that takes part; for a network that finds lungs, no lung
            masks by readers.
    """
    target = checkpoint.network.target
    require_scorable(cohort, target=target)
    known = find_known(checkpoint, cohort, cohort.cases)
    if not allow_leak:
        _refuse(known, cohort)
    watcher = watcher or Silent()
    settings = PrepareSettings(checkpoint.size, checkpoint.interpolation, slices if target == "lesion" else "all")
    side = aim(group_by_content(prepare_side("target", cohort, cache, settings, watcher)), target)
    watcher.stage(f"Testing on {len(side.rows)} slices")
    return Evaluated(score_rows(Predictor.of(checkpoint, device), side.prepared, side.rows, watcher), known)


def find_known(checkpoint: Checkpoint, cohort: Cohort, cases: Sequence[CaseRecord]) -> tuple[str, ...]:
    """Cases that the checkpoint was trained on or chosen by: same patients of the cohort, or the same scans by any name."""
    parts = _training_parts(checkpoint)
    scans = {digest for part in parts for digest in part["scans"]}
    patients = {
        (part["cohort"], name)
        for part in parts
        for patient in part["patients"]
        for name in (patient, *patient.split("+"))  # patients grouped by content are called so
    }
    return tuple(
        case.case_id for case in cases if (cohort.name, case.patient_id) in patients or case.scan_checksums & scans
    )


def _refuse(known: tuple[str, ...], cohort: Cohort) -> None:
    if known:
        raise LeakageError(
            f"The checkpoint was trained on, or chosen by, {', '.join(known[:5])} of {cohort.name}; scores there would be too "
            "good. Leave these cases out, take another seed, or (evaluate only) say --allow-leak to see the number all the same."
        )


def _training_parts(checkpoint: Checkpoint) -> list[dict]:
    """What the checkpoint, and whatever it was fine-tuned from, saw the labels of; pictures without labels are no leak."""
    parts, ancestor = list(checkpoint.trained_on), checkpoint.parent
    while ancestor:
        parts += ancestor["trained_on"]
        ancestor = ancestor["parent"]
    return [part for part in parts if part["role"] != "unlabelled"]
