"""Are these Hounsfield units, and if not, what are they and what is the way back?

A chest has its own scale in it: air around the body, lung, fat, and muscle or organs as the densest large tissue. Where these lie among
the stored values says how they were made: shifted by an offset, or drawn through a window to 0..255 or 0..4095. A known window is taken
where it explains what is seen; else the straight line through air and muscle is given as an estimate, and called one.

HU of the landmarks: Kalender, Computed Tomography, 3rd edition, 2011, chapter 1 (air -1000, fat about -100, muscle and liver 40 to 60). The
window of the Radiopaedia scans of Zenodo 3757476 is that of Ma et al.: HU = v * 1500 / 255 - 1250.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungshift.audit.finding import Finding, Severity
from lungshift.ct.volume import Volume

AIR_HU, LUNG_HU, FAT_HU, TISSUE_HU = -1000.0, -860.0, -100.0, 45.0
"""Where the landmarks of a chest lie."""
_OFF = {"air": 20.0, "lung": 90.0, "fat": 25.0, "tissue": 25.0}
"""HU by which they may be off in a healthy scan of any kernel, contrast or noise: about one standard deviation."""
WINDOWS: tuple[tuple[float, float], ...] = (
    (1500, -500),
    (1500, -600),
    (1600, -600),
    (1400, -500),
    (1400, -450),
    (1400, -300),
    (1200, -600),
    (1350, -550),
    (1500, -700),
    (1700, -600),
    (2000, -500),
    (2000, 0),
    (820, -560),
    (350, 40),
    (400, 40),
    (450, 50),
    (4095, 1023.5),
)
"""Widths and levels in HU that pictures of the chest are made with; (1500, -500) is that of Ma et al., (820, -560) the paper's."""

Planes = Sequence[np.ndarray] | np.ndarray
"""Slices of a scan, one after another."""

_Found = Callable[[str, Severity, str, str], Finding]
_TOPS = (1.0, 255.0, 4095.0, 65535.0)
_OFFSETS = (-1024.0, -1000.0, -32768.0)
_MOST_MISFIT = 2.5
_HU_OFF = 60.0
"""HU by which air or muscle may be off before a scan in HU is said to be out of calibration."""
_PICKED, _STEPS = 24, 65536
_FLOOR_SHARE, _TOP_SHARE = 0.05, 0.002
_COARSE_HU = 2.0
_LEAST_BODY, _FEWEST, _CUT_SHARE, _AIR_SHARE = 0.02, 200, 0.25, 0.3
_SKIN_PX = (4, 14)
_PEAK_SHARE, _TOP_EDGE = 0.2, 0.03
_KERNEL_HU = 16.0


@dataclass(frozen=True)
class Landmarks:
    """Where a chest's landmarks lie among stored values.

    Attributes:
        low, high: The lowest and the highest value.
        at_low, at_high: Share of the lungs at ``low``, and of the body at ``high``.
        levels: How many different values occur.
        step: The usual distance between neighbouring values from lung to muscle.
        air, lung, fat, tissue: Values of air around the body, of the lungs, of fat, and of muscle and organs; NaN where it is not seen.
    """

    low: float
    high: float
    at_low: float
    at_high: float
    levels: int
    step: float
    air: float
    lung: float
    fat: float
    tissue: float

    def seen(self) -> dict[str, float]:
        """The landmarks that tell something: those not cut off at either end of the values."""
        spread = max(self.high - self.low, 1e-9)
        ends = (self.low + 0.004 * spread, self.high - 0.004 * spread)
        found = {"air": self.air, "lung": self.lung, "fat": self.fat, "tissue": self.tissue}
        return {name: value for name, value in found.items() if ends[0] < value < ends[1]}


@dataclass(frozen=True)
class Scale:
    """The way from stored values to HU: HU = slope * value + intercept.

    Attributes:
        kind: ``hu``, ``offset``, ``window`` or ``estimate``.
        name: In words.
        slope, intercept: Of the line.
        misfit: How far the landmarks then lie from where they should, in standard deviations.
    """

    kind: str
    name: str
    slope: float
    intercept: float
    misfit: float

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values in HU, as whole numbers in int16."""
        hu = np.rint(values.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept))
        return np.asarray(hu.clip(-32768, 32767).astype(np.int16))

    @property
    def formula(self) -> str:
        """``HU = value * slope + intercept``."""
        return f"HU = value * {self.slope:.6g} {'-' if self.intercept < 0 else '+'} {abs(self.intercept):.6g}"


HU = Scale("hu", "HU", 1.0, 0.0, 0.0)


def measure_landmarks(slices: Planes) -> Landmarks:
    """Find the landmarks of a chest in stored values of any scale.

    Args:
        slices: (row, column) planes, or a (slice, row, column) array. All are counted; some in the middle are looked at.
    """
    seen = SeenValues(len(slices), range_of(slices))
    for plane in slices:
        seen.count(np.asarray(plane))
    looks = seen.looks()
    for index in looks.picked:
        looks.see(int(index), np.asarray(slices[index]))
    return looks.landmarks()


def range_of(slices: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Lowest and highest value where they are floating point, which must be known before they are counted; None of whole numbers."""
    low, high = np.inf, -np.inf
    for plane in slices:
        if np.asarray(plane).dtype.kind != "f":
            return None
        low, high = min(low, float(np.min(plane))), max(high, float(np.max(plane)))
    return low, high


class SeenValues:
    """Every value that occurs in a scan and how often, counted while its slices pass; floating point is looked at in 65,536 steps.

    Args:
        slices: How many slices there are.
        limits: ``range_of`` them.
    """

    def __init__(self, slices: int, limits: tuple[float, float] | None) -> None:
        self._slices, self._limits, self._low = slices, limits, 0
        self._counts = np.zeros(0 if limits is None else _STEPS, np.int64)
        self._step = 1.0 if limits is None else max((limits[1] - limits[0]) / (_STEPS - 1), 1e-12)

    def count(self, plane: np.ndarray) -> None:
        """Count one slice; in any order."""
        if self._limits is not None:
            steps = np.rint((plane.astype(np.float64) - self._limits[0]) / self._step).astype(np.int64)
        else:
            self._make_room(int(plane.min()), int(plane.max()))
            steps = plane.astype(np.int64) - self._low
        self._counts += np.bincount(steps.ravel(), minlength=len(self._counts))

    def looks(self) -> Looks:
        """What takes a second look at some slices, once all are counted."""
        start = self._low if self._limits is None else self._limits[0]
        values = np.flatnonzero(self._counts) * self._step + start
        return Looks(values, self._counts[self._counts > 0], self._slices)

    def _make_room(self, low: int, high: int) -> None:
        if not len(self._counts):
            self._low = low
        below, above = max(0, self._low - low), max(0, high + 1 - self._low - len(self._counts))
        if below or above:
            self._counts, self._low = np.pad(self._counts, (below, above)), self._low - below


class Looks:
    """Where air, lung, fat and muscle lie, from some slices in the middle of a scan whose values were counted.

    Attributes:
        picked: The slices that are looked at.
    """

    def __init__(self, values: np.ndarray, counts: np.ndarray, slices: int) -> None:
        self._values, self._counts, self._edge = values, counts, _otsu(values, counts)
        places = np.linspace(0.15 * slices, 0.85 * (slices - 1), min(slices, _PICKED))
        self.picked: frozenset[int] = frozenset(places.astype(int).tolist())
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def see(self, index: int, plane: np.ndarray) -> None:
        """Look at a slice, if it is one of those; in any order."""
        if index in self.picked:
            self._seen.append(_look(plane.astype(np.float32), self._edge))

    def landmarks(self) -> Landmarks:
        """The landmarks, once all were seen."""
        values, counts = self._values, self._counts
        low, high = float(values[0]), float(values[-1])
        air, lung, tissue = (np.concatenate(part) for part in zip(*self._seen, strict=True))
        middle = _median(lung)
        fat, muscle = _tissues(tissue, middle, low, high)
        used = values[(values >= (middle if np.isfinite(middle) else low)) & (values <= muscle)]
        step = float(np.median(np.diff(used))) if len(used) > 8 else float(np.median(np.diff(values)))
        return Landmarks(
            low,
            high,
            float(np.mean(lung <= low)) if len(lung) else 0.0,
            float(counts[-1] / max(1, counts[values > self._edge].sum())),
            len(values),
            step,
            _air(air, middle, muscle),
            middle,
            fat,
            muscle,
        )


def identify_scale(marks: Landmarks) -> Scale | None:
    """How stored values were made from HU; None where nothing fits.

    HU are believed before an offset, an offset before a known window, a known window before an estimate: the first kind that fits wins, and
    within it the best fit.
    """
    for candidates in (_as_hu(marks), _offsets(marks), _windows(marks), _estimate(marks)):
        fitting = [one for one in candidates if one.misfit <= _MOST_MISFIT]
        if fitting:
            return min(fitting, key=lambda one: one.misfit)
    return None


def intensity_findings(
    slices: Planes | Volume, *, case: str = "case", cohort: str = "", error: str = ""
) -> tuple[tuple[Finding, ...], Scale | None]:
    """What is wrong with the values of a scan, and the way to HU.

    Args:
        slices: Planes as they are stored, or a volume read with ``require_hu=False``.
        case: Id for the findings.
        cohort: Name for the findings.
        error: Code with which reading the scan ended, if it did.

    Returns:
        The findings, and the scale: ``HU`` itself for a scan in HU, None where there is no way back.
    """
    planes = slices.hu if isinstance(slices, Volume) else slices
    return landmark_findings(measure_landmarks(planes), case=case, cohort=cohort, error=error)


def landmark_findings(
    marks: Landmarks, *, case: str = "case", cohort: str = "", error: str = ""
) -> tuple[tuple[Finding, ...], Scale | None]:
    """The same from landmarks that were measured before."""
    scale = identify_scale(marks)
    numbers = _numbers(marks, scale)

    def found(code: str, severity: Severity, evidence: str, remedy: str) -> Finding:
        return Finding(code, case, severity, evidence, remedy, cohort, numbers=numbers, error=error)

    if scale is None:
        return (
            found("not-hu", "error", f"{_range(marks)}; {_landmark_words(marks)}", "Get the original scan in HU."),
        ), None
    findings = []
    if scale.kind != "hu":
        findings.append(_not_hu(marks, scale, found))
    findings += _limits(marks, scale, found)
    return tuple(findings), scale


def _otsu(values: np.ndarray, counts: np.ndarray) -> float:
    """The value that parts dark from bright best (Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9, 1979)."""
    middle = np.clip(
        values, *np.quantile(np.repeat(values, np.ceil(counts / counts.sum() * 1e5).astype(int)), (0, 0.98))
    )
    weight = np.cumsum(counts) / counts.sum()
    mean = np.cumsum(counts * middle) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight))
    return float(values[int(np.nanargmax(np.where(np.isfinite(between), between, -1)))])


def _look(plane: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values around the body, inside the lungs, and of tissue (there the mean of some neighbours), in one slice; each may be empty."""
    nothing = np.zeros(0, np.float32)
    bright = plane > edge
    labels, count = ndimage.label(bright)
    if not count:
        return nothing, nothing, nothing
    largest = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    body = ndimage.binary_fill_holes(largest)
    if np.count_nonzero(body) < _LEAST_BODY * body.size:
        return nothing, nothing, nothing
    near, far = (ndimage.binary_dilation(body, iterations=step) for step in _SKIN_PX)
    lung = ndimage.binary_erosion(body & ~bright, iterations=2)
    size = 2 * round(plane.shape[1] / 240) + 1
    tissue = ndimage.binary_erosion(largest, iterations=size // 2 + 1)
    return plane[far & ~near], plane[lung], ndimage.uniform_filter(plane, size)[tissue]


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) > _FEWEST else float("nan")


def _peaks(values: np.ndarray, kernel: float) -> list[tuple[float, float]]:
    """The values that are more frequent than those beside them, in order, and how frequent they are, 1 the most."""
    low, high = (float(end) for end in np.percentile(values, (0.1, 99.9)))
    width = max((high - low) / 511, kernel / 6)
    counts = np.bincount(np.rint((values.clip(low, high) - low) / width).astype(int), minlength=3)
    density = np.pad(ndimage.gaussian_filter1d(counts.astype(np.float64), kernel / width, mode="constant"), 1)
    at = np.flatnonzero((density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:]))
    return [(low + float(place) * width, float(density[place + 1] / density.max())) for place in at]


def _air(air: np.ndarray, lung: float, tissue: float) -> float:
    """The darkest of the frequent values around the body: neither table, clothes nor the blur of the skin."""
    if len(air) < _FEWEST or not np.isfinite(lung) or not tissue > lung:
        return _median(air)
    lowest = float(air.min())
    if np.mean(air <= lowest) > _CUT_SHARE:
        return lowest
    kernel = _KERNEL_HU * (tissue - lung) / (TISSUE_HU - LUNG_HU)
    return next(value for value, height in _peaks(air, kernel) if height >= _AIR_SHARE)


def _tissues(tissue: np.ndarray, lung: float, low: float, high: float) -> tuple[float, float]:
    """Fat and muscle: the two peaks of what is bright; muscle is the brighter, and all there is where only one is seen.

    Where much is cut off at the highest value, muscle is, and the brightest peak is fat.
    """
    cut = tissue >= high - _TOP_EDGE * (high - low)
    all_cut = len(cut) > 0 and float(cut.mean()) > _CUT_SHARE
    tissue = tissue[~cut]
    if len(tissue) < _FEWEST or not np.isfinite(lung):
        return float("nan"), _median(tissue)
    hu = max((float(np.median(tissue)) - lung) / (TISSUE_HU - LUNG_HU), 1e-9)
    peaks = [(value, height) for value, height in _peaks(tissue, _KERNEL_HU * hu) if height >= _PEAK_SHARE]
    if all_cut:
        return peaks[-1][0], high
    muscle = peaks[-1][0]
    below = [peak for peak in peaks[:-1] if 60 * hu < muscle - peak[0] < 250 * hu]
    return max(below, key=lambda peak: peak[1])[0] if below else float("nan"), muscle


def _misfit(marks: Landmarks, slope: float, intercept: float) -> float:
    """Root mean square of how far each landmark that is seen lies from where it should, in its standard deviations."""
    true = {"air": AIR_HU, "lung": LUNG_HU, "fat": FAT_HU, "tissue": TISSUE_HU}
    off = [(value * slope + intercept - true[name]) / _OFF[name] for name, value in marks.seen().items()]
    if "tissue" not in marks.seen() and np.isfinite(marks.tissue):
        # muscle is cut off, so its true HU lie at or above what the highest value stands for
        off.append(max(0.0, marks.high * slope + intercept - TISSUE_HU) / _OFF["tissue"])
    for name in ("air", "lung"):
        if np.isfinite(getattr(marks, name)) and name not in marks.seen():
            # it is cut off, so its true HU lie at or below what the lowest value stands for
            off.append(min(0.0, marks.low * slope + intercept - true[name]) / _OFF[name])
    if len(off) < 2:
        return float("inf")
    return float(np.sqrt(np.mean(np.square(off))))


def _as_hu(marks: Landmarks) -> list[Scale]:
    return [Scale("hu", "HU", 1.0, 0.0, _misfit(marks, 1.0, 0.0))] if marks.low < 0 else []


def _offsets(marks: Landmarks) -> list[Scale]:
    """HU shifted by a constant: one of the usual ones, or by what air and muscle say."""
    usual = [by for by in _OFFSETS if marks.low >= 0]
    by = (AIR_HU - marks.air + TISSUE_HU - marks.tissue) / 2
    measured = [float(round(by))] if np.isfinite(by) else []
    for some in (usual, measured):
        found = [Scale("offset", f"HU {-by:+.0f}", 1.0, by, _misfit(marks, 1.0, by)) for by in some]
        if any(one.misfit <= _MOST_MISFIT for one in found):
            return found
    return []


def _top(marks: Landmarks) -> float:
    """The highest value that can be stored where ``high`` is: 1, 255, 4095 or 65535."""
    return next((top for top in _TOPS if marks.high <= top * 1.001), marks.high)


def _windows(marks: Landmarks) -> list[Scale]:
    """Every known window, over as many values as are in use."""
    if marks.low < -1e-3 * max(1.0, marks.high):
        return []
    top = _top(marks)
    found = []
    for width, level in WINDOWS:
        slope, intercept = width / top, level - width / 2
        name = f"a window of width {width:g} and level {level:g} HU in 0..{top:g}"
        found.append(Scale("window", name, slope, intercept, _misfit(marks, slope, intercept)))
    return found


def _estimate(marks: Landmarks) -> list[Scale]:
    """The straight line through the darkest and the brightest landmark."""
    seen = marks.seen()
    true = {"air": AIR_HU, "fat": FAT_HU, "lung": LUNG_HU, "tissue": TISSUE_HU}
    dark = next((name for name in ("air", "lung", "fat") if name in seen), "")
    if not dark or "tissue" not in seen or seen["tissue"] <= seen[dark]:
        return []
    slope = (TISSUE_HU - true[dark]) / (seen["tissue"] - seen[dark])
    intercept = TISSUE_HU - slope * seen["tissue"]
    return [
        Scale("estimate", f"the line through {dark} and muscle", slope, intercept, _misfit(marks, slope, intercept))
    ]


def _numbers(marks: Landmarks, scale: Scale | None) -> dict[str, float]:
    named = {name: getattr(marks, name) for name in ("low", "high", "levels", "step", "air", "lung", "fat", "tissue")}
    line = {} if scale is None else {"slope": scale.slope, "intercept": scale.intercept, "misfit": scale.misfit}
    return {name: float(value) for name, value in (named | line).items()}


def _range(marks: Landmarks) -> str:
    return f"values run from {marks.low:g} to {marks.high:g} in {marks.levels} levels"


def _landmark_words(marks: Landmarks) -> str:
    parts = [("air", marks.air), ("lung", marks.lung), ("fat", marks.fat), ("muscle", marks.tissue)]
    return (
        ", ".join(f"{name} at {value:.4g}" for name, value in parts if np.isfinite(value)) or "no chest is seen in them"
    )


def _not_hu(marks: Landmarks, scale: Scale, found: _Found) -> Finding:
    code = "not-hu-offset" if scale.kind == "offset" else "not-hu-window"
    how = {
        "offset": f"as in {scale.name}",
        "window": f"as in {scale.name}",
        "estimate": f"no known window fits; {scale.name} gives a width of about {_top(marks) * scale.slope:.0f} HU",
    }[scale.kind]
    sure = (
        ""
        if scale.kind != "estimate"
        else " This is an estimate: expect errors of some 30 HU, and get the original if you can."
    )
    remedy = f"Get the original scan, or write a corrected copy with --repair ({scale.formula}).{sure}"
    severity: Severity = "warning" if scale.kind == "offset" and marks.low < -900 else "error"
    return found(code, severity, f"{_range(marks)}; {_landmark_words(marks)}: {how}", remedy)


def _limits(marks: Landmarks, scale: Scale, found: _Found) -> Iterable[Finding]:
    """What the scale cannot bring back: steps, and both ends."""
    step, floor, top = (
        marks.step * scale.slope,
        marks.low * scale.slope + scale.intercept,
        marks.high * scale.slope + scale.intercept,
    )
    if step >= _COARSE_HU:
        yield found(
            "few-levels",
            "warning" if step > 16 else "note",
            f"{marks.levels} levels, {step:.1f} HU apart between lung and muscle",
            "Textures finer than a step are gone; get the original if they matter.",
        )
    if marks.at_high > _TOP_SHARE and top < 1000:
        yield found(
            "saturated",
            "warning" if top < 100 else "note",
            f"{100 * marks.at_high:.1f} % of the body is at the highest value, {top:.0f} HU",
            "Nothing above it can be told apart"
            + (", consolidation among it." if top < 100 else "; the lungs are not touched."),
        )
    if marks.at_low > _FLOOR_SHARE and floor > -1010:
        yield found(
            "floor",
            "warning" if floor > -960 else "note",
            f"{100 * marks.at_low:.1f} % of the lungs is at the lowest value, {floor:.0f} HU",
            "Nothing below it can be told apart"
            + (", healthy lung among it." if floor > -960 else "; lesions are not touched."),
        )
