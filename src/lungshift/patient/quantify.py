"""From a scan with its masks, or a scan and a model, to numbers with error bars: the whole of ``lungshift quantify`` but its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lungshift.ct.case import Case, LungSource
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, InputError
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_header import read_identity
from lungshift.io.dicom_series import Choices
from lungshift.io.header import Intake
from lungshift.io.layouts import EITHER_LUNG
from lungshift.io.nifti import NiftiSource
from lungshift.learn.checkpoint import Checkpoint, require_target
from lungshift.learn.lungs import with_model_lungs
from lungshift.learn.prediction import Predictor, predict
from lungshift.learn.repeatability import RETAKES, draw_retakes, spread_numbers
from lungshift.measure.burden import Burden, bounds_of, measure_burden
from lungshift.measure.overlap import count_overlap, dice
from lungshift.measure.regions import Regions, find_regions
from lungshift.measure.repeats import UNKNOWN, Spread
from lungshift.memory import require_memory_for_scan
from lungshift.patient.gate import TrainingRange, judge_scan
from lungshift.patient.predicting import LESION, LUNGS, read_as, read_description, scans_trained_on
from lungshift.prepare.lungmask import require_hu, with_lungs

OWN_DICE: Final = 0.99
"""A given lesion mask that agrees so well with what the checkpoint predicts is called the checkpoint's own."""

_OUTSIDE_PERCENT = 10.0
_VOXEL_BYTES = 12
"""What measuring takes for each voxel of a scan at its highest, by ``benchmarks.abuse.load``."""
_SOURCES: Final[Mapping[str, LungSource]] = {"file": "reader", "model": "model", "threshold": "threshold"}
_DATES = ("StudyDate", "PatientName", "PatientID")


@dataclass(frozen=True, eq=False)
class Patient:
    """A scan with what is known of it.

    Attributes:
        case: The scan, its lung mask if there is one, and its lesion mask if one was given.
        flags: What ``lungshift predict`` found odd about it, in words.
        checksums: SHA-256 of the files, by what they are.
        identity: Name, date and id of the patient and of the file; empty unless they may be told.
        judged: Whether the flags are all that there is to say, so that the scan need not be judged again.
    """

    case: Case
    flags: tuple[str, ...] = ()
    checksums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    judged: bool = False


@dataclass(frozen=True, eq=False)
class Quantities:
    """What a lesion amounts to, and how sure each number is.

    Attributes:
        case: The scan with the lung mask that was used.
        lesion: The lesion that was measured.
        regions: Of the lungs.
        burden: The numbers.
        spreads: How each number scatters when the scan is taken again; empty if no model was given.
        bar: What the error bars are, or why there are none.
        drawn_by: Where the lesion mask is from.
        flags: What the reader of the numbers should know, in words.
        retakes: How many retakes each model saw.
        models: Fingerprints of the models.
    """

    case: Case
    lesion: Mask
    regions: Regions
    burden: Burden
    spreads: Mapping[str, Spread]
    bar: str
    drawn_by: str
    flags: tuple[str, ...] = ()
    retakes: int = 0
    models: tuple[str, ...] = ()

    def spread(self, quantity: str) -> Spread:
        """How a quantity scatters; ``UNKNOWN`` where nobody measured it twice."""
        return self.spreads.get(quantity, UNKNOWN)

    def limits(self, quantity: str) -> tuple[float, float]:
        """95 % limits of a quantity of ``Burden.quantities``; NaN where there are none."""
        low, high = bounds_of(quantity)
        return self.spread(quantity).limits(self.burden.quantities()[quantity], lowest=low, highest=high)


def quantify(
    case: Case,
    lesion: Mask | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    *,
    retakes: int = RETAKES,
    device: str = "auto",
    flags: Sequence[str] = (),
    judge: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Quantities:
    """Measure the lesion of a scan, with the model's own repeatability as error bar if a model is given.

    Args:
        case: The scan in HU with its lung mask; without one, lungs are found by threshold, if the lesion is predicted as well.
        lesion: What to measure; the first checkpoint predicts it if not given. The case's own lesion mask is not looked at.
        checkpoints: The model that drew the lesion, and others whose disagreement with it is to count.
        retakes: How often the scan is predicted again by each model, 2 at least.
        device: ``auto``, ``cpu``, ``cuda``.
        flags: What is known to be odd about the scan.
        judge: Whether to look for more of that: cut off, not like the training data, turned round.
        tell: Is told what is being done.

    Raises:
        CheckpointError: A checkpoint finds lungs and not lesion.
        AnnotationError: The lung mask is empty, there is a lesion but no lung mask, or neither lesion nor checkpoint.
        GeometryError: Scan and masks are not on one grid, or no lungs were found.
        IntensityError: The scan is not in HU.
        ProtocolError: Fewer than two retakes.
    """
    require_hu(float(case.volume.hu.min()), float(case.volume.hu.max()))
    if lesion is not None:
        case.volume.geometry.require_same(lesion.geometry, "Scan and lesion mask")
    for checkpoint in checkpoints:
        require_target(checkpoint, "lesion")
    drawn = draw_retakes(retakes) if checkpoints else ()
    case = _with_lungs(case, lesion, checkpoints)
    regions = find_regions(_lung_of(case), case.volume)
    say = tell or (lambda _: None)
    predictors = [Predictor.of(checkpoint, device) for checkpoint in checkpoints]
    if predictors:
        say("Predicting the scan")
    own = [predict(one, case) for one in predictors]
    measured = lesion if lesion is not None else own[0]
    if predictors:
        say(f"Predicting it {len(drawn) * len(predictors)} times more, as if it had been taken again")
    return Quantities(
        case=case,
        lesion=measured,
        regions=regions,
        burden=(burden := measure_burden(case.volume, measured, regions)),
        spreads=spread_numbers(predictors, case, regions, drawn, own) if predictors else {},
        bar=_bar_words(lesion, own, len(drawn)),
        drawn_by="predicted by the first checkpoint" if lesion is None else "given as a mask",
        flags=(*flags, *(_judge(case, checkpoints) if judge else ()), *_own_flags(case, burden)),
        retakes=len(drawn),
        models=tuple(checkpoint.fingerprint for checkpoint in checkpoints),
    )


def read_patient(
    scan: Path,
    *,
    lung: Path | None = None,
    lesion: Path | None = None,
    prediction: Path | None = None,
    series_uid: str | None = None,
    keep_identity: bool = False,
) -> Patient:
    """Read a scan with its masks.

    Args:
        scan: A NIfTI file, or a folder with a DICOM series.
        lung: Lung mask as NIfTI (1, or 1 and 2), on the scan's grid.
        lesion: Lesion mask as NIfTI (0 and 1), on the scan's grid.
        prediction: A folder of ``lungshift predict``, in place of the two.
        series_uid: Which series, where the folder holds several.
        keep_identity: Keep the patient's name, id and date, and the name of the file.

    Raises:
        InputError: Whatever keeps a file from being read, or a mask from fitting its scan.
        ResourceError: It needs more memory than there is (``E_MEMORY``).
    """
    told = read_description(prediction) if prediction else {}
    if prediction:
        if lung or lesion:
            raise InputError("A prediction folder has both masks: give --prediction, or --lesion and --lung.")
        lung, lesion = prediction / LUNGS, prediction / LESION
    source = (
        DicomSource(scan, series_uid, lung, lesion, lung_labels=EITHER_LUNG, choices=Choices(oblique=read_as(told)))
        if scan.is_dir()
        else NiftiSource(scan, lung, lesion, lung_labels=EITHER_LUNG, intake=Intake(oblique=read_as(told)))
    )
    require_memory_for_scan(source.geometry.shape, _VOXEL_BYTES, "Measuring")
    volume, lungs, lesions = source.read()
    case = Case(volume, lungs, lesions, "scan", lung_source=_SOURCES.get(told.get("lung", {}).get("source"), "reader"))
    checksums = _by_role(source.checksums())
    if prediction:
        _require_same_scan(told, checksums, prediction)
    return Patient(
        case,
        tuple(_sentence(flag["evidence"], flag["remedy"]) for flag in told.get("flags", ())),
        checksums,
        _identity(scan, source) if keep_identity else {},
        judged=bool(prediction),
    )


def find_lungs(patient: Patient, checkpoint: Checkpoint, device: str = "auto") -> Patient:
    """The patient with lungs by a model that finds them, where there is no lung mask.

    Raises:
        CheckpointError: The checkpoint finds lesion (``E_TARGET``).
        GeometryError: Nothing of the size of lungs was found (``E_NO_LUNG``).
    """
    require_target(checkpoint, "lung")
    return replace(patient, case=with_model_lungs(Predictor.of(checkpoint, device), patient.case))


def flags_of(patient: Patient, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """What is known to be odd about a patient's scan: what its prediction says, and whether a model was trained on it."""
    scans = set(patient.checksums.get("scan", ()))
    known = any(scans & scans_trained_on(checkpoint) for checkpoint in checkpoints)
    said = "The model was trained on this scan, or chosen by it: it shows what the model remembers."
    return (*patient.flags, said) if known else patient.flags


def _with_lungs(case: Case, lesion: Mask | None, checkpoints: Sequence[Checkpoint]) -> Case:
    if case.lung is None and lesion is not None:
        raise AnnotationError(
            "A lesion mask without a lung mask has no percent of lung and no side. Give the lung mask of this scan (--lung).",
            code="E_NO_LUNG",
        )
    if lesion is None and not checkpoints:
        raise AnnotationError(
            "There is nothing to measure: give a lesion mask (--lesion), or a checkpoint that predicts one."
        )
    return with_lungs(replace(case, lesion=None))


def _lung_of(case: Case) -> Mask:
    if case.lung is None:
        raise AnnotationError("There is no lung mask.", code="E_NO_LUNG")
    return case.lung


def _bar_words(lesion: Mask | None, own: Sequence[Mask], retakes: int) -> str:
    if not own:
        return "No error bars: no model was given. The masks are from elsewhere, and how they would differ had the scan been taken again is not known."
    several = f" and by {len(own)} models, whose differences count too" if len(own) > 1 else ""
    words = (
        f"95 % limits from the scan and {retakes} predictions of it as if it had been taken again{several}. "
        "They say how well the model repeats itself, not how right it is."
    )
    if lesion is None:
        return words
    agreement = float(dice(count_overlap(lesion, own[0])))
    if math.isnan(agreement) or agreement >= OWN_DICE:
        return words
    return f"{words} The mask is not this model's own (Dice {agreement:.2f}): the limits are those of the model on this scan, not of whoever drew the mask."


def _judge(case: Case, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    seen = TrainingRange.of(checkpoints[0].trained_on if checkpoints else ())
    return tuple(_sentence(flag.evidence, flag.remedy) for flag in judge_scan(case, seen))


def _sentence(evidence: str, remedy: str) -> str:
    said = (part.rstrip(".") for part in (evidence[:1].upper() + evidence[1:], remedy))
    return " ".join(f"{part}." for part in said)


def _require_same_scan(told: Mapping[str, Any], checksums: Mapping[str, tuple[str, ...]], folder: Path) -> None:
    predicted = set(told.get("input", {}).get("sha256", {}).get("scan", ()))
    if predicted and predicted != set(checksums.get("scan", ())):
        raise InputError(f"{folder} is the prediction of another scan (checksums differ).", code="E_PREDICTION")


def _own_flags(case: Case, burden: Burden) -> list[str]:
    flags = []
    total = burden.outside_ml + burden.whole.lesion_ml
    if total and 100 * burden.outside_ml / total > _OUTSIDE_PERCENT:
        flags.append(
            f"{100 * burden.outside_ml / total:.0f} % of the lesion lies outside the lung mask and is in no percent. Look at both masks."
        )
    if case.lung_source == "threshold":
        flags.append("The lung mask is from thresholds: lung as dense as muscle may be missing, and with it lesion.")
    if not all(burden.extents[side].lung_ml for side in ("right", "left")):
        flags.append("The lung mask has one lung only; the other has no numbers.")
    return flags


def _by_role(checksums: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Checksums by what the files are; the names of the files may name a patient."""
    roles: dict[str, tuple[str, ...]] = {}
    for name, one in checksums.items():
        role = name.split(" ")[0]
        if role in ("scan", "lung", "lesion"):
            roles[role] = (*roles.get(role, ()), one)
    return roles


def _identity(scan: Path, source: DicomSource | NiftiSource) -> dict[str, str]:
    found = {"file": scan.name}
    if isinstance(source, DicomSource):
        header = read_identity(source.stack.frames[0].path)
        found |= {name: str(header.get(name)) for name in _DATES if header.get(name)}
    return found
