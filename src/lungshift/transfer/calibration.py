"""From labelled cases to a forecast of Dice: a line, its error on cases it had not seen, and where the cases lie.

Ten or twenty labelled cases carry a straight line from one sign and no more: Dice rises with the agreement between views, or is
flat, and is drawn a little towards the mean. The half-width of a case's interval is the 90 % quantile of the errors on patients,
and where there are three cohorts or more on cohorts, that the line had not seen (the jackknife of Barber, Candès, Ramdas and
Tibshirani, Annals of Statistics 49:486, 2021). It holds for scans that come from where the calibration's came from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float64

from lungshift.errors import CohortError, FileFormatError
from lungshift.files import write_json
from lungshift.learn.signs import Signs

LEVEL: Final = 0.9
"""How often the intervals are meant to hold."""

_FORMAT = 1
_FEWEST = 5
_COHORTS = 3
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Labelled:
    """A case that the forecast is calibrated on.

    Attributes:
        scans: SHA-256 of the scan's own files.
        dice: In 3-D, on the prepared pictures.
    """

    cohort: str
    case_id: str
    patient_id: str
    scans: tuple[str, ...]
    signs: Signs
    dice: float


@dataclass(frozen=True)
class HeldOut:
    """How far forecasts were off on cases that they had not been calibrated on.

    Attributes:
        left_out: What was left out, one at a time.
        groups: How many of them there were.
        errors: Forecast less Dice of each case.
        errors_of_mean: The same where the mean Dice of the other cases is said of every case.
    """

    left_out: Literal["patient", "cohort"]
    groups: int
    errors: tuple[float, ...]
    errors_of_mean: tuple[float, ...]

    @property
    def mae(self) -> float:
        """Mean absolute error of the forecast."""
        return float(np.abs(self.errors).mean())

    @property
    def mae_of_mean(self) -> float:
        """Mean absolute error of saying the mean: what a forecast has to beat."""
        return float(np.abs(self.errors_of_mean).mean())

    @property
    def half_width(self) -> float:
        """What 90 % of the errors do not exceed, counting the one to come; 1 where there are too few cases to say."""
        rank = math.ceil(LEVEL * (len(self.errors) + 1))
        return float(np.sort(np.abs(self.errors))[rank - 1]) if rank <= len(self.errors) else 1.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """Labelled cases from which one model's Dice is forecast; everything else follows from them.

    Attributes:
        model: ``identify_model`` of the checkpoint.
        cases: What is learned from.
        left_out: Case and reason of those that could not be used.
    """

    model: str
    cases: tuple[Labelled, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @cached_property
    def patients(self) -> tuple[tuple[str, str], ...]:
        """Cohort and patient of each case."""
        return tuple((case.cohort, case.patient_id) for case in self.cases)

    @cached_property
    def line(self) -> Line:
        """From agreement to Dice."""
        return Line.through(*self._points)

    @cached_property
    def by_patient(self) -> HeldOut:
        """The error on patients that the line had not seen."""
        return self._hold_out("patient", self.patients)

    @cached_property
    def by_cohort(self) -> HeldOut | None:
        """The error on cohorts that the line had not seen; None where there are fewer than three."""
        cohorts = [case.cohort for case in self.cases]
        return self._hold_out("cohort", cohorts) if len(set(cohorts)) >= _COHORTS else None

    @property
    def half_width(self) -> float:
        """Half-width of the 90 % interval of a case: the wider of patients and cohorts left out."""
        return max(held.half_width for held in (self.by_patient, self.by_cohort) if held)

    @cached_property
    def gain(self) -> tuple[float, float]:
        """95 % interval, over patients left out, of how much smaller the error is than that of saying the mean."""
        from scipy import stats

        held = self.by_patient
        gains = _mean_by(np.abs(held.errors_of_mean) - np.abs(held.errors), self.patients)
        reach = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
        return float(gains.mean() - reach), float(gains.mean() + reach)

    @property
    def beats_mean(self) -> bool:
        """Whether the forecast is better than saying the mean by more than chance would do."""
        return self.gain[0] > 0

    @cached_property
    def neighbourhoods(self) -> dict[str, Neighbourhood]:
        """Where the cases lie: by the network's features, and by the HU of their lungs."""
        return {
            name: Neighbourhood.around(np.stack([read(case.signs) for case in self.cases]), self.patients)
            for name, read in SPACES.items()
        }

    def mean_half_width(self, n: int) -> float:
        """Half-width of the 90 % interval of the mean Dice of ``n`` cases of a cohort.

        Where cohorts could be left out, what a whole cohort was off by on average is part of it; else it is known
        only how sure the calibration's own mean is, as if the scans came from where the calibration's came from.
        """
        from scipy import stats

        held = self.by_cohort or self.by_patient
        errors, names = np.array(held.errors), [case.cohort for case in self.cases]
        if self.by_cohort:
            bias, freedom = float((_mean_by(errors, names) ** 2).mean()), held.groups
        else:
            bias, freedom = float(errors.var(ddof=1)) / len(errors), held.groups - 1
        return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * math.sqrt(bias + errors.var(ddof=1) / n))

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        agreement = np.array([case.signs.agreement for case in self.cases])
        return agreement, np.array([case.dice for case in self.cases])

    def _hold_out(self, kind: Literal["patient", "cohort"], groups: Sequence[Hashable]) -> HeldOut:
        agreement, true = self._points
        forecast, mean = np.empty_like(true), np.empty_like(true)
        for group, rest in _each(groups):
            forecast[group] = Line.through(agreement[rest], true[rest])(agreement[group])
            mean[group] = true[rest].mean()
        return HeldOut(kind, len(set(groups)), tuple((forecast - true).tolist()), tuple((mean - true).tolist()))


@dataclass(frozen=True)
class Line:
    """Dice as a straight line of agreement, kept between 0 and 1."""

    agreement: float
    dice: float
    slope: float

    @classmethod
    def through(cls, agreement: Float64[np.ndarray, " case"], true: Float64[np.ndarray, " case"]) -> Line:
        """The line of least squares that does not fall, its slope shrunk as by one more case that shows none."""
        x, y = agreement - agreement.mean(), true - true.mean()
        spread = float(x @ x) * (1 + 1 / len(x))
        return cls(float(agreement.mean()), float(true.mean()), max(0.0, float(x @ y) / max(spread, _TINY)))

    def __call__(self, agreement: Float64[np.ndarray, " case"]) -> Float64[np.ndarray, " case"]:
        """The forecasts."""
        return np.asarray(np.clip(self.dice + self.slope * (agreement - self.agreement), 0, 1))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mean and a covariance that was shrunk to a multiple of the identity, as there are fewer cases than features.

    The share is that of Ledoit and Wolf, Journal of Multivariate Analysis 88:365, 2004. Beyond the directions in which
    the cases differ it has one variance, ``rest``.
    """

    mean: Float64[np.ndarray, " feature"]
    directions: Float64[np.ndarray, "direction feature"]
    variances: Float64[np.ndarray, " direction"]
    rest: float

    @classmethod
    def of(cls, rows: Float64[np.ndarray, "case feature"]) -> Gaussian:
        """Fit one to the rows."""
        n, p = rows.shape
        away = rows - rows.mean(axis=0)
        _, sizes, directions = np.linalg.svd(away, full_matrices=False)
        variances = sizes**2 / n
        even, squares = variances.sum() / p, (variances**2).sum()
        length, along = (away**2).sum(axis=1), ((away @ directions.T) ** 2 * variances).sum(axis=1)
        noise = (length**2 - 2 * along + squares).sum() / n**2
        share = min(1.0, noise / max(squares - p * even**2, _TINY))
        rest = max(share * even, _TINY)
        return cls(rows.mean(axis=0), directions, (1 - share) * variances + rest, rest)

    def distance(self, row: Float64[np.ndarray, " feature"]) -> float:
        """Mahalanobis distance from the mean."""
        away = row - self.mean
        along = self.directions @ away
        beyond = max(0.0, float(away @ away - along @ along))
        return math.sqrt(float((along**2 / self.variances).sum()) + beyond / self.rest)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Where the calibration's cases lie, and how far out is usual.

    The median is taken and not the largest: in trials one odd case among sixteen let scans pass whose HU were 500 too low.

    Attributes:
        among: All cases.
        usual: The median distance of a case from those of the other patients.
    """

    among: Gaussian
    usual: float

    @classmethod
    def around(cls, rows: Float64[np.ndarray, "case feature"], patients: Sequence[Hashable]) -> Neighbourhood:
        """The neighbourhood of the rows."""
        away = [Gaussian.of(rows[rest]).distance(row) for group, rest in _each(patients) for row in rows[group]]
        return cls(Gaussian.of(rows), max(float(np.median(away)), _TINY))

    def far(self, row: Float64[np.ndarray, " feature"]) -> float:
        """How far out a row lies; 1 is usual among the calibration's cases."""
        return self.among.distance(row) / self.usual


SPACES: Final[dict[str, Callable[[Signs], np.ndarray]]] = {
    "features": lambda signs: signs.features,
    "lung HU": lambda signs: signs.lung_hu,
}
"""In what a scan can be unlike others."""


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the calibration as JSON, with what it says of its own error.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    cases = [asdict(case) | {"signs": _plain(case.signs)} for case in calibration.cases]
    text = {"format": _FORMAT, "model": calibration.model, "left_out": calibration.left_out, "cases": cases}
    write_json(path, text | {"says": describe(calibration)})


def read_calibration(path: Path) -> Calibration:
    """Read what ``write_calibration`` wrote.

    Raises:
        FileFormatError: No calibration, damaged, or of another version.
        CohortError: Fewer than five patients.
    """
    try:
        text = json.loads(path.read_text())
        if text["format"] != _FORMAT:
            raise ValueError(f"format {text['format']}, this version reads {_FORMAT}")
        cases = tuple(_labelled(case) for case in text["cases"])
        calibration = Calibration(str(text["model"]), cases, tuple((case, why) for case, why in text["left_out"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"{path.name} is not a calibration of this version ({type(error).__name__}: {error}); calibrate again."
        ) from error
    require_enough(calibration)
    return calibration


def describe(calibration: Calibration) -> dict[str, Any]:
    """What a calibration says of its own error, as plain values."""
    return {
        "cases": len(calibration.cases),
        "patients": len(set(calibration.patients)),
        "cohorts": sorted({case.cohort for case in calibration.cases}),
        "half_width_90": calibration.half_width,
        "gain_over_mean_95": calibration.gain,
        "beats_mean": calibration.beats_mean,
        "held_out": [
            {"left_out": held.left_out, "groups": held.groups, "mae": held.mae, "mae_of_mean": held.mae_of_mean}
            for held in (calibration.by_patient, calibration.by_cohort)
            if held
        ],
    }


def require_enough(calibration: Calibration) -> None:
    """Refuse a calibration on too few.

    Raises:
        CohortError: Fewer than five patients.
    """
    if len(set(calibration.patients)) < _FEWEST:
        why = "; ".join(sorted({reason for _, reason in calibration.left_out})) or "there are no more"
        raise CohortError(
            f"A forecast is calibrated on {_FEWEST} patients or more that can be learned from; got "
            f"{len(set(calibration.patients))} ({len(calibration.left_out)} cases were left out: {why}). Label more scans."
        )


def _each(groups: Sequence[Hashable]) -> Iterator[tuple[Bool[np.ndarray, " case"], Bool[np.ndarray, " case"]]]:
    """Members of each group, and all others."""
    for name in dict.fromkeys(groups):
        group = np.array([one == name for one in groups])
        yield group, ~group


def _mean_by(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    return np.array([values[group].mean() for group, _ in _each(groups)])


def _plain(signs: Signs) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(signs).items()}


def _labelled(text: dict[str, Any]) -> Labelled:
    signs = text["signs"] | {name: np.array(text["signs"][name], dtype=np.float64) for name in ("features", "lung_hu")}
    return Labelled(**text | {"signs": Signs(**signs), "scans": tuple(text["scans"])})
