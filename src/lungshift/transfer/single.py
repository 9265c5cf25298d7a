"""One cohort at a time: train on it, fine-tune with it, judge a checkpoint on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungshift.ct.case import Cohort
from lungshift.errors import LeakageError
from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.prediction import Predictor
from lungshift.prepare.prepared import prepare_cohort
from lungshift.prepare.slices import SliceRule, select_slices
from lungshift.transfer.outcome import Scores, SplitSummary
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.study import (
    Side,
    Silent,
    Study,
    Watcher,
    prepare_side,
    require_lesions,
    score_rows,
    split_of,
    summarise_split,
    train,
)


@dataclass(frozen=True, eq=False)
class Trained:
    """A checkpoint and its folder, with the counts of the slices that it was held back from, and the split."""

    checkpoint: Checkpoint
    folder: Path
    scores: Scores
    split: SplitSummary


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
        protocol: Split, network and training; the network is that of ``start`` if given.
        cohort: Where it is trained and tested.
        folder: Checkpoints and prepared pictures go here.
        start: Fine-tune this instead of training from scratch.
        budget: Train on so many patients only (split by patient).
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        CohortError: The cohort has no lesion masks.
    """
    require_lesions(cohort)
    study = Study(protocol, folder, device, watcher or Silent())
    side = prepare_side(study, "target" if start else "source", cohort, folder / "prepared")
    seed = protocol.seeds[0]
    split = split_of(protocol, side, seed, budget)
    name = f"{'fine_tuned' if start else 'source'}-seed{seed}"
    checkpoint = train(study, side, split, seed, start, name)
    study.watcher.stage(f"Testing on {len(split.test)} held-out slices")
    scores = score_rows(Predictor.of(checkpoint, device), side, split.test, study.watcher)
    return Trained(checkpoint, folder / "checkpoints" / name, scores, summarise_split(side, split))


def evaluate_cohort(
    checkpoint: Checkpoint,
    cohort: Cohort,
    cache: Path,
    *,
    slices: SliceRule = "lung",
    allow_leak: bool = False,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Scores:
    """Counts of a checkpoint on every case of a cohort.

    Args:
        checkpoint: What is judged.
        cohort: On what; each case needs a lesion mask.
        cache: Where prepared pictures go.
        slices: Which slices take part.
        allow_leak: Also judge patients that the checkpoint was trained on.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        LeakageError: The checkpoint was trained on patients or files of this cohort.
        CohortError: The cohort has no lesion masks.
    """
    require_lesions(cohort)
    if not allow_leak:
        _refuse_known(checkpoint, cohort)
    watcher = watcher or Silent()
    watcher.stage(f"Preparing {cohort.name}")
    prepared = prepare_cohort(
        cohort, cache, size=checkpoint.size, interpolation=checkpoint.interpolation, progress=watcher.slices
    )
    side = Side("target", cohort, prepared, select_slices(prepared.table, slices))
    watcher.stage(f"Testing on {len(side.rows)} slices")
    return score_rows(Predictor.of(checkpoint, device), side, side.rows, watcher)


def _refuse_known(checkpoint: Checkpoint, cohort: Cohort) -> None:
    """Same patients of the same cohort, or the same files under any name."""
    seen_files = {digest for part in _training_parts(checkpoint) for digest in part["scans"]}
    seen_patients = {(part["cohort"], patient) for part in _training_parts(checkpoint) for patient in part["patients"]}
    known = [
        case.case_id
        for case in cohort.cases
        if (cohort.name, case.patient_id) in seen_patients or case.scan_checksums & seen_files
    ]
    if known:
        raise LeakageError(
            f"The checkpoint was trained on {', '.join(known[:5])} of {cohort.name}; scores there would be too good. Leave these cases out, "
            "or say --allow-leak to see the number all the same."
        )


def _training_parts(checkpoint: Checkpoint) -> list[dict]:
    """What the checkpoint, and whatever it was fine-tuned from, was trained on."""
    parts, ancestor = list(checkpoint.trained_on), checkpoint.parent
    while ancestor:
        parts += ancestor["trained_on"]
        ancestor = ancestor["parent"]
    return parts
