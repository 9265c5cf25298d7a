"""The work of a study: train one network, test it, keep both on disk, so that what is done is never done again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungshift.errors import CheckpointError
from lungshift.files import digest, read_key, write_arrays
from lungshift.learn.adaptation import adapt_batch_norm, adapt_tent
from lungshift.learn.checkpoint import Checkpoint, Decision, load_checkpoint, save_checkpoint
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, decide_on_scan, predict_slices
from lungshift.learn.training import Job, fit
from lungshift.measure.overlap import count_slices
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.histogram import histogram_of, matched
from lungshift.prepare.prepared import PreparedCohort
from lungshift.transfer.decision import choose_decision, validation_score
from lungshift.transfer.outcome import Scores
from lungshift.transfer.plan import Part, Training, Trial
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.watcher import Silent, Watcher

_COUNTING = 1
"""Version of how slices are predicted and counted; counts of another are made anew."""


@dataclass(frozen=True)
class Bench:
    """What a process needs to do a part of a study; small enough to be sent to another.

    Attributes:
        protocol: What is asked.
        cohorts: The prepared cohorts by number.
        folder: Where checkpoints and counts go.
        device: ``auto``, ``cpu``, ``cuda``.
    """

    protocol: Protocol
    cohorts: tuple[PreparedCohort, ...]
    folder: Path
    device: str = "auto"

    def checkpoint(self, training: str) -> Path:
        """Folder of the checkpoint of a training."""
        return self.folder / "checkpoints" / training

    def counts(self, trial: Trial) -> Path:
        """File of the counts of a test."""
        return self.folder / "tests" / f"{trial.name}.npz"

    def slices(self, parts: Sequence[Part]) -> SliceSet:
        """Rows of the cohorts as one list of slices."""
        return SliceSet(tuple((self.cohorts[number], rows) for number, rows in parts))


def do_task(bench: Bench, training: Training, trials: Sequence[Trial], watcher: Watcher | None = None) -> None:
    """Train a network and test it; what an earlier run has left of the same is kept."""
    watcher = watcher or Silent()
    job = _job(bench, training)
    waiting = [trial for trial in trials if read_key(bench.counts(trial)) != _key(bench, job, trial)]
    if not waiting and _kept(bench, job) is not None:
        return
    model = train(bench, training, watcher)
    for trial in waiting:
        watcher.stage(
            f"Testing {trial.arm.replace('_', ' ')} on {len(trial.rows)} held-out slices of {bench.cohorts[trial.on].name}"
        )
        scores = _run_trial(bench, model, trial, watcher)
        tables = {"counts": scores.counts, "in_lung": scores.in_lung, "native": scores.native}
        write_arrays(bench.counts(trial), {"key": np.array(_key(bench, job, trial)), "rows": scores.rows} | tables)


def train(bench: Bench, training: Training, watcher: Watcher, start: Checkpoint | None = None) -> Checkpoint:
    """Train or fine-tune, choose the rule for masks on the validation slices, and keep the checkpoint.

    ``start`` is a checkpoint from elsewhere; without it, that of ``training.start`` is read.
    """
    job, folder = _job(bench, training, start), bench.checkpoint(training.name)
    checkpoint = _kept(bench, job) or _fit(bench, job, folder, watcher)
    checkpoint = checkpoint.with_decision(_decide(bench, checkpoint, job.validation))
    save_checkpoint(checkpoint, folder, overwrite=True)
    _state(folder).unlink(missing_ok=True)
    return checkpoint


def _fit(bench: Bench, job: Job, folder: Path, watcher: Watcher) -> Checkpoint:
    watcher.stage(f"Training {job.name.replace('_', ' ')}: {len(job.train)} slices of {_names(job.train)}")
    return fit(job, score=validation_score, state_file=_state(folder), watch=watcher.epoch, device=bench.device)


def _state(folder: Path) -> Path:
    """Where a training is kept between its epochs."""
    return folder.with_name(f"{folder.name}.state.safetensors")


def read_scores(bench: Bench, trial: Trial) -> Scores:
    """The counts of a test that was done."""
    with np.load(bench.counts(trial)) as kept:
        return _scores(bench.cohorts[trial.on], kept["rows"], *(kept[name] for name in ("counts", "in_lung", "native")))


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts of tested rows, in the order TP, FP, FN, TN: on pictures, inside the lung, on the scans' own pixels."""

    rows: np.ndarray
    counts: np.ndarray
    in_lung: np.ndarray
    native: np.ndarray


def count_rows(
    predictor: Predictor, prepared: PreparedCohort, rows: np.ndarray, watcher: Watcher | None = None
) -> Counted:
    """Predict the given rows of a prepared cohort and count, a case at a time."""
    parts, done = [], 0
    for number in np.unique(prepared.table["case"][rows]):
        mine = rows[prepared.table["case"][rows] == number]
        parts.append(_count_case(predictor, prepared, int(number), mine))
        done += len(mine)
        if watcher:
            watcher.slices(done, len(rows))
    return _joined(parts)


def score_rows(
    predictor: Predictor, prepared: PreparedCohort, rows: np.ndarray, watcher: Watcher | None = None
) -> Scores:
    """``count_rows`` with the case, patient and index of each slice."""
    found = count_rows(predictor, prepared, rows, watcher)
    return _scores(prepared, found.rows, found.counts, found.in_lung, found.native)


def _scores(prepared: PreparedCohort, rows: np.ndarray, *tables: np.ndarray) -> Scores:
    return Scores(prepared.case_ids[rows], prepared.patients[rows], prepared.table["index"][rows], *tables)


def _job(bench: Bench, training: Training, start: Checkpoint | None = None) -> Job:
    if training.start:
        start = load_checkpoint(bench.checkpoint(training.start))
    train, validation = bench.slices(training.train), bench.slices(training.validation)
    network, name = bench.protocol.network, training.name
    return Job(train, validation, network, training.settings, training.seed, start, name, training.trainable)


def _kept(bench: Bench, job: Job) -> Checkpoint | None:
    """The checkpoint of the same job from an earlier run."""
    with suppress(CheckpointError):
        kept = load_checkpoint(bench.checkpoint(job.name))
        if kept.fingerprint == job.fingerprint:
            return kept
    return None


def _key(bench: Bench, job: Job, trial: Trial) -> str:
    """Two tests of one key end with the same counts on the same machine."""
    rows = [trial.rows.tolist(), trial.unlabelled.tolist(), [(n, part.tolist()) for n, part in trial.reference]]
    return digest(
        (_COUNTING, job.fingerprint, bench.protocol.decision, bench.cohorts[trial.on].key, trial.adaptation, rows)
    )


def _names(slices: SliceSet) -> str:
    return " and ".join(dict.fromkeys(cohort.name for cohort, _ in slices.parts))


def _decide(bench: Bench, checkpoint: Checkpoint, validation: SliceSet) -> Decision:
    settings = bench.protocol.decision
    plain = Decision(settings.threshold, settings.min_pixels, settings.flips, settings.inside_lung)
    if not settings.choose_on_validation:
        return plain
    predictor = Predictor.of(checkpoint.with_decision(plain), bench.device)
    seen = (
        (probability, _lesions(validation, chosen)) for chosen, probability in predict_slices(predictor, validation)
    )
    return choose_decision(seen, plain)


def _lesions(slices: SliceSet, chosen: np.ndarray) -> np.ndarray:
    found = [slices.locate(number) for number in chosen.tolist()]
    return np.stack([cohort.lesion(row) for cohort, row in found])


def _run_trial(bench: Bench, model: Checkpoint, trial: Trial, watcher: Watcher) -> Counted:
    parts = [
        count_rows(Predictor.of(adapted, bench.device), cohort, rows, watcher)
        for adapted, cohort, rows in _adapted(bench, model, trial)
    ]
    return _joined([(part.rows, part.counts, part.in_lung, part.native) for part in parts])


def _adapted(bench: Bench, model: Checkpoint, trial: Trial) -> Iterator[tuple[Checkpoint, PreparedCohort, np.ndarray]]:
    """The network and the pictures as the trial's adaptation makes them, for all rows or scan by scan."""
    cohort, rows = bench.cohorts[trial.on], trial.rows
    if trial.adaptation == "batch_norm":
        yield adapt_batch_norm(model, SliceSet.of(cohort, trial.unlabelled), device=bench.device), cohort, rows
    elif trial.adaptation == "histogram":
        number, seen = trial.reference[0]
        yield model, matched(cohort, histogram_of(bench.cohorts[number], seen)), rows
    elif trial.adaptation == "tent":
        for case in np.unique(cohort.table["case"][rows]):
            mine = rows[cohort.table["case"][rows] == case]
            yield adapt_tent(model, SliceSet.of(cohort, mine), device=bench.device), cohort, mine
    else:
        yield model, cohort, rows


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> Counted:
    return Counted(*(np.concatenate(tables) for tables in zip(*parts, strict=True)))


def _count_case(
    predictor: Predictor, prepared: PreparedCohort, number: int, rows: np.ndarray
) -> tuple[np.ndarray, ...]:
    case, decision = prepared.cases[number], predictor.checkpoint.decision
    grid = SliceGrid(case.rows, case.columns, prepared.size)
    counts, in_lung, native = [], [], []
    for chosen, probability in predict_slices(predictor, SliceSet.of(prepared, rows)):
        lesion, lung = (np.stack([read(row) for row in rows[chosen]]) for read in (prepared.lesion, prepared.lung))
        mask = decide(probability, decision)
        counts.append(count_slices(lesion, mask))
        in_lung.append(count_slices(lesion, mask, lung))
        if not grid.is_identity:
            own = (
                _count_native(prepared, row, one, grid, decision)
                for row, one in zip(rows[chosen], probability, strict=True)
            )
            native.append(np.concatenate(list(own)))
    return rows, np.concatenate(counts), np.concatenate(in_lung), np.concatenate(native or counts)


def _count_native(
    prepared: PreparedCohort, row: np.integer, probability: np.ndarray, grid: SliceGrid, decision: Decision
) -> np.ndarray:
    """Counts of one slice on the scan's own pixels."""
    mask = decide_on_scan(probability, decision, grid)
    return count_slices(prepared.native_lesion(row)[None], mask[None])
