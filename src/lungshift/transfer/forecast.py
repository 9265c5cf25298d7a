"""Dice of scans without labels: forecast from how well the predictions of changed views agree, withheld where none was like them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CheckpointError, InputError, ProtocolError
from lungshift.learn.checkpoint import Checkpoint, require_target
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor
from lungshift.learn.signs import Signs, identify_model, signs_of_case
from lungshift.measure.overlap import dice
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.transfer.calibration import SPACES, Calibration, Labelled, read_calibration, require_enough
from lungshift.transfer.protocol import PrepareSettings
from lungshift.transfer.sides import group_by_content, prepare_side, require_apart_by_file, require_scorable
from lungshift.transfer.single import find_known
from lungshift.transfer.watcher import Silent, Watcher
from lungshift.transfer.work import count_rows

MARGIN: Final = 3.0
"""A scan is unlike anything seen where it lies so many times as far out as is usual among calibration cases."""

_KNOWN = "the model was trained on it, or chosen by it"
_SILENT = "nothing is predicted"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseForecast:
    """What is forecast of one case, or why nothing is.

    Attributes:
        agreement: Mean Dice between the predictions of changed views; NaN if there are none.
        share: Predicted lesion as a part of the lung; NaN without lung.
        features_far, lung_hu_far: How far out the case lies; 1 is usual among calibration cases. NaN without lung.
        dice: The forecast; NaN if it is withheld.
        low, high: Its 90 % interval; NaN likewise.
        reason: Why it is withheld; empty if it is not.
    """

    case_id: str
    patient_id: str
    agreement: float = math.nan
    share: float = math.nan
    features_far: float = math.nan
    lung_hu_far: float = math.nan
    dice: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""

    @property
    def abstain(self) -> bool:
        """Whether the forecast is withheld."""
        return bool(self.reason)


@dataclass(frozen=True, eq=False)
class Forecast:
    """Dice forecast of a cohort without labels, case by case."""

    cohort: str
    cases: tuple[CaseForecast, ...]
    calibration: Calibration

    @property
    def given(self) -> tuple[CaseForecast, ...]:
        """The cases whose forecast is not withheld."""
        return tuple(case for case in self.cases if not case.abstain)

    @property
    def mean(self) -> float:
        """Mean forecast of ``given``; NaN if there is none."""
        return float(np.mean([case.dice for case in self.given])) if self.given else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """90 % interval of the mean Dice of ``given``; NaN if there is none."""
        if not self.given:
            return math.nan, math.nan
        return _around(self.mean, self.calibration.mean_half_width(len(self.given)))


def forecast_cohort(
    checkpoint: Checkpoint,
    cohort: Cohort,
    cache: Path,
    *,
    labelled: Sequence[Cohort] = (),
    calibration: Path | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Forecast:
    """Calibrate on labelled cohorts, or read what an earlier run calibrated, and ``forecast``.

    Args:
        checkpoint: The model.
        cohort: What is to be predicted.
        cache: Where prepared pictures go.
        labelled: Cohorts to ``calibrate`` on.
        calibration: File of ``write_calibration``, instead of ``labelled``.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        ProtocolError: Neither labelled cohorts nor a calibration, or both.
    """
    if bool(labelled) == bool(calibration):
        raise ProtocolError(
            "A forecast is calibrated on labelled cohorts, or takes a calibration.json: give one of the two."
        )
    if calibration:
        found = read_calibration(calibration)
    else:
        found = calibrate(checkpoint, labelled, cache, device=device, watcher=watcher)
    return forecast(checkpoint, found, cohort, cache, device=device, watcher=watcher)


def calibrate(
    checkpoint: Checkpoint,
    cohorts: Sequence[Cohort],
    cache: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Calibration:
    """Learn from labelled cases how a model's agreement with itself goes with its Dice.

    Cases that the model was trained on or chosen by are left out, for its Dice there is too good.

    Args:
        checkpoint: The model.
        cohorts: With lesion masks; three or more also show how far a cohort not seen may be off.
        cache: Where prepared pictures go.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        CohortError: No lesion masks, two cohorts of one name, or fewer than five patients that can be learned from.
        LeakageError: A scan stands in two cohorts, or belongs to two patients.
    """
    require_target(checkpoint, "lesion")
    require_apart_by_file(cohorts)
    require_scorable(*cohorts)
    predictor, cases, left_out = Predictor.of(checkpoint, device), [], []
    for cohort in cohorts:
        known = find_known(checkpoint, cohort, cohort.cases)
        found = list(_label(predictor, cohort, known, cache, watcher or Silent()))
        cases += [case for case in found if case.signs.predicts]
        silent = [case.case_id for case in found if not case.signs.predicts]
        for names, reason in ((known, _KNOWN), (silent, _SILENT)):
            left_out += [(f"{cohort.name}/{name}", reason) for name in names]
    calibration = Calibration(identify_model(checkpoint), tuple(cases), tuple(left_out))
    require_enough(calibration)
    return calibration


def forecast(
    checkpoint: Checkpoint,
    calibration: Calibration,
    cohort: Cohort,
    cache: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Forecast:
    """Forecast the Dice of every case of a cohort; its lesion masks, if there are any, are not looked at.

    A case that cannot be read, or is unlike those of the calibration, is withheld with its reason; the others go on.

    Args:
        checkpoint: The model.
        calibration: Of this model.
        cohort: What is to be predicted.
        cache: Where prepared pictures go.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.

    Raises:
        CheckpointError: The calibration is that of another model.
    """
    if identify_model(checkpoint) != calibration.model:
        raise CheckpointError(
            "The calibration is that of another model, or of this one with another rule for masks; calibrate this model."
        )
    watcher, predictor, cases = watcher or Silent(), Predictor.of(checkpoint, device), []
    watcher.stage(f"Forecasting {len(cohort.cases)} cases of {cohort.name}")
    for number, record in enumerate(cohort.cases, 1):
        cases.append(_forecast_case(predictor, calibration, cohort, record, cache))
        watcher.slices(number, len(cohort.cases))
    return Forecast(cohort.name, tuple(cases), calibration)


def _label(
    predictor: Predictor, cohort: Cohort, known: Sequence[str], cache: Path, watcher: Watcher
) -> Iterator[Labelled]:
    """Signs and Dice of every case that is not known to the model."""
    checkpoint = predictor.checkpoint
    side = group_by_content(prepare_side("target", cohort, cache, _settings(checkpoint), watcher))
    watcher.stage(f"Calibrating on {cohort.name}")
    for number, record in enumerate(cohort.cases):
        if record.case_id not in known:
            signs = _signs(predictor, side.prepared, number)
            rows = side.rows[side.prepared.table["case"][side.rows] == number]
            counts = count_rows(predictor, side.prepared, rows).counts
            true = float(dice(counts.sum(axis=0, keepdims=True))[0])
            scans = tuple(sorted(record.scan_checksums))
            patient = side.prepared.cases[number].patient_id
            yield Labelled(cohort.name, record.case_id, patient, scans, signs, true)
        watcher.slices(number + 1, len(cohort.cases))


def _signs(predictor: Predictor, prepared: PreparedCohort, number: int) -> Signs:
    rows = np.flatnonzero((prepared.table["case"] == number) & (prepared.table["lung"] > 0))
    return signs_of_case(predictor, SliceSet.of(prepared, rows))


def _forecast_case(
    predictor: Predictor, calibration: Calibration, cohort: Cohort, record: CaseRecord, cache: Path
) -> CaseForecast:
    blank = CaseForecast(record.case_id, record.patient_id)
    if record.scan_checksums & {digest for case in calibration.cases for digest in case.scans}:
        return replace(blank, reason="its label was used to calibrate")
    settings = _settings(predictor.checkpoint)
    try:
        alone = replace(cohort, cases=(record,))
        prepared = prepare_cohort(alone, cache, size=settings.size, interpolation=settings.interpolation)
    except InputError as error:
        _log.warning("%s: no forecast: %s", record.case_id, error)
        return replace(blank, reason=f"the scan cannot be used ({error.code})")
    return judge(blank, calibration, _signs(predictor, prepared, 0))


def judge(blank: CaseForecast, calibration: Calibration, signs: Signs) -> CaseForecast:
    """A forecast, or the reason why there is none.

    Args:
        blank: The case, of which nothing is said yet.
        calibration: Of the model that predicted it.
        signs: Of the prediction.
    """
    near = calibration.neighbourhoods
    far = {name: near[name].far(read(signs)) for name, read in SPACES.items()}
    seen = replace(blank, agreement=signs.agreement, share=signs.share)
    seen = replace(seen, features_far=far["features"], lung_hu_far=far["lung HU"])
    reason = _reason(signs, far)
    if reason:
        return replace(seen, reason=reason)
    value = float(calibration.line(np.array([signs.agreement]))[0])
    low, high = _around(value, calibration.half_width)
    return replace(seen, dice=value, low=low, high=high)


def _reason(signs: Signs, far: dict[str, float]) -> str:
    """Why no forecast is given; empty if one is."""
    if math.isnan(signs.share):
        return "no lung in it"
    name = max(far, key=lambda space: far[space])
    if far[name] > MARGIN:
        return f"unlike anything seen: its {name} lie {far[name]:.1f} times as far out as those of a usual calibration case"
    return "" if signs.predicts else _SILENT


def _settings(checkpoint: Checkpoint) -> PrepareSettings:
    return PrepareSettings(checkpoint.size, checkpoint.interpolation, "lung_or_lesion")


def _around(value: float, half_width: float) -> tuple[float, float]:
    return max(0.0, value - half_width), min(1.0, value + half_width)
