"""Labels judged by networks that never saw the patient: suspects of every case, how likely each is an error, and what they are worth.

Networks are trained out of fold (``out_of_fold``), disagreements become suspects (``audit.suspects``), planted errors teach how
likely such a suspect is an error (``audit.belief``), and the score of the networks is counted again as it would be were the suspects
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungshift.audit.belief import Example, beliefs_without, examples_of
from lungshift.audit.judged import Judged, rank_judged
from lungshift.audit.suspects import Opinion, find_suspects
from lungshift.ct.case import Cohort
from lungshift.measure.conventions import Convention
from lungshift.measure.interval import Estimate, estimate
from lungshift.measure.overlap import count_slices
from lungshift.transfer.looks import pixel_mm_of
from lungshift.transfer.out_of_fold import OutOfFold, predict_out_of_fold
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.watcher import Silent, Watcher


@dataclass(frozen=True)
class Worth:
    """What the F1 of the networks is, and would be were suspects right.

    Attributes:
        now: With the labels as they are.
        top: By how many of the list are right, from the top: the F1 with their labels turned over.
        convention: How it was averaged.
    """

    now: Estimate
    top: dict[int, Estimate]
    convention: Convention


def opinion_of(found: OutOfFold, number: int) -> tuple[Opinion, int]:
    """A case as label and networks see it, and the slice of the scan where its grid begins."""
    told, prepared = found.opinion(number), found.prepared
    rows = np.arange(told.rows[0], told.rows[-1] + 1)
    place = told.rows - rows[0]
    shape = (len(rows), prepared.size, prepared.size)
    filled = []
    for values in (told.probability, told.votes, told.spread):
        dense = np.zeros(shape, np.float32)
        dense[place] = values
        filled.append(dense)
    pixel_mm = pixel_mm_of(prepared, number)
    hu, lung, lesion = (np.stack([read(row) for row in rows]) for read in (prepared.hu, prepared.lung, prepared.lesion))
    spacing = (prepared.cases[number].spacing_mm[0], pixel_mm, pixel_mm)
    return Opinion(lesion, filled[0], filled[1], filled[2], hu, lung, spacing), int(prepared.table["index"][rows[0]])


def judge_labels(found: OutOfFold, watcher: Watcher | None = None) -> tuple[Judged, ...]:
    """The suspects of every case with their beliefs, in the order of a worklist (see ``rank_judged``).

    Args:
        found: What the networks say.
        watcher: Is told how it goes on.
    """
    watcher = watcher or Silent()
    numbers = found.numbers
    watcher.stage(f"Planting errors in the labels of {found.prepared.name}, to learn what they look like")
    examples: list[Example] = []
    for done, number in enumerate(numbers, 1):
        patient = found.prepared.cases[number].patient_id
        examples += examples_of(patient, opinion_of(found, number)[0], np.random.default_rng(number))
        watcher.slices(done, len(numbers))
    beliefs = beliefs_without(examples, [found.prepared.cases[number].patient_id for number in numbers])
    judged: list[Judged] = []
    for number in numbers:
        case = found.prepared.cases[number]
        belief = beliefs.get(case.patient_id)
        opinion, first = opinion_of(found, number)
        for suspect in find_suspects(opinion):
            how_likely = float("nan") if belief is None else belief.of(suspect)
            judged.append(Judged(found.prepared.name, case, suspect.moved(first), how_likely, found.prepared.size))
    return rank_judged(judged)


def worth_of(
    found: OutOfFold,
    judged: Sequence[Judged],
    top: Sequence[int] = (10, 20, 50),
    convention: Convention = "lesion_slices",
) -> Worth:
    """The networks' F1 now, and were the first so many suspects errors of the label.

    Labels that are turned towards the networks raise their F1 whether that is right or not: the numbers bound what correcting can do, and
    say nothing of whether it should be done.
    """
    wanted = sorted({0, *(min(k, len(judged)) for k in top)})
    tables: dict[int, list[np.ndarray]] = {k: [] for k in wanted}
    cases: list[str] = []
    patients: list[str] = []
    for number in found.numbers:
        opinion, first = opinion_of(found, number)
        case = found.prepared.cases[number]
        mine = [(n, one.suspect.moved(-first)) for n, one in enumerate(judged) if one.case.case_id == case.case_id]
        seen = opinion.lung.any(axis=(1, 2)) | opinion.reference.any(axis=(1, 2))
        for k in wanted:
            label = opinion.reference.copy()
            for place, suspect in mine:
                if place < k:
                    label[suspect.box] ^= suspect.inside
            tables[k].append(count_slices(label[seen], opinion.predicted[seen]))
        cases += [case.case_id] * int(seen.sum())
        patients += [case.patient_id] * int(seen.sum())
    estimates = {k: estimate(np.concatenate(parts), cases, patients, convention, "dice") for k, parts in tables.items()}
    return Worth(estimates[0], {k: estimates[k] for k in wanted if k}, convention)


@dataclass(frozen=True, eq=False)
class JudgedCohort:
    """What networks doubt in the labels of one cohort.

    Attributes:
        found: What the networks say.
        suspects: In the order of a worklist.
        worth: What the networks' F1 is and would be were the list right.
    """

    found: OutOfFold
    suspects: tuple[Judged, ...]
    worth: Worth


def judge_cohorts(
    protocol: Protocol,
    cohorts: Sequence[Cohort],
    folder: Path,
    *,
    folds: int = 4,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> tuple[JudgedCohort, ...]:
    """Train networks out of fold on each cohort that has labels and judge them; a run that was stopped goes on.

    Args:
        protocol: Pictures, network, training, seeds; see ``predict_out_of_fold``.
        cohorts: Those without lesion masks are passed over.
        folder: Where checkpoints and predictions go, a folder for each cohort.
        folds: Groups of patients.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        CohortError, ProtocolError: As for ``predict_out_of_fold``.
    """
    judged = []
    for cohort in cohorts:
        if all(case.source.has_lesion for case in cohort.cases):
            found = predict_out_of_fold(
                protocol, cohort, folder / "models" / cohort.name, folds=folds, device=device, watcher=watcher
            )
            suspects = judge_labels(found, watcher)
            judged.append(JudgedCohort(found, suspects, worth_of(found, suspects)))
    return tuple(judged)
