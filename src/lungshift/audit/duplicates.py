"""Cases that are one scan, or scans of one patient, by their content, whatever their ids say.

All chests are alike, so the outline of the body or of the lungs tells nobody apart. The inside of the lungs does: vessels and lesions,
less the brightness around them. A fingerprint holds it at some places from foot to head, each cut to its lung box and shrunk, so that
pixel size, place in the picture, scale and offset of the HU hardly matter, nor, as neighbours are averaged, does slice thickness. Two
fingerprints are laid on each other in every way that one scan can be a part of another: turned round, cut, stretched. Millimetres are
not asked, for headers can be wrong about them: two known reconstructions of one scan have 198 and 354 mm of lung by theirs.

Parts of one scan that do not overlap have no slice in common. Where a scan ends in the middle of the lungs, its last slice is held
against the ends of others, pixel on pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64
from scipy import ndimage

from lungshift.errors import LeakageError
from lungshift.prepare.prepared import WHOLE, Place, PreparedCohort

SAME_SCAN, SAME_PATIENT, NEXT_SLICE = 0.85, 0.40, 0.5
"""Likeness of two cases from which on they are one scan, or of one patient; and of two slices that must be neighbours."""
_OTHERS, _OTHERS_SLICE = 0.35, 0.49
"""The most that was ever found between two people, of 19 real and 68 made-up ones, and parts of scans; whole scans stay below 0.27."""

_PLACES, _LEAST_PLACES, _AVERAGED = 24, 8, 3
_GRID, _END_GRID, _NEAR = 32, 80, 9
_LEAST_SIDE = 24
"""Pixels of a lung box; with fewer the vessels are gone, and everyone is alike."""
_SMALL, _CUT = 0.15, 0.3
"""Shares of a scan's largest slice of lung: below the one it is too small to be looked at, above the other it is no natural end."""
_DARKEST, _BRIGHTEST = -0.2, 0.4
"""Where 0 is the middle of the lungs and 1 what lies around them: neither consolidation nor a narrow window reaches beyond."""
_STEEPEST, _SLOPES, _STEPS, _LEAST_SHARE = 3.0, 23, 96, 0.5


@dataclass(frozen=True)
class Twins:
    """Two cases whose lungs are too much alike to be of two patients.

    Attributes:
        first, second: Cohort and case id of each.
        patients: Their patient ids.
        kind: ``same scan`` or ``same patient``.
        likeness: Between 0 and 1.
        reason: What was compared and found, in words.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    patients: tuple[str, str]
    kind: str
    likeness: float
    reason: str

    def __str__(self) -> str:
        named = zip((self.first, self.second), self.patients, strict=True)
        cases = " and ".join(f"{case} of {cohort} (patient {patient})" for (cohort, case), patient in named)
        return f"{cases} look like the {self.kind}: {self.reason}"

    @property
    def cohorts(self) -> frozenset[str]:
        """The one cohort or the two that they are of."""
        return frozenset((self.first[0], self.second[0]))


def find_twins(*cohorts: PreparedCohort) -> tuple[Twins, ...]:
    """Find cases that are one scan or of one patient, within and across cohorts, in their order.

    A scan is found again mirrored or upside down, cut to half, moved or at another scale, with other slice thickness, kernel, noise,
    HU offset or window, and with another lung mask; so is a patient who lay and breathed nearly as before. Who has changed much, or
    lies turned by more than some four degrees, is not. Cases with fewer than eight slices of lung, and lungs of fewer
    than 24 pixels, cannot be told apart and are never called twins.

    Args:
        cohorts: Prepared, of different names, at any size.
    """
    taken = (take_fingerprint(cohort, number) for cohort in cohorts for number in range(len(cohort.cases)))
    return find_twins_among(filter(None, taken))


def find_twins_among(fingerprints: Iterable[Fingerprint]) -> tuple[Twins, ...]:
    """As ``find_twins``, of cases whose fingerprints were taken before."""
    pairs = (_compare(first, second) for first, second in combinations(fingerprints, 2))
    return tuple(twins for twins in pairs if twins)


def group_patients(cohort: PreparedCohort, twins: Iterable[Twins]) -> tuple[str, ...]:
    """Patient of every case of a cohort; patients of whom twins were found are one, called by their ids joined with ``+``."""
    together = {case.patient_id: frozenset({case.patient_id}) for case in cohort.cases}
    for _, one, other in _within(cohort, twins):
        merged = together[one] | together[other]
        together |= dict.fromkeys(merged, merged)
    return tuple("+".join(sorted(together[case.patient_id])) for case in cohort.cases)


def require_whole(cohort: PreparedCohort, twins: Iterable[Twins]) -> None:
    """Refuse a cohort whose patient ids would let a split tear one patient apart.

    It is for cohorts that came with patient ids; without (``Cohort.patients_known``), ``group_patients`` makes them.

    Raises:
        LeakageError: Twins have two patient ids (code ``E_TWINS``).
    """
    torn = [pair for pair, one, other in _within(cohort, twins) if one != other]
    _refuse(
        torn,
        "A split by patient could train on one and test the other: give both one patient id in the manifest, or leave one out.",
    )


def require_apart(source: PreparedCohort, target: PreparedCohort, twins: Iterable[Twins]) -> None:
    """Refuse two cohorts that share a scan or a patient.

    Raises:
        LeakageError: Twins stand in both (code ``E_TWINS``).
    """
    shared = [pair for pair in twins if pair.cohorts == {source.name, target.name} and source.name != target.name]
    _refuse(shared, "A model would be tested on what it learned: leave one of the two out.")


def _within(cohort: PreparedCohort, twins: Iterable[Twins]) -> Iterator[tuple[Twins, str, str]]:
    """Twins inside one cohort, each with the two patients that the cohort has for them now."""
    patient = {case.case_id: case.patient_id for case in cohort.cases}
    for pair in twins:
        if pair.cohorts == {cohort.name}:
            yield pair, patient[pair.first[1]], patient[pair.second[1]]


def _refuse(found: list[Twins], remedy: str) -> None:
    if found:
        more = f"; and {len(found) - 3} pairs more" if len(found) > 3 else ""
        raise LeakageError(f"{'; '.join(map(str, found[:3]))}{more}. {remedy}", code="E_TWINS")


class _Look(NamedTuple):
    """One place of a scan, shrunk: the mean HU of some neighbouring slices, and the share of them that is lung."""

    hu: Float32[np.ndarray, "row column"]
    lung: Float32[np.ndarray, "row column"]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of a case.

    Attributes:
        who: Cohort and case id.
        inside: Texture at places from foot to head, each in its lung box.
        ends: Texture of the first and the last slice as they lie in the picture; only of those that cut through the lungs.
    """

    who: tuple[str, str]
    patient: str
    inside: Float32[np.ndarray, "place row column"]
    ends: tuple[Float32[np.ndarray, "row column"], ...]


def take_fingerprint(cohort: PreparedCohort, number: int) -> Fingerprint | None:
    """The fingerprint of a case, for which some 75 of its slices are read; None where it would tell nothing."""
    case, rows = cohort.cases[number], np.flatnonzero(cohort.table["case"] == number)
    looks = [_look(cohort, near, _box(cohort, middle), _GRID) for near, middle in _places(cohort, rows)]
    scale = _scale(looks)
    if scale is None:
        return None
    ends = [_look(cohort, row[None], WHOLE, _END_GRID) for row in _cut_ends(cohort, rows)]
    return Fingerprint(
        (cohort.name, case.case_id),
        case.patient_id,
        _texture(looks, scale),
        tuple(_texture([end], scale)[0] for end in ends),
    )


def _places(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> Iterator[tuple[np.ndarray, np.integer]]:
    """Places spread evenly over the slices with enough lung: the rows to be averaged, and the one in the middle."""
    lung = cohort.table["lung"][rows]
    rows = rows[(lung > 0) & (lung >= _SMALL * lung.max())]
    top, bottom, left, right = cohort.table["box"][rows].T
    if len(rows) < _LEAST_PLACES or np.median(np.minimum(bottom - top, right - left)) < _LEAST_SIDE:
        return
    places = np.linspace(0, len(rows) - 1, min(_PLACES, len(rows)))
    around = (np.arange(_AVERAGED) - (_AVERAGED - 1) / 2) * (places[1] / _AVERAGED)
    for place in places:
        near = np.rint(place + around).clip(0, len(rows) - 1).astype(int)
        yield rows[np.unique(near)], rows[round(place)]


def _cut_ends(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " end"]:
    """First and last slice of a scan, each if there is so much lung in it that the lungs must go on."""
    lung = cohort.table["lung"][rows]
    ends = np.array([0, len(rows) - 1])
    return rows[ends[lung[ends] >= _CUT * lung.max()]]


def _box(cohort: PreparedCohort, row: np.integer) -> Place:
    top, bottom, left, right = map(int, cohort.table["box"][row])
    return slice(top, bottom), slice(left, right)


def _look(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"], place: Place, side: int) -> _Look:
    parts = zip(*((cohort.hu(row, place), cohort.lung(row, place)) for row in rows), strict=True)
    return _Look(*(_shrink(np.asarray(np.mean(part, axis=0, dtype=np.float32)), side) for part in parts))


def _shrink(picture: Float32[np.ndarray, "row column"], side: int) -> Float32[np.ndarray, "side side"]:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def _scale(looks: list[_Look]) -> tuple[float, float] | None:
    """HU of the lungs and of what lies around them, whatever the offset and window; None if the latter is not brighter."""
    if not looks:
        return None
    hu, lung = (np.stack(part) for part in zip(*looks, strict=True))
    inside, around = hu[lung > 0.95], hu[lung < 0.05]
    if not len(inside) or not len(around) or np.median(inside) >= np.median(around):
        return None
    return float(np.median(inside)), float(np.median(around))


def _texture(looks: list[_Look], scale: tuple[float, float]) -> Float32[np.ndarray, "place row column"]:
    """Inside of the lungs less the mean of its surroundings there, of length 1 at each place; 0 elsewhere and at the edge."""
    hu, lung = (np.stack(part) for part in zip(*looks, strict=True))
    level = ((hu - scale[0]) / (scale[1] - scale[0])).clip(_DARKEST, _BRIGHTEST)
    core = ndimage.binary_erosion(lung > 0.5, np.ones((1, 3, 3), dtype=bool)).astype(np.float32)
    total, count = (ndimage.uniform_filter(part, (0, _NEAR, _NEAR)) for part in (level * core, core))
    texture = (level - total / np.maximum(count, 1e-3)) * core
    length = np.sqrt(np.sum(texture**2, axis=(1, 2), keepdims=True))
    return np.asarray(texture / np.maximum(length, 1e-6), dtype=np.float32)


def _compare(first: Fingerprint, second: Fingerprint) -> Twins | None:
    who, patients = (first.who, second.who), (first.patient, second.patient)
    likeness, turned = _best_fit(first.inside, second.inside)
    if likeness >= SAME_PATIENT:
        kind = "same scan" if likeness >= SAME_SCAN else "same patient"
        reason = f"laid on each other{turned}, the insides of their lungs correlate by {likeness:.2f}; of two people by less than {_OTHERS:.2f}"
        return Twins(*who, patients, kind, min(likeness, 1.0), reason)
    likeness = max((float(np.sum(one * other)) for one, other in product(first.ends, second.ends)), default=0.0)
    if likeness >= NEXT_SLICE:
        reason = (
            f"the one begins where the other ends, with slices that correlate by {likeness:.2f} inside the lungs; of two people by less than "
            f"{_OTHERS_SLICE:.2f}"
        )
        return Twins(*who, patients, "same patient", min(likeness, 1.0), reason)
    return None


def _best_fit(
    first: Float32[np.ndarray, "place row column"], second: Float32[np.ndarray, "other row column"]
) -> tuple[float, str]:
    """The highest mean correlation over all ways to lay two scans on each other, and in words how the one is turned for it.

    It is 0 where no way can reach ``SAME_PATIENT``, as not even the places that fit best would, each laid where it likes.
    """
    lines, upside_down = _lines(len(first), len(second))
    places, met = np.arange(len(first)), np.sum(lines < len(second), axis=1)
    found = [(0.0, False, False, False)]
    for up_down, left_right in product((1, -1), repeat=2):
        turned = first[:, ::up_down, ::left_right].reshape(len(first), -1)
        table = turned @ second.reshape(len(second), -1).T
        if np.sort(table.max(axis=1))[-_LEAST_PLACES:].mean() >= SAME_PATIENT:
            likeness = np.pad(table, ((0, 0), (0, 1)))[places, lines].sum(axis=1) / met
            best = int(likeness.argmax())
            found.append((float(likeness[best]), bool(upside_down[best]), up_down < 0, left_right < 0))
    likeness, *turns = max(found)
    words = [word for word, turn in zip(("head to foot", "front to back", "left to right"), turns, strict=True) if turn]
    return likeness, f", turned {' and '.join(words)}" if words else ""


@lru_cache(maxsize=32)
def _lines(first: int, second: int) -> tuple[Int16[np.ndarray, "line place"], Bool[np.ndarray, " line"]]:
    """Every way to lay some places along others, half of one scan at least, and whether head comes to foot by it.

    For each place it says which one it meets; ``second`` for none.
    """
    at = np.linspace(-0.5, 0.5, first)
    slopes = np.geomspace(1 / _STEEPEST, _STEEPEST, _SLOPES)
    slopes, middles = (
        grid.reshape(-1, 1) for grid in np.meshgrid([*slopes, *-slopes], np.linspace(-0.5, 1.5, 2 * _STEPS + 1))
    )
    there = middles + slopes * at
    meets = (there >= 0) & (there <= 1)
    share = meets.mean(axis=1, keepdims=True)
    of_second = np.minimum(1, share * np.abs(slopes))
    enough = (
        (np.maximum(share, of_second) >= _LEAST_SHARE)
        & (share * first >= _LEAST_PLACES)
        & (of_second * second >= _LEAST_PLACES)
    )
    lines = np.where(meets, np.rint(there * (second - 1)), second).astype(np.int16)
    kept, where = np.unique(lines[enough[:, 0]], axis=0, return_index=True)
    return kept, (slopes < 0)[enough][where]
