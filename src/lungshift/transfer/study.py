"""The study: train at home, test abroad, repair with a little of the target, test again on the same held-out slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, runtime_checkable
from typing import Protocol as Interface

import numpy as np

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CheckpointError, CohortError, LeakageError
from lungshift.learn.checkpoint import Checkpoint, Decision, load_checkpoint, save_checkpoint
from lungshift.learn.data import SliceSet
from lungshift.learn.history import EpochRecord
from lungshift.learn.machine import describe_software, name_device
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.learn.training import Job, fit
from lungshift.measure.overlap import count_slices, dice
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.slices import select_slices
from lungshift.prepare.splits import Part, Split, split_by_patient, split_by_slice
from lungshift.transfer.decision import choose_decision, validation_score
from lungshift.transfer.outcome import CohortSummary, Example, Outcome, Run, Scores, SplitSummary
from lungshift.transfer.protocol import PrepareSettings, Protocol


@runtime_checkable
class Watcher(Interface):
    """Is told how a study goes on; the command line shows it as bars."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def slices(self, done: int, total: int) -> None:
        """Slices of the present part that are done."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch has ended."""


class Silent:
    """A ``Watcher`` that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def slices(self, done: int, total: int) -> None:
        """Say nothing."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """Say nothing."""


@dataclass(frozen=True, eq=False)
class Side:
    """One cohort of a study: as it was read, as it was prepared, and the rows that take part."""

    role: str
    cohort: Cohort
    prepared: PreparedCohort
    rows: np.ndarray


@dataclass(frozen=True)
class Study:
    """A study under way: what is asked, on which machine, where its files go."""

    protocol: Protocol
    folder: Path
    device: str = "auto"
    watcher: Watcher = field(default_factory=Silent)


def run(
    protocol: Protocol,
    source: Cohort,
    target: Cohort,
    folder: Path,
    *,
    device: str = "auto",
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Carry out a protocol; every arm is tested on the same held-out slices of the target.

    A run that was stopped goes on: trainings that are finished are not done again, one that is not goes on from its last
    epoch.

    Args:
        protocol: What is asked.
        source: Where the model is trained.
        target: Where it is to work.
        folder: Where checkpoints and training states go.
        device: ``auto``, ``cpu``, ``cuda``.
        cache: Where prepared cohorts lie; inside ``folder`` if None.
        watcher: Is told how it goes on.

    Raises:
        CohortError: A cohort has no lesion masks, or both are one.
        LeakageError: A patient would stand on two sides of a split by patient.
    """
    study = Study(protocol, folder, device, watcher or Silent())
    _require_two(source, target)
    require_scorable(source, target)
    home, away = (
        prepare_side(role, cohort, cache or folder / "prepared", protocol.prepare, study.watcher)
        for role, cohort in (("source", source), ("target", target))
    )
    _require_splits(protocol, home, away)
    results = [_run_seed(study, home, away, seed) for seed in protocol.seeds]
    return Outcome(
        protocol=protocol,
        source=_summarise(home),
        target=_summarise(away),
        splits=tuple(split for result in results for split in result.splits),
        runs=tuple(run for result in results for run in result.runs),
        histories=tuple(checkpoint.history for result in results for checkpoint in result.checkpoints),
        examples=tuple(results[0].examples),
        manifest=_manifest(study, [home, away]),
    )


@dataclass
class _Result:
    splits: list[SplitSummary] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


def _run_seed(study: Study, source: Side, target: Side, seed: int) -> _Result:
    """Everything for one seed: the source model at home and abroad, then repaired with each budget."""
    result = _Result()
    test = partial(_test, study, result, seed=seed)
    home = split_of(study.protocol, source, seed)
    model = train(study, source, home, seed, None, f"source-seed{seed}")
    _note(result, source, home, model)
    test("source", model, source, home.test, "all")
    for number, budget in enumerate(_budgets(study.protocol)):
        away = split_of(study.protocol, target, seed, budget.patients)
        if number == 0 and "zero_shot" in study.protocol.arms:
            test("zero_shot", model, target, away.test, "nothing")
        if "fine_tuned" in study.protocol.arms:
            tuned = train(study, target, away, seed, model, f"fine_tuned-{budget.name}-seed{seed}")
            _note(result, target, away, tuned)
            test("fine_tuned", tuned, target, away.test, budget.words)
    return result


def split_of(protocol: Protocol, side: Side, seed: int, budget: int | None = None) -> Split:
    """The split of one cohort: what is tested depends on the seed alone, never on the budget."""
    prepared, settings = side.prepared, protocol.split
    if settings.kind == "slice":
        return split_by_slice(
            prepared.table,
            side.rows,
            prepared.patients,
            train=settings.train_slices,
            validation=settings.validation_slices,
            seed=seed,
        )
    return split_by_patient(
        prepared.table,
        side.rows,
        prepared.patients,
        test_share=settings.test_share,
        validation_patients=settings.validation_patients,
        seed=seed,
        budget=budget,
    )


@dataclass(frozen=True)
class _Budget:
    """What of the target is trained on: patients (None by slice), a name for files, and in words all annotations used."""

    patients: int | None
    name: str
    words: str


def _budgets(protocol: Protocol) -> list[_Budget]:
    """The protocol's budgets; their words count the validation too, for it costs labels."""
    settings = protocol.split
    if settings.kind == "slice":
        n, held = settings.train_slices, settings.validation_slices
        return [_Budget(None, f"{n}_slices", f"{n} slices and {held} to validate")]
    counted = [(n, "patients" if n > 1 else "patient") for n in protocol.budgets]
    held = settings.validation_patients
    return [_Budget(n, f"{n}_{noun}", f"{n} {noun} and {held} to validate") for n, noun in counted]


def prepare_side(role: str, cohort: Cohort, cache: Path, settings: PrepareSettings, watcher: Watcher) -> Side:
    """Prepare a cohort, or open what was prepared before, and select its slices.

    Raises:
        CohortError: A case has no slice that takes part, and would drop out of every mean.
    """
    watcher.stage(f"Preparing {cohort.name}")
    prepared = prepare_cohort(
        cohort, cache, size=settings.size, interpolation=settings.interpolation, progress=watcher.slices
    )
    rows = select_slices(prepared.table, settings.slices)
    if empty := sorted(set(prepared.case_ids.tolist()) - set(prepared.case_ids[rows].tolist())):
        raise CohortError(
            f"{cohort.name}: no slice of {', '.join(empty[:5])} has what the rule {settings.slices!r} asks for, so it would drop out "
            "of every mean. Is its lung mask empty? Mend it or leave the case out.",
            code="E_NO_SLICES",
        )
    return Side(role, cohort, prepared, rows)


def _require_splits(protocol: Protocol, home: Side, away: Side) -> None:
    """Draw every split once before hours of training, so that one that cannot be is refused now."""
    for seed in protocol.seeds:
        split_of(protocol, home, seed)
        for budget in _budgets(protocol):
            split_of(protocol, away, seed, budget.patients)


def train(study: Study, side: Side, split: Split, seed: int, start: Checkpoint | None, name: str) -> Checkpoint:
    """Train or fine-tune, choose the rule for masks on the validation slices, and keep the checkpoint."""
    protocol, folder = study.protocol, study.folder / "checkpoints" / name
    train, validation = (SliceSet.of(side.prepared, rows) for rows in (split.train, split.validation))
    settings = protocol.fine_tuning if start else protocol.training
    job = Job(train, validation, protocol.network, settings, seed, start, name)
    with suppress(CheckpointError):
        kept = load_checkpoint(folder)
        if kept.fingerprint == job.fingerprint:
            return kept.with_decision(_decide(study, kept, validation))
    study.watcher.stage(f"Training {name.replace('_', ' ')}: {len(train)} slices of {side.prepared.name}")
    state = study.folder / "checkpoints" / f"{name}.state.safetensors"
    checkpoint = fit(job, score=validation_score, state_file=state, watch=study.watcher.epoch, device=study.device)
    checkpoint = checkpoint.with_decision(_decide(study, checkpoint, validation))
    save_checkpoint(checkpoint, folder, overwrite=True)
    state.unlink(missing_ok=True)
    return checkpoint


def _decide(study: Study, checkpoint: Checkpoint, validation: SliceSet) -> Decision:
    settings = study.protocol.decision
    plain = Decision(settings.threshold, settings.min_pixels, settings.flips, settings.inside_lung)
    if not settings.choose_on_validation:
        return plain
    predictor = Predictor.of(checkpoint.with_decision(plain), study.device)
    seen = (
        (probability, _lesions(validation, chosen)) for chosen, probability in predict_slices(predictor, validation)
    )
    return choose_decision(seen, plain)


def _lesions(slices: SliceSet, chosen: np.ndarray) -> np.ndarray:
    found = [slices.locate(number) for number in chosen.tolist()]
    return np.stack([cohort.lesion(row) for cohort, row in found])


def _test(
    study: Study, result: _Result, arm: str, model: Checkpoint, side: Side, rows: np.ndarray, budget: str, *, seed: int
) -> None:
    """Predict held-out slices, count, and keep a few to look at."""
    study.watcher.stage(f"Testing {arm.replace('_', ' ')} on {len(rows)} held-out slices of {side.prepared.name}")
    predictor = Predictor.of(model, study.device)
    scores = score_rows(predictor, side, rows, study.watcher)
    rule = model.decision
    done = Run(arm, side.prepared.name, side.role, budget, seed, scores, rule.threshold, rule.min_pixels)
    result.runs.append(done)
    result.examples += _pick_examples(predictor, side, rows, done)


def score_rows(predictor: Predictor, side: Side, rows: np.ndarray, watcher: Watcher | None = None) -> Scores:
    """Counts of the given rows of a prepared cohort, on the pictures and on the scans' own pixels, a case at a time."""
    prepared, parts, done = side.prepared, [], 0
    for number in np.unique(prepared.table["case"][rows]):
        mine = rows[prepared.table["case"][rows] == number]
        parts.append(_score_case(predictor, side, int(number), mine))
        done += len(mine)
        if watcher:
            watcher.slices(done, len(rows))
    order = np.concatenate([mine for mine, *_ in parts])
    tables = [np.concatenate([part[k] for part in parts]) for k in (1, 2, 3)]
    return Scores(prepared.case_ids[order], prepared.patients[order], prepared.table["index"][order], *tables)


def _score_case(predictor: Predictor, side: Side, number: int, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    prepared, case = side.prepared, side.prepared.cases[number]
    grid = SliceGrid(case.rows, case.columns, prepared.size)
    counts, in_lung = [], []
    native: dict[int, np.ndarray] = {}
    for chosen, probability in predict_slices(predictor, SliceSet.of(prepared, rows)):
        lesion, lung = (np.stack([read(row) for row in rows[chosen]]) for read in (prepared.lesion, prepared.lung))
        mask = decide(probability, predictor.checkpoint.decision)
        counts.append(count_slices(lesion, mask))
        in_lung.append(count_slices(lesion, mask, lung))
        native |= {int(prepared.table["index"][row]): one for row, one in zip(rows[chosen], probability, strict=True)}
    table = np.concatenate(counts)
    on_own_pixels = (
        table if grid.is_identity else _score_native(predictor.checkpoint.decision, side, number, grid, native)
    )
    return rows, table, np.concatenate(in_lung), on_own_pixels


def _score_native(
    decision: Decision, side: Side, number: int, grid: SliceGrid, probability: dict[int, np.ndarray]
) -> np.ndarray:
    """Counts on the scan's own pixels, whose reference is read again, slice by slice."""
    scale, found = (max(grid.rows, grid.columns) / grid.size) ** 2, {}
    for piece in side.cohort.cases[number].source.slices():
        if piece.index in probability and piece.lesion is not None:
            mask = decide(grid.back(probability[piece.index]), decision, scale)
            found[piece.index] = count_slices(piece.lesion[None], mask[None])[0]
    return np.array([found[index] for index in probability])


def _pick_examples(predictor: Predictor, side: Side, rows: np.ndarray, done: Run) -> Iterator[Example]:
    """A good, a typical and a bad slice: the 95th, 50th and 5th percentile of Dice among slices with enough lesion to see."""
    prepared, table = side.prepared, done.scores
    quality = dice(table.counts)
    visible = np.flatnonzero(
        table.counts[:, 0] + table.counts[:, 2] >= min(100, (table.counts[:, 0] + table.counts[:, 2]).max())
    )
    visible = visible[np.isfinite(quality[visible])]
    if not len(visible):
        return
    ranked = visible[np.argsort(quality[visible], kind="stable")]
    place = {
        (case, index): row
        for row, case, index in zip(rows, prepared.case_ids[rows], prepared.table["index"][rows], strict=True)
    }
    for kind, share in (("good", 0.95), ("typical", 0.5), ("bad", 0.05)):
        one = ranked[round(share * (len(ranked) - 1))]
        row = place[table.cases[one], table.slices[one]]
        _, probability = next(iter(predict_slices(predictor, SliceSet.of(prepared, np.array([row])))))
        mask = decide(probability, predictor.checkpoint.decision)[0]
        pictures = np.array(prepared.hu(row)), prepared.lung(row), prepared.lesion(row)
        yield Example(
            done.label, kind, str(table.cases[one]), int(table.slices[one]), float(quality[one]), *pictures, mask
        )


def _note(result: _Result, side: Side, split: Split, checkpoint: Checkpoint) -> None:
    result.checkpoints.append(checkpoint)
    result.splits.append(summarise_split(side, split))


def summarise_split(side: Side, split: Split) -> SplitSummary:
    """The split in numbers and names."""
    parts: tuple[Part, ...] = ("train", "validation", "test")
    slices: dict[str, int] = {part: len(getattr(split, part)) for part in parts}
    patients: dict[str, tuple[str, ...]] = {part: split.patients_of(part) for part in parts}
    return SplitSummary(side.prepared.name, split.kind, split.leaky, slices, patients, split.seed)


def _summarise(side: Side) -> CohortSummary:
    table, cases = side.prepared.table, side.prepared.cases
    return CohortSummary(
        name=side.prepared.name,
        cases=len(cases),
        patients=len({case.patient_id for case in cases}),
        slices=len(table),
        lung_slices=int((table["lung"] > 0).sum()),
        lesion_slices=int((table["lesion"] > 0).sum()),
        lung_sources=tuple(sorted({case.lung_source for case in cases})),
        licence=side.prepared.licence,
        patients_known=side.cohort.patients_known,
    )


def _manifest(study: Study, sides: list[Side]) -> dict[str, Any]:
    from lungshift import __version__

    return {
        "lungshift": __version__,
        "software": describe_software(),
        "device": name_device(study.device),
        "protocol": study.protocol.as_dict(),
        "inputs": {side.prepared.name: side.prepared.checksums for side in sides},
        "prepared": {side.prepared.name: side.prepared.key for side in sides},
    }


def _require_two(source: Cohort, target: Cohort) -> None:
    if source.name == target.name:
        raise CohortError(f"Source and target are both called {source.name!r}; a study needs two different cohorts.")
    theirs = {digest: case.case_id for case in target.cases for digest in case.scan_checksums}
    for case in source.cases:
        for digest in case.scan_checksums & theirs.keys():
            raise LeakageError(
                f"{case.case_id} of {source.name} and {theirs[digest]} of {target.name} are one scan; a model would be tested on "
                "what it learned. Leave one of them out."
            )


def require_scorable(*cohorts: Cohort) -> None:
    """Refuse cohorts that cannot be scored honestly.

    Raises:
        CohortError: A case has no lesion mask.
        LeakageError: Two patients of a cohort have one scan, so that a split by patient could test what was trained on.
    """
    for cohort in cohorts:
        missing = [case.case_id for case in cohort.cases if not case.source.has_lesion]
        if missing:
            raise CohortError(
                f"{cohort.name}: no lesion mask for {', '.join(missing[:5])}; only annotated cases can be scored.",
                code="E_NO_LESION",
            )
        owner: dict[str, CaseRecord] = {}
        for case in cohort.cases:
            for digest in case.scan_checksums:
                other = owner.setdefault(digest, case)
                if other.patient_id != case.patient_id:
                    raise LeakageError(
                        f"{cohort.name}: {other.case_id} and {case.case_id} are one scan, of two patients by their ids. Give them one "
                        "patient id, or leave one out."
                    )
