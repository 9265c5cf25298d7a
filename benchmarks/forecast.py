"""Forecasts of Dice without labels, on phantoms whose Dice is then measured.

    .venv/bin/python -m benchmarks.forecast --output docs/benchmarks/forecast.md

Three small networks, each trained on eight patients of one hospital. Each is calibrated on five labelled patients of four sites, or
on ten of a single site, and forecasts patients of those four sites and of four others that it never saw, as well as scans that are not
what they should be. The seeds of these patients and networks were used for nothing else: the views, the line and the margin were
chosen on others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.turns import ONE_THREAD

_MODELS, _FIRST_SEED = 3, 7000
_WILD = {
    "8 bit instead of HU": {"eight_bit": True},
    "HU + 1024": {"hu_offset": 1024},
    "HU − 500": {"hu_offset": -500},
    "front and back turned round": {"flip": "up_down"},
    "left and right turned round": {"flip": "left_right"},
    "head and foot turned round": {"flip": "head_foot"},
}
_FOUR, _ONE = "four sites, 5 patients each", "one site, 10 patients"
_SEEN, _NEW = "other patients of the four sites", "four other sites"


@dataclass(frozen=True)
class Case:
    """A case that was forecast, and its Dice."""

    model: int
    calibrated: str
    group: str
    site: str
    reason: str
    forecast: float
    low: float
    high: float
    mean: float
    true: float


@dataclass(frozen=True)
class Site:
    """A cohort that was forecast, and its mean Dice over the cases that got one."""

    calibrated: str
    group: str
    forecast: float
    low: float
    high: float
    mean: float
    true: float


@dataclass(frozen=True)
class Stated:
    """What a calibration said of itself."""

    calibrated: str
    half_width: float
    beats_mean: bool
    mae: float
    abroad: float


def main() -> None:
    """Measure, print the page and write it."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    words.add_argument("--output", type=Path)
    words.add_argument("--models", type=int, default=_MODELS)
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    cases: list[Case] = []
    sites: list[Site] = []
    stated: list[Stated] = []
    for model in range(asked.models):
        with tempfile.TemporaryDirectory(prefix="lungshift-forecast-") as folder:
            for found in _measure(model, Path(folder)):
                {Case: cases, Site: sites, Stated: stated}[type(found)].append(found)  # type: ignore[attr-defined]
        print(f"model {model + 1}: {len(cases)} cases", flush=True)
    page = _page(cases, sites, stated, asked.models)
    print(page)
    if asked.output:
        asked.output.write_text(page)


def _measure(model: int, folder: Path) -> Iterator[Case | Site | Stated]:
    from lungshift.transfer.forecast import calibrate

    seed = _FIRST_SEED + 100 * model
    home, four, four_new, wild = _sites()
    checkpoint = _train(_cohort("home", home, 8, seed), folder)
    calibrations = {
        _FOUR: [_cohort(f"seen{n}", site, 5, seed + 10 + n) for n, site in enumerate(four)],
        _ONE: [_cohort("seen", four[0], 10, seed + 20)],
    }
    targets = {
        _SEEN: [_cohort(f"again{n}", site, 5, seed + 30 + n) for n, site in enumerate(four)],
        _NEW: [_cohort(f"new{n}", site, 5, seed + 40 + n) for n, site in enumerate(four_new)],
    } | {name: [_cohort(f"wild{n}", site, 3, seed + 50 + n)] for n, (name, site) in enumerate(wild.items())}
    truth = {cohort.name: _dice(checkpoint, cohort, folder) for group in targets.values() for cohort in group}
    for name, labelled in calibrations.items():
        calibration = calibrate(checkpoint, labelled, folder, device="cpu")
        held = calibration.by_cohort or calibration.by_patient
        yield Stated(name, calibration.half_width, calibration.beats_mean, calibration.by_patient.mae, held.mae)
        for group, cohorts in targets.items():
            for cohort in cohorts if name == _FOUR or group == _NEW else ():
                yield from _forecast(model, checkpoint, calibration, name, group, cohort, truth[cohort.name], folder)


def _forecast(
    model: int,
    checkpoint: Any,
    calibration: Any,
    name: str,
    group: str,
    cohort: Any,
    truth: dict[str, float],
    folder: Path,
) -> Iterator[Case | Site]:
    import numpy as np

    from lungshift.transfer.forecast import forecast

    found = forecast(checkpoint, calibration, cohort, folder, device="cpu")
    mean = float(np.mean([case.dice for case in calibration.cases]))
    for case in found.cases:
        yield Case(
            model, name, group, cohort.name, case.reason, case.dice, case.low, case.high, mean, truth[case.case_id]
        )
    if found.given and group in (_SEEN, _NEW):
        true = float(np.mean([truth[case.case_id] for case in found.given]))
        yield Site(name, group, found.mean, *found.interval, mean, true)


def _sites() -> tuple[Any, list[Any], list[Any], dict[str, Any]]:
    """The source's site, four to calibrate on, four that are not, and what is not as it should be."""
    from lungshift.prepare.phantom_site import SITE_A, SITE_B

    home = replace(SITE_A, size=96, pixel_mm=3.6)
    sharp = replace(SITE_B, size=96, pixel_mm=3.6)
    four = [
        home,
        replace(sharp, hu_offset=30),
        replace(home, hu_offset=60),
        replace(home, noise_hu=60, noise_texture_mm=2.5),
    ]
    new = [
        replace(home, sharpness_mm=4.0, noise_hu=8),
        replace(sharp, hu_offset=80),
        replace(home, hu_offset=-60),
        replace(home, slice_mm=4.0, hu_offset=30, noise_hu=35),
    ]
    return home, four, new, {name: replace(home, **change) for name, change in _WILD.items()}


def _cohort(name: str, site: Any, patients: int, seed: int) -> Any:
    from lungshift.prepare.phantom import phantom_cohort
    from lungshift.prepare.phantom_lesions import Lesions

    ill = Lesions(mild=0.3, moderate=0.4, severe=0.3, effusion=0.1)
    return phantom_cohort(name, patients=patients, site=site, seed=seed, lesions=ill)


def _train(cohort: Any, folder: Path) -> Any:
    from lungshift.transfer.protocol import read_protocol
    from lungshift.transfer.single import train_cohort

    return train_cohort(read_protocol("demo", ("split.test_share=0.2",)), cohort, folder, device="cpu").checkpoint


def _dice(checkpoint: Any, cohort: Any, folder: Path) -> dict[str, float]:
    """Dice of each case in 3-D, with its labels; 0 where nothing was predicted and there is lesion."""
    from lungshift.measure.overlap import dice, sum_by
    from lungshift.transfer.single import evaluate_cohort

    scores = evaluate_cohort(checkpoint, cohort, folder, device="cpu").scores
    names, sums = sum_by(scores.counts, [str(case) for case in scores.cases])
    return dict(zip(names, dice(sums).tolist(), strict=True))


def _page(cases: list[Case], sites: list[Site], stated: list[Stated], models: int) -> str:
    told = "\n\n".join(" ".join(part.split()) for part in __doc__.split("\n\n")[2:])
    groups = [(_FOUR, _SEEN), (_FOUR, _NEW), (_ONE, _NEW)]
    return "\n".join(
        [
            f"# Forecasts of Dice without labels\n\n{told}\n\nWritten by `python -m benchmarks.forecast --models {models}`; "
            "[what is computed](../forecast.md). Errors are absolute differences of Dice in 3-D. *The mean* says the mean Dice of "
            "the calibration's cases of every case.\n\n## Cases\n",
            "| calibrated on | forecast | cases | withheld | Dice, range | error | error of the mean | correlation | in the 90 % interval |\n"
            "|---|---|---|---|---|---|---|---|---|",
            *(_case_row(name, group, _of(cases, name, group)) for name, group in groups),
            "\nCorrelation is within a network, the mean over networks.\n\n## Means of cohorts\n",
            "| calibrated on | forecast | cohorts | error | error of the mean | in the 90 % interval | half-width |\n|---|---|---|---|---|---|---|",
            *(_site_row(name, group, _of(sites, name, group)) for name, group in groups),
            "\nOf the cases that were not withheld.\n\n## What the calibration said of itself\n",
            "| calibrated on | error, patients left out | error, cohorts left out | half-width of a case | better than the mean, by its own word |\n"
            "|---|---|---|---|---|",
            *(_stated_row(name, [one for one in stated if one.calibrated == name]) for name in (_FOUR, _ONE)),
            "\n## What is not as it should be\n\nThe source's site with one thing changed; calibrated on four sites.\n",
            "| change | cases | withheld as unlike | withheld, nothing predicted | Dice | error of what was not withheld |\n|---|---|---|---|---|---|",
            *(_wild_row(name, _of(cases, _FOUR, name)) for name in _WILD),
            "",
        ]
    )


def _of(found: Iterable[Any], calibrated: str, group: str) -> list[Any]:
    return [one for one in found if (one.calibrated, one.group) == (calibrated, group)]


def _case_row(name: str, group: str, cases: list[Case]) -> str:
    import numpy as np

    given = [case for case in cases if not case.reason]
    error, of_mean = (
        np.mean([abs(one - case.true) for one, case in zip(said, given, strict=True)])
        for said in ([c.forecast for c in given], [c.mean for c in given])
    )
    inside = np.mean([case.low <= case.true <= case.high for case in given])
    lines = [
        [(case.forecast, case.true) for case in given if case.model == model]
        for model in {case.model for case in given}
    ]
    correlation = np.mean([np.corrcoef(np.array(line).T)[0, 1] for line in lines])
    true = [case.true for case in cases]
    return (
        f"| {name} | {group} | {len(cases)} | {len(cases) - len(given)} | {min(true):.2f}–{max(true):.2f} | {error:.3f} | {of_mean:.3f} | "
        f"{correlation:.2f} | {inside:.0%} |"
    )


def _site_row(name: str, group: str, sites: list[Site]) -> str:
    import numpy as np

    error, of_mean = (
        np.mean([abs(one.forecast - one.true) for one in sites]),
        np.mean([abs(one.mean - one.true) for one in sites]),
    )
    inside = sum(one.low <= one.true <= one.high for one in sites)
    width = np.mean([(one.high - one.low) / 2 for one in sites])
    return f"| {name} | {group} | {len(sites)} | {error:.3f} | {of_mean:.3f} | {inside} of {len(sites)} | {width:.2f} |"


def _stated_row(name: str, stated: list[Stated]) -> str:
    def each(values: Iterable[float]) -> str:
        return ", ".join(f"{value:.3f}" for value in values)

    abroad = each(one.abroad for one in stated) if name == _FOUR else "not known"
    beats = f"{sum(one.beats_mean for one in stated)} of {len(stated)}"
    return f"| {name} | {each(one.mae for one in stated)} | {abroad} | {each(one.half_width for one in stated)} | {beats} |"


def _wild_row(name: str, cases: list[Case]) -> str:
    unlike, silent = (sum(case.reason.startswith(words) for case in cases) for words in ("unlike", "nothing"))
    errors = [abs(case.forecast - case.true) for case in cases if not case.reason]
    off = f"{sum(errors) / len(errors):.3f} ({len(errors)})" if errors else "none was given"
    true = [case.true for case in cases]
    return f"| {name} | {len(cases)} | {unlike} | {silent} | {min(true):.2f}–{max(true):.2f} | {off} |"


if __name__ == "__main__":
    main()
