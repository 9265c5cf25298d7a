"""Who trains, who stops the training, who is tested. Patients stay whole, unless a paper is to be replicated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from lungshift.errors import LeakageError, ProtocolError
from lungshift.prepare.slices import draw_balanced

SplitKind = Literal["patient", "case", "slice"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a prepared cohort's table, divided in three.

    Attributes:
        patients: Patient of every row of the table, not only of those in the split.
        cases: Case of every row of the table; a split by case needs it.

    Raises:
        LeakageError: A slice stands in two parts, or what the split is by: a patient, or a case.
        ProtocolError: A part that must not be empty is, or a split by case does not know the cases.
    """

    kind: SplitKind
    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]
    patients: np.ndarray
    seed: int = 0
    cases: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if not len(getattr(self, name)):
                raise ProtocolError(
                    f"The split leaves no slice to {name}; give it more patients, or ask for fewer slices."
                )
        if shared := self._shared(np.arange(len(self.patients))):
            raise LeakageError(f"{len(shared)} slices stand in two parts of the split.")
        if self.kind == "case" and self.cases is None:
            raise ProtocolError("A split by case needs the case of every slice; give cases.")
        whole = {"patient": self.patients, "case": self.cases}.get(self.kind)
        if whole is not None and (shared := self._shared(whole)):
            names = ", ".join(map(str, sorted(shared)))
            raise LeakageError(f"{self.kind.capitalize()}s on two sides of a split by {self.kind}: {names}.")

    @property
    def leaky(self) -> bool:
        """Whether a patient stands on two sides, so that tested slices have neighbours that were trained on."""
        return bool(self._shared(self.patients))

    def patients_of(self, part: Part) -> tuple[str, ...]:
        """The patients of one part, in the order of the cohort."""
        return tuple(dict.fromkeys(str(patient) for patient in self.patients[np.sort(getattr(self, part))]))

    def _shared(self, labels: np.ndarray) -> set:
        parts = [set(labels[rows].tolist()) for rows in (self.train, self.validation, self.test)]
        return (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])


def split_by_slice(
    table: np.ndarray,
    rows: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    *,
    train: int,
    validation: int,
    seed: int,
    budget: int | None = None,
) -> Split:
    """The source paper's split: ``train`` and ``validation`` slices drawn half with lesion, all others are tested.

    It exists to replicate: slices of one patient stand on both sides, so scores are too good.

    Args:
        table: Prepared slices.
        rows: Rows that take part.
        patients: Patient of each row of the table.
        train: Slices drawn to train on.
        validation: Slices drawn to stop by.
        seed: Draws them.
        budget: Train on so many of the drawn slices only, half with lesion; a larger budget holds the smaller ones.

    Raises:
        ProtocolError: There are fewer slices of a kind than asked for, or the budget is above ``train``.
    """
    if budget is not None and not 1 <= budget <= train:
        raise ProtocolError(f"A budget of slices is from 1 to the {train} that are drawn to train on; got {budget}.")
    drawn = draw_balanced(table, rows, train + validation, np.random.default_rng(seed))
    lesion = table["lesion"][drawn] > 0
    with_lesion, without = drawn[lesion], drawn[~lesion]
    half, other = validation - validation // 2, validation // 2
    held = np.concatenate([with_lesion[:half], without[:other]])
    wanted = train if budget is None else budget
    ill = min(wanted - wanted // 2, len(with_lesion) - half)
    trained = np.concatenate([with_lesion[half:][:ill], without[other:][: wanted - ill]])
    return Split("slice", np.sort(trained), np.sort(held), np.setdiff1d(rows, drawn), patients, seed)


def split_by_patient(  # noqa: PLR0913 — who is tested, who trains, how many
    table: np.ndarray,
    rows: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    *,
    test_share: float,
    validation_patients: int,
    seed: int,
    test_seed: int | None = None,
    budget: int | None = None,
    fold: int | None = None,
    folds: int = 0,
) -> Split:
    """Divide patients at random; who is tested, and who stops the training, never depends on the budget.

    Args:
        table: Prepared slices.
        rows: Rows that take part.
        patients: Patient of each row of the table.
        test_share: Share of the patients with lesion that is tested, at least one; not asked with folds.
        validation_patients: How many of the rest stop the training.
        seed: Draws the order of those who are not tested: first who stops the training, then who trains.
        test_seed: Draws who is tested, or the folds; ``seed`` if None.
        budget: Train on so many patients only; a larger budget holds the smaller ones. None takes all that are left.
        fold: Which of the folds is tested, from 0; the others train and stop the training.
        folds: So many groups the patients with lesion are divided into, as equal as can be, and each is tested once; 0 for
            one group of ``test_share``.

    Raises:
        ProtocolError: There are not enough patients, or none with lesion to train on or to stop by; no such fold.
    """
    order, ill = _shuffled_patients(table, rows, patients, seed if test_seed is None else test_seed)
    groups = _groups(order[:ill], test_share, fold, folds)
    tested = groups[fold or 0]
    if test_seed is not None:
        order, _ = _shuffled_patients(table, rows, patients, seed)
    rest = [patient for patient in order if patient not in tested]
    left = rest[validation_patients:]
    wanted = len(left) if budget is None else budget
    if wanted < 1 or wanted > len(left):
        raise ProtocolError(
            f"{len(order)} patients, {_sizes(groups)} tested and {validation_patients} for validation, leave {len(left)} to train on; "
            f"{max(wanted, 1)} were asked for. Lower the budget, the validation patients or the test share, or take more folds."
        )
    parts = rest[:validation_patients], left[:wanted]
    held, trained = (rows[np.isin(patients[rows], part)] for part in parts)
    for name, part in (("train on", trained), ("stop the training by", held)):
        if not (table["lesion"][part] > 0).any():
            raise ProtocolError(
                f"{ill} of {len(order)} patients have lesion, {_sizes(groups)} are tested, and none of them is left to {name}. Lower the "
                "test share or the validation patients, raise the budget, or take more folds."
            )
    return Split("patient", trained, held, rows[np.isin(patients[rows], tested)], patients, seed)


def leak_splits(
    table: np.ndarray,
    rows: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    cases: np.ndarray,
    *,
    test_share: float,
    seed: int,
    validation_patients: int = 1,
) -> dict[SplitKind, Split]:
    """Three splits that differ in nothing but what may be trained on: what each leak is worth.

    Tested is a random half, of slices with lesion and of those without, of one case of each tested patient. Trained on are, by
    patient, all slices of other patients; by case, as many of those and of the tested patients' other cases; by slice, as many of
    those and of the other half of the tested cases. They are the first of what is allowed, in one random order of all
    slices, so each kind is in them in its natural share, and splits that allow the same are the same. Patients who are not
    tested stop the training, the same by all three.

    Args:
        table: Prepared slices.
        rows: Rows that take part.
        patients: Patient of each row of the table.
        cases: Case of each row of the table.
        test_share: Share of the patients with lesion that is tested, at least one.
        seed: Draws all.
        validation_patients: How many patients stop the training.

    Raises:
        ProtocolError: There are not enough patients, or none with lesion to train on or to stop by.
    """
    plain = split_by_patient(
        table, rows, patients, test_share=test_share, validation_patients=validation_patients, seed=seed
    )
    rng = np.random.default_rng([seed, 1])  # not the stream that ordered the patients
    tested_cases, test = _half_of_a_case(table, rng.permutation(plain.test), patients, cases)
    never: dict[SplitKind, np.ndarray] = {
        "slice": test,
        "case": rows[np.isin(cases[rows], tested_cases)],
        "patient": plain.test,
    }
    order = rng.permutation(rows)
    order = order[~np.isin(order, plain.validation)]
    return {
        kind: Split(
            kind,
            np.sort(order[~np.isin(order, forbidden)][: len(plain.train)]),
            plain.validation,
            test,
            patients,
            seed,
            cases,
        )
        for kind, forbidden in never.items()
    }


def _half_of_a_case(
    table: np.ndarray, order: np.ndarray, patients: np.ndarray, cases: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """One case with lesion of each patient, and half of its slices with lesion and half of those without, rounded up."""
    lesion = table["lesion"][order] > 0
    ill = order[lesion]
    chosen = {str(who): str(case) for who, case in zip(patients[ill][::-1], cases[ill][::-1], strict=True)}
    kinds = [order[(cases[order] == case) & (lesion == has)] for case in chosen.values() for has in (True, False)]
    return list(chosen.values()), np.sort(np.concatenate([kind[: len(kind) - len(kind) // 2] for kind in kinds]))


def _groups(ill: list[str], test_share: float, fold: int | None, folds: int) -> list[list[str]]:
    """Patients with lesion who may be tested together: one group of a share of them, or every fold."""
    if fold is None and not folds:
        return [ill[: max(1, round(test_share * len(ill)))]]
    if fold is None or not 0 <= fold < folds or not 2 <= folds <= len(ill):
        raise ProtocolError(
            f"Folds are at least 2, and no more than the {len(ill)} patients with lesion, and one of them is tested, numbered from 0; got "
            f"{folds} folds and number {fold}."
        )
    return [ill[number::folds] for number in range(folds)]


def _sizes(groups: list[list[str]]) -> str:
    """How many are tested, in words."""
    sizes = [str(len(group)) for group in groups]
    return sizes[0] if len(sizes) == 1 else f"in folds of {', '.join(sizes[:-1])} and {sizes[-1]}"


def _shuffled_patients(table: np.ndarray, rows: np.ndarray, patients: np.ndarray, seed: int) -> tuple[list[str], int]:
    """All patients in random order, those without any lesion last, as they can only train; and how many have lesion."""
    order = np.random.default_rng(seed).permutation(np.unique(patients[rows]))
    ill = {patient for patient in order if (table["lesion"][rows][patients[rows] == patient] > 0).any()}
    return [str(patient) for patient in sorted(order, key=lambda patient: patient not in ill)], len(ill)
