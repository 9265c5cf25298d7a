"""What an audit without a model finds, and what it calls wrong that is not: planted in phantoms, and in copies of the real cohorts.

    .venv/bin/python -m benchmarks.audit --output docs/benchmarks/audit

Phantoms are of seeds that no threshold was set on. The real part is skipped where the cohorts are absent. Every error is planted into a copy in
memory, one at a time, and the audit is asked what it sees; a finding counts where its code is the planted one's.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lungshift.audit.cohort import audit_cohorts
from lungshift.audit.completeness import completeness_findings
from lungshift.audit.finding import Finding, runs
from lungshift.audit.intensity import intensity_findings
from lungshift.audit.labels import label_findings
from lungshift.audit.orientation import AXES, FLIPPED, Orientation, judge_orientation
from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.io.bare import read_bare_cohort
from lungshift.io.cohort import read_cohort
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_errors import LabelError, LabelErrorKind, plant
from lungshift.prepare.phantom_site import FLIP_AXIS, SITE_A, SITE_B, Site

COHORTS = ("medseg9", "coronacases10")
WINDOWS = {
    "1500 / -500 (Ma et al.)": (1500, -500),
    "1500 / -600": (1500, -600),
    "1600 / -600": (1600, -600),
    "1400 / -500": (1400, -500),
}
SITES = {
    "A": SITE_A,
    "B, calibrated": replace(SITE_B, hu_offset=0.0),
    "B, slices of 2.5 mm": replace(SITE_B, hu_offset=0.0, slice_mm=2.5),
}
KINDS: dict[LabelErrorKind, tuple[str, ...]] = {
    "outside_lung": ("lesion-outside-lung", "lesion-without-lung", "lesion-in-bone"),
    "spurious": ("lesion-in-air",),
    "shifted": ("lesion-outside-lung", "lesion-in-air", "lesion-without-lung"),
    "dilated": ("too-wide",),
    "removed": (),
}
"""The codes that name each planted label error; nothing but a model can see a lesion that nobody marked."""
_PARTS_OF_THE_PAGE = ("phantoms", "cohorts", "copies", "labels")
_FLIPS = [axes for size in (1, 2, 3) for axes in combinations(range(3), size)]
_PARTS = {
    "lower half": (0.0, 0.5),
    "upper half": (0.5, 1.0),
    "middle": (0.25, 0.75),
    "lower third": (0.0, 1 / 3),
    "upper third": (2 / 3, 1.0),
}


def main() -> None:
    """Run the parts that are asked for and can be run, and write the page; a part that is not run is kept as it was."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data", type=Path, default=Path("../shared/data"))
    words.add_argument("--patients", type=int, default=20, help="clean phantom patients of each site")
    words.add_argument("--only", choices=_PARTS_OF_THE_PAGE)
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    page = asked.output / "README.md" if asked.output else None
    parts = _parts_of(page)
    there = (asked.data / COHORTS[0]).is_dir()
    if asked.only in (None, "phantoms"):
        parts["phantoms"] = "\n".join(phantoms(asked.patients))
    if asked.only in (None, "cohorts") and there:
        parts["cohorts"] = "\n".join(as_they_are(asked.data, asked.output))
    if asked.only in (None, "copies") and there:
        parts["copies"] = "\n".join(copies(asked.data))
    if asked.only in (None, "labels") and there:
        parts["labels"] = "\n".join(labels(asked.data))
    text = "\n".join([_head_of(page), *(f"<!-- {name} -->\n\n{part.strip()}\n" for name, part in parts.items())])
    print(text)
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)


def _head_of(page: Path | None) -> str:
    """What stands before the first part of an earlier page, for its summary is written by hand; or what the page is about."""
    head, mark, _ = (page.read_text() if page and page.exists() else "").partition(f"<!-- {_PARTS_OF_THE_PAGE[0]} -->")
    return head if mark else _about()


def _about() -> str:
    words = " ".join(str(__doc__).split("\n\n")[2].split())
    return f"# What an audit finds without a model\n\n{words} Written by `python -m benchmarks.audit`.\n"


def _parts_of(page: Path | None) -> dict[str, str]:
    """The parts of an earlier page; empty where there are none."""
    text = page.read_text() if page and page.exists() else ""
    pieces = [text.partition(f"<!-- {name} -->\n")[2].partition("\n<!-- ")[0] for name in _PARTS_OF_THE_PAGE]
    return dict(
        zip(
            _PARTS_OF_THE_PAGE,
            (one or "Not run: the real cohorts are not beside this checkout." for one in pieces),
            strict=True,
        )
    )


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [*("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]


# Phantoms


def phantoms(patients: int) -> list[str]:
    rows: list[tuple[object, ...]] = []
    planted = {name: _planted(site, patients) for name, site in SITES.items()}
    for name, site in SITES.items():
        cohort = phantom_cohort("clean", patients=patients, site=site, seed=901)
        found = [one for one in audit_cohorts([cohort]) if one.severity != "note"]
        alarmed = len({one.case for one in found})
        codes = ", ".join(f"{code} ({n})" for code, n in Counter(one.code for one in found).items()) or "none"
        rows.append((name, patients, alarmed, f"{10 * alarmed / patients:.1f}", codes))
    return [
        "## Phantoms",
        "",
        "Clean phantom scans with exact annotation: cases that have any error or warning, which are false alarms all.",
        "",
        *table(("site", "cases", "with a false alarm", "in ten", "codes"), rows),
        "One planted thing a case, and how often it is named for what it is. `removed` stands for what no audit without a model can see.",
        "",
        *table(("planted", *SITES), [(what, *(planted[name][what] for name in SITES)) for what in planted["A"]]),
    ]


def _planted(site: Site, patients: int) -> dict[str, str]:
    told: dict[str, str] = {}
    few = max(2, patients // 5)
    for flip in FLIP_AXIS:
        found = _by_case(phantom_cohort("p", patients=few, site=replace(site, flip=flip), seed=902))
        right = sum(f"flipped-{_axis(FLIP_AXIS[flip])}" in codes for codes in found)
        told[f"turned {flip.replace('_', ' to ')}"] = f"{right} of {few}"
    found = _by_case(phantom_cohort("p", patients=few, site=replace(site, eight_bit=True), seed=903))
    told["0 to 255"] = f"{sum('not-hu-window' in codes for codes in found)} of {few}"
    for kind, names in KINDS.items():
        errors = tuple(LabelError(kind, patient) for patient in range(few))
        found = _by_case(phantom_cohort("p", patients=few, site=site, seed=904, label_errors=errors))
        told[f"label error: {kind}"] = f"{sum(bool(codes & set(names)) for codes in found)} of {few}"
    return told


def _by_case(cohort: Cohort) -> list[set[str]]:
    found = defaultdict(set)
    for one in audit_cohorts([cohort]):
        found[one.case].add(one.code)
    return [found[record.case_id] for record in cohort.cases]


def _axis(number: int) -> str:
    return next(name for name, axis in AXES.items() if axis == number)


# Real cohorts


def as_they_are(data: Path, output: Path | None) -> list[str]:
    cohorts = [read_cohort(data / name) for name in COHORTS]
    more = [read_bare_cohort(data / "dicom" / name) for name in ("not_hu", "siemens_covid")]
    found = list(audit_cohorts([*cohorts, *more]))
    if output:
        pictures(cohorts, output)
    return _as_they_are(found)


def copies(data: Path) -> list[str]:
    cohorts = [read_cohort(data / name) for name in COHORTS]
    seen = Tally()
    for cohort in cohorts:
        for record in cohort.cases:
            seen.add(cohort.name, record.read())
    return [*_turned(seen), *_values(seen), *_slices(seen), *_doubled(cohorts)]


class Tally:
    """What was planted into copies of real cases, and what the audit said."""

    def __init__(self) -> None:
        self.named: Counter[tuple[str, str]] = Counter()
        self.planted: Counter[tuple[str, str]] = Counter()
        self.signs: dict[str, list[Orientation]] = defaultdict(list)
        self.errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.alarms: Counter[tuple[str, str]] = Counter()

    def add(self, cohort: str, case: Case) -> None:
        """Plant everything into copies of one case, one at a time."""
        assert case.lung is not None
        assert case.lesion is not None
        self._turn(cohort, case)
        self._window(cohort, case)
        self._cut(cohort, case)

    def count(self, cohort: str, what: str, right: bool) -> None:
        """One more thing was planted, and named for what it is or not."""
        self.planted[cohort, what] += 1
        self.named[cohort, what] += right

    def _turn(self, cohort: str, case: Case) -> None:
        volume, lung = case.volume, case.lung
        right = judge_orientation(volume, lung)
        self.signs[cohort].append(right)
        self.alarms[cohort, "whole scans, readers' lungs"] += bool(right.flipped)
        by_threshold = judge_orientation(volume, threshold_lungs(volume))
        self.alarms[cohort, "whole scans, lungs by threshold"] += bool(by_threshold.flipped)
        for axes in _FLIPS:
            turned = [np.ascontiguousarray(np.flip(one, axes)) for one in (volume.hu, lung.voxels)]
            found = judge_orientation(Volume(turned[0], volume.geometry), Mask(turned[1], volume.geometry))
            self.count(cohort, "turned, readers' lungs", set(found.flipped) == {_axis(axis) for axis in axes})
            if axes == (0,):
                scan = Volume(turned[0], volume.geometry)
                found = judge_orientation(scan, threshold_lungs(scan))
                self.count(cohort, "turned head to foot, lungs by threshold", found.flipped == ("head-foot",))
        for name, part in _PARTS.items():
            self.alarms[cohort, name] += bool(judge_orientation(*_part(volume, lung, part)).flipped)

    def _window(self, cohort: str, case: Case) -> None:
        hu = case.volume.hu.astype(np.float32)
        for name, (width, level) in WINDOWS.items():
            low = level - width / 2
            eight = np.rint(np.clip((hu - low) / width, 0, 1) * 255).astype(np.int16)
            _, scale = intensity_findings(eight)
            exact = scale is not None and (scale.kind, round(scale.intercept)) == ("window", round(low))
            self.count(cohort, f"0-255, {name}", bool(exact and abs(scale.slope - width / 255) < 1e-6))
            if scale is not None:
                inside = (hu > low) & (hu < low + width)
                off = np.abs(scale.apply(eight) - hu)[inside]
                self.errors[name].append((float(off.mean()), float(off.max())))
        for offset in (1024, 1000):
            _, scale = intensity_findings(np.maximum(case.volume.hu + offset, 0).astype(np.int16))
            self.count(cohort, f"HU +{offset}", bool(scale and (scale.kind, scale.intercept) == ("offset", -offset)))

    def _cut(self, cohort: str, case: Case) -> None:
        middle, reach = len(case.volume.hu) // 2, 20
        first = max(0, middle - reach)
        near, middle = case.volume.hu[first : middle + reach], middle - first
        for count_ in (1, 2, 3, 5):
            hu = np.delete(near, np.arange(middle, middle + count_), axis=0)
            found = completeness_findings(Volume(hu, _grid(hu, case.volume.geometry)))
            hit = any(one.code in ("slice-missing", "slice-spacing") and middle in one.slices for one in found)
            self.count(cohort, f"slices missing: {count_}", hit)
        hu = np.concatenate([near[: middle + 1], near[middle:]])
        found = completeness_findings(Volume(hu, _grid(hu, case.volume.geometry)))
        hit = any(one.code == "slice-doubled" and middle + 1 in one.slices for one in found)
        self.count(cohort, "a slice doubled", hit)

    def spoil_labels(self, cohort: str, case: Case) -> None:
        """Plant one label error of each kind into copies of a case."""
        before = label_findings(case)
        body = case.volume.hu > -300
        for number, (kind, names) in enumerate(KINDS.items()):
            rng = np.random.default_rng([7, number, len(case.volume.hu)])
            lesion, lung = case.lesion.voxels, case.lung.voxels
            wrong, planted = plant(rng, LabelError(kind, 0), lesion, lung, body, case.volume.geometry)
            ml = planted.voxels * case.volume.geometry.voxel_ml
            if ml < 0.1 or not names:
                continue
            spoilt = replace(case, lesion=Mask(np.ascontiguousarray(wrong), case.volume.geometry))
            there = set(planted.slices)
            hits, old = (
                Counter(one.code for one in found if one.code in names and set(one.slices) & there)
                for found in (label_findings(spoilt), before)
            )
            more = any(n > old[code] for code, n in hits.items())
            self.count(cohort, f"label error: {kind}", more)


def _grid(hu: np.ndarray, like: Geometry) -> Geometry:
    return Geometry.regular(hu.shape, like.spacing_mm)


def _part(volume: Volume, lung: Mask, part: tuple[float, float]) -> tuple[Volume, Mask]:
    used = np.flatnonzero(lung.voxels.any(axis=(1, 2)))
    low, high = (int(used[0] + share * (used[-1] + 1 - used[0])) for share in part)
    cut = slice(0 if part[0] == 0 else low, len(volume.hu) if part[1] == 1 else high)
    grid = _grid(volume.hu[cut], volume.geometry)
    return Volume(volume.hu[cut], grid), Mask(lung.voxels[cut], grid)


def _as_they_are(found: list[Finding]) -> list[str]:
    names = [*COHORTS, "not_hu", "siemens_covid"]
    codes = sorted(
        {(one.severity, one.code) for one in found}, key=lambda pair: ("error", "warning", "note").index(pair[0])
    )
    rows = []
    for severity, code in codes:
        some = [one for one in found if (one.severity, one.code) == (severity, code)]
        counts = [sum(one.cohort == name for one in some) for name in names]
        cases = [len({one.case for one in some if one.cohort == name}) for name in names]
        rows.append((severity, f"`{code}`", *(f"{n} in {c}" if n else "" for n, c in zip(counts, cases, strict=True))))
    grave = [
        one
        for one in found
        if one.severity == "error" or one.code in ("same-patient", "not-hu-offset", "slice-spacing")
    ]
    return [
        "## The real cohorts as they are",
        "",
        "Findings, and in how many cases. Nothing here was planted; whether a finding is right was looked at for those with a picture.",
        "",
        *table(("severity", "code", *names), rows),
        "The gravest in words:",
        "",
        *(f"- {one.cohort} {one.case}{_slices_of(one)}, `{one.code}`: {one.evidence}" for one in grave),
        "",
        "![Lesion of medseg9 case 1 where there is no lung](outside-lung.png)",
        "",
        "*The lesion marks farthest from any lung, medseg9 case 1: CT, and with lung outlined (white) and lesion filled (red). The paper's figure 6 shows such marks.*",
        "",
        "Both lie on something else: the wall of the bowel, and the letter R that is burnt into the picture. That letter and the slice below were found by looking at pictures "
        "of an earlier audit; what `burnt-in` and `slice-odd` look for was written after that, with these cohorts in view.",
        "",
        "![An odd slice of coronacases_007](odd-slice.png)",
        "",
        "*coronacases_007: the slice in the middle has another brightness than its neighbours.*",
        "",
    ]


def _slices_of(one: Finding) -> str:
    return f" slice {runs(one.slices)}" if one.slices else ""


def _turned(seen: Tally) -> list[str]:
    rates = [
        (what, *(f"{seen.named[name, what]} of {seen.planted[name, what]}" for name in COHORTS))
        for what in ("turned, readers' lungs", "turned head to foot, lungs by threshold")
    ]
    counts = {name: len(seen.signs[name]) for name in COHORTS}
    alarms = [
        (what, *(f"{seen.alarms[name, what]} of {counts[name]}" for name in COHORTS))
        for what in dict.fromkeys(what for _, what in seen.alarms)
    ]
    least = [(axis, *(f"{min(one.votes(axis) for one in seen.signs[name]):+.1f}" for name in COHORTS)) for axis in AXES]
    return [
        "## Turned scans",
        "",
        "Every scan turned in all seven ways, and named in exactly that way; with lungs by threshold only head to foot, where the trachea is looked for at the wrong end:",
        "",
        *table(("copies", *COHORTS), rates),
        "Scans that lie right and are called flipped, whole and cut to a part of the lungs:",
        "",
        *table(("scans", *COHORTS), alarms),
        f"The least certain scan of each cohort (votes; {FLIPPED:+.0f} and less is called flipped):",
        "",
        *table(("axis", *COHORTS), least),
        *_crossed(seen),
    ]


def _crossed(seen: Tally) -> list[str]:
    """The votes with units taken from one cohort by rule, on the other: a check that the units were not fitted to these scans."""
    rows = []
    for here, there in (COHORTS, COHORTS[::-1]):
        units = _units(seen.signs[here])
        for axis in AXES:
            sums = [_votes(one, axis, units) for one in seen.signs[there]]
            wrong, missed = sum(one <= FLIPPED for one in sums), sum(-one > FLIPPED for one in sums)
            rows.append((here, there, axis, f"{min(sums):+.1f}", wrong, missed, len(sums)))
    return [
        "The units of the votes are round numbers that were set with these scans in view. As a check, here they are taken by rule (half the median of each sign) from "
        "one cohort alone and tried on the other; `missed` are mirrored copies whose votes stay above the limit:",
        "",
        *table(("units from", "tried on", "axis", "least votes", "false alarms", "missed", "scans"), rows),
    ]


def _units(found: list[Orientation]) -> dict[tuple[str, str], float]:
    values = defaultdict(list)
    for one in found:
        for axis, signs in one.signs.items():
            for name, sign in signs.items():
                values[axis, name].append(sign.value)
    return {key: max(abs(float(np.median(some))) / 2, 1e-3) for key, some in values.items()}


def _votes(one: Orientation, axis: str, units: dict[tuple[str, str], float]) -> float:
    signs = one.signs[axis].items()
    return sum(
        float(np.clip(sign.value / units.get((axis, name), np.inf), -sign.most, sign.most)) for name, sign in signs
    )


def _values(seen: Tally) -> list[str]:
    whats = [what for name, what in seen.planted if name == COHORTS[0] and what.startswith(("0-255", "HU"))]
    rows = [(what, *(f"{seen.named[name, what]} of {seen.planted[name, what]}" for name in COHORTS)) for what in whats]
    errors = []
    for name, pairs in seen.errors.items():
        mean, most = np.array(pairs).T
        errors.append(
            (
                name,
                f"{np.median(mean):.1f}",
                f"{np.median(most):.1f}",
                f"{np.mean(most <= 6) * 100:.0f} %",
                f"{most.max():.0f}",
            )
        )
    return [
        "## Values that are not HU",
        "",
        "Copies of every scan as 0 to 255 through a window, or shifted; named are those whose window or offset is told exactly:",
        "",
        *table(("copy", *COHORTS), rows),
        "How far the repaired copies are from the scan, over the voxels inside the window (a step of 255 is 5.9 HU for a width of 1500, so half a step is the least that can "
        "be had). Where the window was named wrongly the error is a straight line's. The HU of `medseg9` are estimates themselves, and its fat and muscle lie up to 160 HU from where they should.",
        "",
        *table(
            ("window", "median of mean errors", "median of largest errors", "scans within 6 HU everywhere", "worst"),
            errors,
        ),
    ]


def _slices(seen: Tally) -> list[str]:
    whats = [what for name, what in seen.planted if name == COHORTS[0] and what.startswith(("slices", "a slice"))]
    rows = [(what, *(f"{seen.named[name, what]} of {seen.planted[name, what]}" for name in COHORTS)) for what in whats]
    return [
        "## Slices missing and doubled",
        "",
        "Slices taken out of the middle of each scan, or one put in twice, found at that very place. One missing slice changes too little to be seen.",
        "",
        *table(("planted", *COHORTS), rows),
    ]


def labels(data: Path) -> list[str]:
    seen = Tally()
    for cohort in (read_cohort(data / name) for name in COHORTS):
        for record in cohort.cases:
            seen.spoil_labels(cohort.name, record.read())
    return _labels(seen)


def _labels(seen: Tally) -> list[str]:
    whats = [what for name, what in seen.planted if name == COHORTS[1] and what.startswith("label")]
    rows = [(what, *(f"{seen.named[name, what]} of {seen.planted[name, what]}" for name in COHORTS)) for what in whats]
    return [
        "## Label errors planted into real labels",
        "",
        "One error a copy, over 0.1 ml, found on its slices by a code that names it and was not there before. A ball of healthy lung that is called lesion is hidden where it touches a true "
        "lesion; a lesion that nobody marked takes a model.",
        "",
        *table(("planted", *COHORTS), rows),
    ]


def _doubled(cohorts: list[Cohort]) -> list[str]:
    """A case put in twice, the copy turned, noisy, shifted in HU and cut; and what is said of the cohorts as they are."""
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "as it is": lambda hu: hu,
        "turned left to right": lambda hu: hu[:, :, ::-1],
        "with noise of 30 HU": lambda hu: hu + np.random.default_rng(0).normal(0, 30, hu.shape),
        "shifted by 40 HU": lambda hu: hu + 40,
        "without its lowest fifth": lambda hu: hu[len(hu) // 5 :],
    }
    rows = []
    record = cohorts[1].cases[0]
    case = record.read()
    for name, change in changes.items():
        copy = _copy(case, change)
        others = [_record(case), *(replace(one, patient_id=one.case_id) for one in cohorts[1].cases[1:4]), copy]
        pairs = [one for one in audit_cohorts([Cohort("home", tuple(others))]) if one.kind == "duplicate"]
        told = "; ".join(
            f"{one.case} and {one.other[1]}: `{one.code}`, {one.numbers['likeness']:.2f}" for one in pairs if one.other
        )
        rows.append((name, told or "nothing"))
    return [
        "## A case put in twice",
        "",
        f"{record.case_id} beside a copy of it that came without masks, and three other patients; and the pairs that were told:",
        "",
        *table(("copy", "told"), rows),
    ]


def _record(case: Case) -> CaseRecord:
    return CaseRecord(case.case_id, case.case_id, InMemory.of(case))


def _copy(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> CaseRecord:
    """The scan without its masks, changed."""
    hu = np.ascontiguousarray(np.rint(change(case.volume.hu)).astype(np.int16))
    return _record(Case(Volume(hu, _grid(hu, case.volume.geometry)), case_id="copy"))


# Pictures


def pictures(cohorts: list[Cohort], output: Path) -> None:
    from matplotlib.figure import Figure

    output.mkdir(parents=True, exist_ok=True)
    case = cohorts[0].cases[0].read()
    far = [one for one in label_findings(case) if one.code == "lesion-outside-lung" and one.severity == "error"]
    figure = Figure(figsize=(7.2, 3.7 * len(far)), layout="constrained")
    axes = figure.subplots(len(far), 2, squeeze=False)
    for row, one in zip(axes, far, strict=True):
        assert one.seat is not None
        _slice(row[0], case, one.seat[0], outlines=False)
        _slice(row[1], case, one.seat[0], outlines=True)
        row[0].set_title(f"medseg9 case 1, slice {one.seat[0]}", fontsize=9)
        row[1].set_title(f"{one.voxels} voxels, up to {one.numbers['distance_mm']:.0f} mm from any lung", fontsize=9)
        row[1].annotate(
            "",
            one.seat[:0:-1],
            (one.seat[2] + 45, one.seat[1] - 45),
            arrowprops={"color": "yellow", "arrowstyle": "->"},
        )
    figure.savefig(output / "outside-lung.png", dpi=80, pil_kwargs={"optimize": True})
    _odd(next(one for one in cohorts[1].cases if one.case_id.endswith("007")).read(), output)


def _slice(axis, case: Case, index: int, *, outlines: bool) -> None:  # type: ignore[no-untyped-def]
    axis.imshow(case.volume.hu[index], cmap="gray", vmin=-1000, vmax=150)
    axis.set_axis_off()
    if outlines:
        if case.lung.voxels[index].any():
            axis.contour(case.lung.voxels[index], levels=[0.5], colors="white", linewidths=0.6)
        lesion = np.ma.masked_where(~case.lesion.voxels[index], np.ones(case.lesion.voxels[index].shape))
        axis.imshow(lesion, cmap="autumn", vmin=1, vmax=2, alpha=0.9)


def _odd(case: Case, output: Path) -> None:
    from matplotlib.figure import Figure

    (found,) = (one for one in completeness_findings(case.volume, case.lung) if one.code == "slice-odd")
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for axis, index in zip(figure.subplots(1, 3), range(found.slices[0] - 1, found.slices[0] + 2), strict=True):
        axis.imshow(case.volume.hu[index], cmap="gray", vmin=-1000, vmax=300)
        axis.set_title(f"slice {index}", fontsize=9)
        axis.set_axis_off()
    figure.savefig(output / "odd-slice.png", dpi=80, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
