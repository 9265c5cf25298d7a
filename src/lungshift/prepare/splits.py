"""Who trains, who stops the training, who is tested. Patients stay whole, unless a paper is to be replicated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from lungshift.errors import LeakageError, ProtocolError
from lungshift.prepare.slices import draw_balanced

SplitKind = Literal["patient", "slice"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a prepared cohort's table, divided in three.

    Attributes:
        patients: Patient of every row of the table, not only of those in the split.

    Raises:
        LeakageError: A slice stands in two parts, or a patient does in a split by patient.
        ProtocolError: A part that must not be empty is.
    """

    kind: SplitKind
    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]
    patients: np.ndarray
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if not len(getattr(self, name)):
                raise ProtocolError(
                    f"The split leaves no slice to {name}; give it more patients, or ask for fewer slices."
                )
        if shared := self._shared(np.arange(len(self.patients))):
            raise LeakageError(f"{len(shared)} slices stand in two parts of the split.")
        if self.kind == "patient" and (shared := self._shared(self.patients)):
            raise LeakageError(f"Patients on two sides of a split by patient: {', '.join(map(str, sorted(shared)))}.")

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
    table: np.ndarray, rows: Int64[np.ndarray, " row"], patients: np.ndarray, *, train: int, validation: int, seed: int
) -> Split:
    """The source paper's split: ``train`` and ``validation`` slices drawn half with lesion, all others are tested.

    It exists to replicate: slices of one patient stand on both sides, so scores are too good.
    """
    drawn = draw_balanced(table, rows, train + validation, np.random.default_rng(seed))
    lesion = table["lesion"][drawn] > 0
    with_lesion, without = drawn[lesion], drawn[~lesion]
    half = validation - validation // 2
    held = np.concatenate([with_lesion[:half], without[: validation // 2]])
    trained = np.setdiff1d(drawn, held)
    return Split("slice", trained, np.sort(held), np.setdiff1d(rows, drawn), patients, seed)


def split_by_patient(
    table: np.ndarray,
    rows: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    *,
    test_share: float,
    validation_patients: int,
    seed: int,
    budget: int | None = None,
) -> Split:
    """Divide patients at random; those tested depend on ``seed`` and ``test_share`` only, whatever the budget.

    Args:
        table: Prepared slices.
        rows: Rows that take part.
        patients: Patient of each row of the table.
        test_share: Share of the patients with lesion that is tested, at least one.
        validation_patients: How many of the rest stop the training.
        seed: Draws the order.
        budget: Train on so many patients only; a larger budget holds the smaller ones. None takes all that are left.

    Raises:
        ProtocolError: There are not enough patients, or none with lesion to train on or to stop by.
    """
    order, ill = _shuffled_patients(table, rows, patients, seed)
    tested = max(1, round(test_share * ill))
    left = order[tested + validation_patients :]
    wanted = len(left) if budget is None else budget
    if wanted < 1 or wanted > len(left):
        raise ProtocolError(
            f"{len(order)} patients, {tested} tested and {validation_patients} for validation, leave {len(left)} to train on; "
            f"{max(wanted, 1)} were asked for. Lower the budget, the test share or the validation patients."
        )
    parts = order[tested : tested + validation_patients], left[:wanted]
    held, trained = (rows[np.isin(patients[rows], part)] for part in parts)
    for name, part in (("train on", trained), ("stop the training by", held)):
        if not (table["lesion"][part] > 0).any():
            raise ProtocolError(
                f"{ill} of {len(order)} patients have lesion, and none of them is left to {name}. Lower the test share or the "
                "validation patients, or raise the budget."
            )
    return Split("patient", trained, held, rows[np.isin(patients[rows], order[:tested])], patients, seed)


def _shuffled_patients(table: np.ndarray, rows: np.ndarray, patients: np.ndarray, seed: int) -> tuple[list[str], int]:
    """All patients in random order, those without any lesion last, as they can only train; and how many have lesion."""
    order = np.random.default_rng(seed).permutation(np.unique(patients[rows]))
    ill = {patient for patient in order if (table["lesion"][rows][patients[rows] == patient] > 0).any()}
    return [str(patient) for patient in sorted(order, key=lambda patient: patient not in ill)], len(ill)
