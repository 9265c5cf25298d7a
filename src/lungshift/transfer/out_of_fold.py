"""What networks say of a cohort that never saw the patient: trained on some of its patients, asked about the others, all in turn.

Labels are judged by these predictions (``audit``), so each must come from networks that could not have learned the label's error. Patients
are kept whole, by id and by content; several seeds are an ensemble. A run that was stopped goes on: trainings by their epochs, predictions
case by case.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from lungshift.ct.case import Cohort
from lungshift.errors import ProtocolError
from lungshift.files import digest, read_key, write_arrays
from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.splits import Split
from lungshift.transfer.plan import Training
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.sides import Side, group_by_content, prepare_side, require_scorable
from lungshift.transfer.watcher import Silent, Watcher
from lungshift.transfer.work import Bench, train

_LEVELS = 255


@dataclass(frozen=True, eq=False)
class CaseOpinion:
    """What the networks say of one case, on its prepared pictures.

    Attributes:
        rows: Rows of the prepared cohort, from foot to head.
        probability: Of lesion, the mean over networks, in steps of 1/255.
        votes: Share of the networks whose own rule calls a pixel lesion.
        spread: Standard deviation of the probability over networks; 0 with one.
    """

    rows: Int64[np.ndarray, " slice"]
    probability: Float32[np.ndarray, "slice size size"]
    votes: Float32[np.ndarray, "slice size size"]
    spread: Float32[np.ndarray, "slice size size"]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions for every case of a cohort by networks that never saw its patient.

    Attributes:
        prepared: The cohort; patients are grouped by content.
        folder: Where the predictions lie, a file for each seed and case.
        seeds: Of the ensemble.
        fold_of: By patient, the fold in which it was held out.
    """

    prepared: PreparedCohort
    folder: Path
    seeds: tuple[int, ...]
    fold_of: dict[str, int]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The cases that were asked about, by their numbers in the cohort."""
        every = np.unique(self.prepared.table["case"]).tolist()
        return tuple(number for number in every if _file(self.folder, self.seeds[0], number).is_file())

    def opinion(self, number: int) -> CaseOpinion:
        """What the ensemble says of a case, by its number in the cohort; read when it is asked for."""
        members = [_read(_file(self.folder, seed, number)) for seed in self.seeds]
        rows, probability = members[0][0], np.stack([member[1] for member in members]).astype(np.float32) / _LEVELS
        votes = np.asarray(np.mean([_unpacked(m[2], m[1].shape) for m in members], axis=0, dtype=np.float32))
        return CaseOpinion(rows, np.asarray(probability.mean(axis=0)), votes, np.asarray(probability.std(axis=0)))


def predict_out_of_fold(
    protocol: Protocol,
    cohort: Cohort,
    folder: Path,
    *,
    folds: int = 4,
    device: str = "auto",
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> OutOfFold:
    """Train networks on all folds but one and let them predict that one, for every fold and seed of the protocol.

    Args:
        protocol: Pictures, network, training, seeds and how masks are decided; its split is not used.
        cohort: With lesion masks, whether they are right or not.
        folder: Where checkpoints and predictions go.
        folds: Groups of patients; each is held out once.
        device: ``auto``, ``cpu``, ``cuda``.
        cache: Where prepared pictures lie; inside ``folder`` if None.
        watcher: Is told how it goes on.

    Raises:
        CohortError: The cohort has no lesion masks, or a case no slice that takes part.
        ProtocolError: There are not enough patients with lesion for so many folds.
    """
    require_scorable(cohort)
    watcher = watcher or Silent()
    side = prepare_side("source", cohort, cache or folder / "prepared", protocol.prepare, watcher)
    side = group_by_content(replace(side, patients_known=False))  # by id and by content
    bench = Bench(protocol, (side.prepared,), folder, device)
    fold_of = draw_folds(side, folds, protocol.seeds[0])
    for seed in protocol.seeds:
        for fold in range(folds):
            split = _split(side, fold_of, fold, seed, protocol.split.validation_patients)
            name = f"fold{fold + 1}of{folds}-seed{seed}"
            job = Training(name, ((0, split.train),), ((0, split.validation),), protocol.training, seed)
            _predict_fold(bench, train(bench, job, watcher), split, seed, watcher)
    return OutOfFold(side.prepared, folder / "out_of_fold", protocol.seeds, fold_of)


def draw_folds(side: Side, folds: int, seed: int) -> dict[str, int]:
    """The fold of each patient: patients with lesion are dealt first, then those without, so that every fold has both.

    Raises:
        ProtocolError: Fewer patients with lesion than needed: one to test, one to stop by, one to train on.
    """
    patients, ill = side.prepared.patients, _with_lesion(side)
    order = [str(who) for who in np.random.default_rng(seed).permutation(np.unique(patients[side.rows]))]
    order.sort(key=lambda who: who not in ill)
    if not 2 <= folds <= len(ill) or len(ill) < 3:
        raise ProtocolError(
            f"{side.name} has {len(ill)} patients with lesion; they are divided into at least 2 folds and no more than there are of them, "
            f"and 3 patients are the least. Got {folds} folds."
        )
    return {who: place % folds for place, who in enumerate(order)}


def _split(side: Side, fold_of: dict[str, int], fold: int, seed: int, validation_patients: int) -> Split:
    """One fold held out; of the others, patients with lesion are drawn to stop the training."""
    patients = side.prepared.patients
    rest = [who for who, its in fold_of.items() if its != fold]
    drawn = [
        str(who) for who in np.random.default_rng([seed, fold]).permutation(sorted(set(rest) & _with_lesion(side)))
    ]
    held = drawn[: max(1, min(validation_patients, len(drawn) - 1))]
    parts = [[who for who in rest if who not in held], held, [who for who, its in fold_of.items() if its == fold]]
    trained, stops, tested = (side.rows[np.isin(patients[side.rows], part)] for part in parts)
    return Split("patient", trained, stops, tested, patients, seed)


def _with_lesion(side: Side) -> set[str]:
    """Patients that have lesion on any slice."""
    return {str(who) for who in side.prepared.patients[side.prepared.table["lesion"] > 0]}


def _predict_fold(bench: Bench, model: Checkpoint, split: Split, seed: int, watcher: Watcher) -> None:
    prepared, predictor = bench.cohorts[0], None
    numbers = np.unique(prepared.table["case"][split.test])
    for number in numbers.tolist():
        rows = np.sort(split.test[prepared.table["case"][split.test] == number])
        file, key = _file(bench.folder / "out_of_fold", seed, number), _key(bench, model, rows)
        if read_key(file) == key:
            continue
        if predictor is None:
            watcher.stage(f"Asking {len(numbers)} cases that were held out")
            predictor = Predictor.of(model, bench.device)
        probability, mask = _predict(predictor, prepared, rows)
        coded: UInt8[np.ndarray, "slice size size"] = np.rint(probability * _LEVELS).astype(np.uint8)
        arrays = {"rows": rows, "probability": coded, "mask": np.packbits(mask)}
        write_arrays(file, {"key": np.array(key)} | arrays)


def _predict(predictor: Predictor, prepared: PreparedCohort, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probability = np.zeros((len(rows), prepared.size, prepared.size), np.float32)
    for chosen, part in predict_slices(predictor, SliceSet.of(prepared, rows)):
        probability[chosen] = part
    return probability, decide(probability, predictor.checkpoint.decision)


def _file(folder: Path, seed: int, number: int) -> Path:
    return folder / f"seed{seed}" / f"case{number}.npz"


def _key(bench: Bench, model: Checkpoint, rows: np.ndarray) -> str:
    return digest((model.fingerprint, model.decision, bench.cohorts[0].key, rows.tolist()))


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(file) as kept:
        return kept["rows"], kept["probability"], kept["mask"]


def _unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits, count=int(np.prod(shape))).view(bool).reshape(shape)
