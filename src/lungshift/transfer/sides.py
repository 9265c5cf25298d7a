"""The cohorts of a study: checked, prepared, their patients grouped, their splits drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungshift.audit.duplicates import Twins, find_twins, group_patients, require_apart, require_whole
from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CohortError, LeakageError, ProtocolError
from lungshift.learn.settings import Target
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.slices import select_slices
from lungshift.prepare.splits import Part, Split, split_by_patient, split_by_slice
from lungshift.prepare.views import lungs_as_target
from lungshift.transfer.outcome import CohortSummary, SplitSummary
from lungshift.transfer.protocol import PrepareSettings, Protocol
from lungshift.transfer.watcher import Watcher


@dataclass(frozen=True, eq=False)
class Side:
    """One cohort of a study, and the rows of it that take part.

    Attributes:
        role: ``source`` or ``target``.
        patients_known: Whether patient ids came with the cohort.
    """

    role: str
    prepared: PreparedCohort
    rows: np.ndarray
    patients_known: bool = True

    @property
    def name(self) -> str:
        """The cohort's name."""
        return self.prepared.name


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
    return Side(role, prepared, rows, cohort.patients_known)


def settle_patients(sides: Sequence[Side]) -> tuple[list[Side], tuple[Twins, ...]]:
    """Look for scans of one patient by content; group by it where no ids came, and refuse what a split would tear apart.

    Raises:
        LeakageError: Two ids of one cohort, or two cohorts, hold one patient.
    """
    twins = find_twins(*(side.prepared for side in sides))
    for number, side in enumerate(sides):
        if side.patients_known:
            require_whole(side.prepared, twins)
        for other in sides[number + 1 :]:
            require_apart(side.prepared, other.prepared, twins)
    return [side if side.patients_known else _regrouped(side, twins) for side in sides], twins


def group_by_content(side: Side) -> Side:
    """The side with scans of one patient grouped where no ids came with the cohort."""
    return side if side.patients_known else _regrouped(side, find_twins(side.prepared))


def aim(side: Side, target: Target) -> Side:
    """The side as a network of that target is trained and judged on it."""
    return side if target == "lesion" else replace(side, prepared=lungs_as_target(side.prepared))


def _regrouped(side: Side, twins: tuple[Twins, ...]) -> Side:
    patients = group_patients(side.prepared, twins)
    cases = tuple(replace(case, patient_id=who) for case, who in zip(side.prepared.cases, patients, strict=True))
    return replace(side, prepared=replace(side.prepared, cases=cases))


def split_of(protocol: Protocol, side: Side, seed: int, budget: int | None = None, fold: int | None = None) -> Split:
    """The split of one cohort; what is tested never depends on the budget.

    Args:
        protocol: Says how it is split.
        side: The cohort.
        seed: Draws who trains, and who is tested unless the protocol has a seed for that.
        budget: Patients, or by slice slices, to train on; None takes all that are left.
        fold: Which of the protocol's folds is tested; None holds out the protocol's share once.
    """
    prepared, settings = side.prepared, protocol.split
    if settings.kind == "slice":
        return split_by_slice(
            prepared.table,
            side.rows,
            prepared.patients,
            train=settings.train_slices,
            validation=settings.validation_slices,
            seed=seed,
            budget=budget,
        )
    return split_by_patient(
        prepared.table,
        side.rows,
        prepared.patients,
        test_share=settings.test_share,
        validation_patients=settings.validation_patients,
        seed=seed,
        test_seed=settings.test_seed,
        budget=budget,
        fold=fold,
        folds=settings.folds if fold is not None else 0,
    )


def require_study(protocol: Protocol, cohorts: Sequence[Cohort]) -> None:
    """Refuse a protocol and cohorts that no study can be made of, before anything is computed.

    Raises:
        ProtocolError: Fewer than two cohorts, or a network that finds lungs.
        CohortError, LeakageError: As for ``require_apart_by_file`` and ``require_scorable``.
    """
    if len(cohorts) < 2:
        raise ProtocolError(f"A study needs at least two cohorts; got {len(cohorts)}.")
    if protocol.network.target != "lesion":
        raise ProtocolError(
            f"A study is about lesions, and protocol {protocol.name!r} finds {protocol.network.target}; train it by lungshift train, judge it "
            "by lungshift evaluate.",
            code="E_TARGET",
        )
    require_apart_by_file(cohorts)
    require_scorable(*cohorts)


def require_apart_by_file(cohorts: Sequence[Cohort]) -> None:
    """Refuse cohorts of one name, or that share a scan's file.

    Raises:
        CohortError: Two cohorts have one name.
        LeakageError: A scan stands in two cohorts.
    """
    owner: dict[str, tuple[str, str]] = {}
    if len({cohort.name for cohort in cohorts}) < len(cohorts):
        names = ", ".join(repr(cohort.name) for cohort in cohorts)
        raise CohortError(f"A study needs different cohorts of different names; got {names}.")
    for cohort in cohorts:
        for case in cohort.cases:
            for digest in case.scan_checksums:
                name, other = owner.setdefault(digest, (cohort.name, case.case_id))
                if name != cohort.name:
                    raise LeakageError(
                        f"{other} of {name} and {case.case_id} of {cohort.name} are one scan; a model would be tested on what it "
                        "learned. Leave one of them out."
                    )


def require_scorable(*cohorts: Cohort, target: Target = "lesion") -> None:
    """Refuse cohorts that cannot be scored honestly.

    Raises:
        CohortError: A case has no lesion mask; or where lungs are the target, no lung mask that a reader drew.
        LeakageError: Two patients of a cohort have one scan, so that a split by patient could test what was trained on.
    """
    for cohort in cohorts:
        _require_masks(cohort, target)
        owner: dict[str, CaseRecord] = {}
        for case in cohort.cases:
            for digest in case.scan_checksums:
                other = owner.setdefault(digest, case)
                if other.patient_id != case.patient_id:
                    raise LeakageError(
                        f"{cohort.name}: {other.case_id} and {case.case_id} are one scan, of two patients by their ids. Give them one "
                        "patient id, or leave one out."
                    )


def _require_masks(cohort: Cohort, target: Target) -> None:
    if target == "lesion" and (missing := [case.case_id for case in cohort.cases if not case.source.has_lesion]):
        raise CohortError(
            f"{cohort.name}: no lesion mask for {', '.join(missing[:5])}; only annotated cases can be scored.",
            code="E_NO_LESION",
        )
    drawn = {case.case_id: case.lung_source if case.source.has_lung else "none" for case in cohort.cases}
    if target == "lung" and (other := {name: source for name, source in drawn.items() if source != "reader"}):
        named = ", ".join(f"{name} ({source})" for name, source in list(other.items())[:5])
        raise CohortError(
            f"{cohort.name}: a network learns lungs, and is judged on them, from lung masks that a reader drew; those of {named} are "
            "none. Leave these cases out, or give them a reader's lung masks.",
            code="E_LUNG_SOURCE",
        )


def summarise_split(side: Side, split: Split, fold: int = 0) -> SplitSummary:
    """The split in numbers and names."""
    parts: tuple[Part, ...] = ("train", "validation", "test")
    slices: dict[str, int] = {part: len(getattr(split, part)) for part in parts}
    patients: dict[str, tuple[str, ...]] = {part: split.patients_of(part) for part in parts}
    return SplitSummary(side.name, split.kind, split.leaky, slices, patients, split.seed, fold)


def summarise_side(side: Side) -> CohortSummary:
    """The cohort in numbers."""
    table, cases = side.prepared.table, side.prepared.cases
    return CohortSummary(
        name=side.name,
        cases=len(cases),
        patients=len({case.patient_id for case in cases}),
        slices=len(table),
        lung_slices=int((table["lung"] > 0).sum()),
        lesion_slices=int((table["lesion"] > 0).sum()),
        lung_sources=tuple(sorted({case.lung_source for case in cases})),
        licence=side.prepared.licence,
        patients_known=side.patients_known,
    )
