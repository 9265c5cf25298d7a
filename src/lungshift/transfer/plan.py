"""What a study will do: every training and every test, drawn up before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lungshift.learn.settings import Adaptation, Trainable, TrainingSettings
from lungshift.prepare.splits import Split, leak_splits
from lungshift.transfer.arms import ARMS, Arm
from lungshift.transfer.outcome import SplitSummary
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.sides import Side, split_of, summarise_split

Part = tuple[int, np.ndarray]
"""Rows of one of the study's cohorts, by its number."""


@dataclass(frozen=True, eq=False)
class Training:
    """A network to be trained.

    Attributes:
        name: Of its checkpoint, unique in the study.
        train, validation: What it learns from, and what stops it and chooses its rule for masks.
        settings: How it is trained.
        seed: Of weights and batches.
        start: The training whose checkpoint it starts from; empty for fresh weights.
        trainable: Which layers change.
    """

    name: str
    train: tuple[Part, ...]
    validation: tuple[Part, ...]
    settings: TrainingSettings
    seed: int
    start: str = ""
    trainable: Trainable = "all"


@dataclass(frozen=True, eq=False)
class Trial:
    """A trained network to be tested on held-out rows; the fields after ``rows`` are those of its ``Run``.

    Attributes:
        name: Of its counts on disk, unique in the study.
        model: The training whose checkpoint is tested.
        on: Number of the cohort.
        rows: The held-out rows.
        adaptation: What is done first with pictures of the tested cohort, without their labels.
        unlabelled: Rows of the tested cohort that batch-norm statistics are taken from.
        reference: Pictures whose histogram is matched.
    """

    name: str
    model: str
    on: int
    rows: np.ndarray
    arm: str
    role: str
    budget: str
    seed: int
    labels: int = 0
    fold: int = 0
    trained_on: tuple[str, ...] = ()
    adaptation: Adaptation | None = None
    unlabelled: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    reference: tuple[Part, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """Trainings in an order in which each comes after the one it starts from, tests, and the splits behind them."""

    trainings: tuple[Training, ...]
    trials: tuple[Trial, ...]
    splits: tuple[SplitSummary, ...]

    @classmethod
    def of(cls, steps: Iterable[Training | Trial | SplitSummary]) -> Plan:
        """Sort what the planners yield."""
        steps = list(steps)
        kinds = [tuple(step for step in steps if isinstance(step, kind)) for kind in (Training, Trial, SplitSummary)]
        return cls(*kinds)  # type: ignore[arg-type]  # each tuple holds one kind

    def trials_of(self, training: Training) -> tuple[Trial, ...]:
        """The tests of one network."""
        return tuple(trial for trial in self.trials if trial.model == training.name)


Steps = Iterator[Training | Trial | SplitSummary]


def plan_transfer(protocol: Protocol, sides: Sequence[Side]) -> Plan:
    """The source model at home and abroad, then every arm at every budget, for each seed and fold."""
    source, target = sides
    return Plan.of(step for seed in protocol.seeds for step in _transfer(protocol, source, target, seed))


def plan_leak(protocol: Protocol, side: Side) -> Plan:
    """The source model under three splits that share their tested slices; what is trained on is all that differs."""
    return Plan.of(step for seed in protocol.seeds for step in _leak(protocol, side, seed))


def plan_chain(protocol: Protocol, sides: Sequence[Side]) -> Plan:
    """One network trained on the cohorts one after another, and tested on all of them after each."""
    return Plan.of(step for seed in protocol.seeds for step in _chain(protocol, sides, seed))


def plan_leave_one_out(protocol: Protocol, sides: Sequence[Side]) -> Plan:
    """Each cohort tested by a network of all others, and by one of its own."""
    return Plan.of(step for seed in protocol.seeds for step in _leave_one_out(protocol, sides, seed))


def _transfer(protocol: Protocol, source: Side, target: Side, seed: int) -> Steps:
    home = split_of(protocol, source, seed)
    yield summarise_split(source, home)
    yield _train(f"source-seed{seed}", [(0, home)], protocol.training, seed)
    yield Trial(
        f"source-seed{seed}-at-home", f"source-seed{seed}", 0, home.test, "source", "source", "all", seed,
        trained_on=(source.name,),
    )  # fmt: skip
    for fold in range(protocol.split.folds) or (None,):
        for name in protocol.arms:
            if ARMS[name].labels:
                yield from _labelled(protocol, (source, target), home, name, seed, fold)
            else:
                yield _unlabelled(protocol, (source, target), home, name, seed, fold)
        budgets = protocol.labelled_budgets if any(ARMS[name].labels for name in protocol.arms) else (None,)
        for budget in budgets:
            yield summarise_split(target, split_of(protocol, target, seed, budget, fold), fold or 0)


def _unlabelled(
    protocol: Protocol, sides: tuple[Side, Side], home: Split, name: str, seed: int, fold: int | None
) -> Trial:
    """The source model tested abroad as it is, or fitted to pictures without labels."""
    source, target = sides
    away = split_of(protocol, target, seed, None, fold)
    return Trial(
        name=_name(name, seed, fold),
        model=f"source-seed{seed}",
        on=1,
        rows=away.test,
        arm=name,
        role="target",
        budget="nothing",
        seed=seed,
        fold=fold or 0,
        trained_on=(source.name,),
        adaptation=ARMS[name].adaptation,
        unlabelled=np.sort(np.concatenate([away.train, away.validation])),
        reference=((0, home.train),),
    )


def _labelled(
    protocol: Protocol, sides: tuple[Side, Side], home: Split, name: str, seed: int, fold: int | None
) -> Steps:
    """An arm that is trained on each budget, tested abroad, and again at home: what it forgot."""
    source, target = sides
    arm = ARMS[name]
    for budget in protocol.labelled_budgets:
        away = split_of(protocol, target, seed, budget, fold)
        called = _name(name, seed, fold, _short(protocol, budget))
        start = f"source-seed{seed}" if arm.from_source else ""
        settings = protocol.fine_tuning if start else protocol.training
        parts = [(0, home), (1, away)] if arm.with_source else [(1, away)]
        yield _train(called, parts, settings, seed, start, arm)
        for on, role, rows in ((1, "target", away.test), (0, "source", home.test)):
            yield Trial(
                name=f"{called}-on-{role}",
                model=called,
                on=on,
                rows=rows,
                arm=name,
                role=role,
                budget=_words(protocol, budget),
                seed=seed,
                labels=budget,
                fold=fold or 0,
                trained_on=(source.name, target.name) if start or arm.with_source else (target.name,),
            )


def _leak(protocol: Protocol, side: Side, seed: int) -> Steps:
    prepared = side.prepared
    splits = leak_splits(
        prepared.table,
        side.rows,
        prepared.patients,
        prepared.case_ids,
        test_share=protocol.split.test_share,
        validation_patients=protocol.split.validation_patients,
        seed=seed,
    )
    for kind, split in splits.items():
        called = f"split_by_{kind}-seed{seed}"
        # where every patient has one case, by case is by patient, and there is nothing to train anew
        same = kind == "case" and np.array_equal(split.train, splits["patient"].train)
        model = f"split_by_patient-seed{seed}" if same else called
        if not same:
            yield _train(called, [(0, split)], protocol.training, seed)
        yield Trial(
            name=f"{called}-test",
            model=model,
            on=0,
            rows=split.test,
            arm=f"split_by_{kind}",
            role=side.role,
            budget="all",
            seed=seed,
            trained_on=(side.name,),
        )


def _chain(protocol: Protocol, sides: Sequence[Side], seed: int) -> Steps:
    splits = [split_of(protocol, side, seed) for side in sides]
    yield from (summarise_split(side, split) for side, split in zip(sides, splits, strict=True))
    before = ""
    for stage in range(len(sides)):
        seen = tuple(side.name for side in sides[: stage + 1])
        name = f"chain-{'-'.join(seen)}-seed{seed}"
        settings = protocol.fine_tuning if before else protocol.training
        yield _train(name, [(stage, splits[stage])], settings, seed, before)
        yield from _test_everywhere(sides, splits, name, "chain", seed, seen)
        before = name


def _leave_one_out(protocol: Protocol, sides: Sequence[Side], seed: int) -> Steps:
    splits = [split_of(protocol, side, seed) for side in sides]
    yield from (summarise_split(side, split) for side, split in zip(sides, splits, strict=True))
    for left, side in enumerate(sides):
        others = [(number, split) for number, split in enumerate(splits) if number != left]
        for arm, parts in (("leave_one_out", others), ("at_home", [(left, splits[left])])):
            name, seen = f"{arm}-{side.name}-seed{seed}", tuple(sides[number].name for number, _ in parts)
            yield _train(name, parts, protocol.training, seed)
            yield Trial(f"{name}-test", name, left, splits[left].test, arm, "target", "all", seed, trained_on=seen)


def _test_everywhere(
    sides: Sequence[Side], splits: Sequence[Split], model: str, arm: str, seed: int, seen: tuple[str, ...]
) -> Iterator[Trial]:
    for number, (side, split) in enumerate(zip(sides, splits, strict=True)):
        role = "source" if side.name in seen else "target"
        yield Trial(f"{model}-on-{side.name}", model, number, split.test, arm, role, "all", seed, trained_on=seen)


def _train(
    name: str,
    parts: Sequence[tuple[int, Split]],
    settings: TrainingSettings,
    seed: int,
    start: str = "",
    arm: Arm | None = None,
) -> Training:
    train, held = (tuple((number, getattr(split, part)) for number, split in parts) for part in ("train", "validation"))
    return Training(name, train, held, settings, seed, start, arm.trainable if arm else "all")


def _name(arm: str, seed: int, fold: int | None, budget: str = "") -> str:
    """Of files: ``fine_tuned-2_patients-seed0-fold1``."""
    parts = (arm, budget, f"seed{seed}", "" if fold is None else f"fold{fold + 1}")
    return "-".join(part for part in parts if part)


def _short(protocol: Protocol, budget: int) -> str:
    noun = "slice" if protocol.split.kind == "slice" else "patient"
    return f"{budget}_{noun}{'s' if budget > 1 else ''}"


def _words(protocol: Protocol, budget: int) -> str:
    """The budget with all annotations that it takes: validation costs labels too."""
    settings = protocol.split
    held = settings.validation_slices if settings.kind == "slice" else settings.validation_patients
    return f"{_short(protocol, budget).replace('_', ' ')} and {held} to validate"
