"""The error bars of quantify, against phantoms that are scanned again for real.

    .venv/bin/python -m benchmarks.repeatability --output docs/benchmarks/repeatability.md

Small networks, each trained on eight patients of one phantom hospital, and patients that they never saw. Each patient is scanned nine times; the first
scan gets error bars from seven predictions, as a user would. Then it is looked at how far the other scans really are from it. Three ways to scan again: with
other noise only; with other noise, HU scale (standard deviation 5 HU) and field of view (1 %), which is what the bars are made for; and with the slices
elsewhere too, which they do not claim. The seeds were used for nothing else: how large the changes of a retake are was settled on others.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.turns import ONE_THREAD

_FIRST_SEED, _SCANS, _HU, _FIELD = 14000, 9, 5.0, 0.01
_WAYS = ("other noise", "and HU scale, field of view", "and slices elsewhere")
_SHOWN = (
    "lesion_ml",
    "percent",
    "right_percent",
    "left_percent",
    "upper_percent",
    "middle_percent",
    "lower_percent",
    "ground_glass_ml",
    "consolidation_ml",
    "mean_hu",
    "largest_ml",
    "lesions_counted",
    "severity_score",
)


@dataclass(frozen=True)
class Repeated:
    """A quantity of one patient, scanned again in one way.

    Attributes:
        quantity: Which.
        way: How it was scanned again.
        value: In the first scan.
        bar: Standard deviation that the bar of the first scan is made of.
        coefficient: Repeatability coefficient of the first scan.
        half_width: Half the width of its 95 % limits.
        others: The same quantity in the other scans.
    """

    quantity: str
    way: str
    value: float
    bar: float
    coefficient: float
    half_width: float
    others: tuple[float, ...]


def main() -> None:
    """Measure, print the page and write it."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.repeatability", description=__doc__)
    words.add_argument("--output", type=Path)
    words.add_argument("--models", type=int, default=2)
    words.add_argument("--patients", type=int, default=8)
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    found: list[Repeated] = []
    for model in range(asked.models):
        with tempfile.TemporaryDirectory(prefix="lungshift-repeatability-") as folder:
            for patient in range(asked.patients):
                found += _measure(_train(model, Path(folder)), model, patient)
                print(f"model {model + 1}, patient {patient + 1}", flush=True)
    page = _page(found, asked.models, asked.patients)
    print(page)
    if asked.output:
        asked.output.write_text(page)


_TRAINED: dict[int, Any] = {}


def _train(model: int, folder: Path) -> Any:
    from lungshift.prepare.phantom import phantom_cohort
    from lungshift.transfer.protocol import read_protocol
    from lungshift.transfer.single import train_cohort

    if model not in _TRAINED:
        seed = _FIRST_SEED + 100 * model
        cohort = phantom_cohort("home", patients=8, site=_site(), seed=seed, lesions=_ill())
        protocol = read_protocol("demo", ("split.test_share=0.2",))
        _TRAINED[model] = train_cohort(protocol, cohort, folder, device="cpu").checkpoint
    return _TRAINED[model]


def _measure(checkpoint: Any, model: int, patient: int) -> Iterator[Repeated]:
    from lungshift.learn.prediction import Predictor
    from lungshift.learn.repeatability import draw_retakes, spread_numbers
    from lungshift.measure.regions import find_regions

    predictor = Predictor.of(checkpoint, "cpu")
    seed = _FIRST_SEED + 100 * model + 50
    first = _scan(seed, patient, 0, _WAYS[0])
    spreads = spread_numbers([predictor], first, find_regions(first.lung, first.volume), draw_retakes())
    numbers = _numbers(predictor, first)
    for way in _WAYS:
        others = [_numbers(predictor, _scan(seed, patient, scan, way)) for scan in range(1, _SCANS)]
        for name in _SHOWN:
            spread = spreads[name]
            yield Repeated(
                name,
                way,
                numbers[name],
                spread.sd,
                spread.coefficient,
                spread.half_width,
                tuple(one[name] for one in others),
            )


def _numbers(predictor: Any, case: Any) -> dict[str, float]:
    from lungshift.learn.prediction import predict
    from lungshift.measure.burden import burden_of

    numbers: dict[str, float] = burden_of(case.volume, predict(predictor, case), case.lung).quantities()
    return numbers


def _scan(seed: int, patient: int, scan: int, way: str) -> Any:
    """The same patient on the same day, scanned again: the phantom without noise, and noise of our own on it."""
    import numpy as np

    from lungshift.ct.volume import Volume
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import draw_noise

    draws = np.random.default_rng([seed, patient, scan]).standard_normal(3)
    site = _site()
    if scan and way != _WAYS[0]:
        site = replace(site, hu_offset=_HU * draws[0], pixel_mm=site.pixel_mm * (1 + _FIELD * draws[1]))
    if scan and way == _WAYS[2]:
        site = replace(site, slice_mm=site.slice_mm * (1 + _FIELD * draws[2]))
    case = phantom_case(seed, patient, replace(site, noise_hu=0.0), lesions=_ill())
    hu = case.volume.hu.copy()
    for index in range(len(hu)):
        noise = draw_noise(np.random.default_rng([seed, patient, scan, index]), site)
        hu[index] = np.clip(np.rint(hu[index] + noise), -1024, 3071)
    return replace(case, volume=Volume(hu, case.volume.geometry))


def _site() -> Any:
    from lungshift.prepare.phantom_site import SITE_A

    return replace(SITE_A, size=128, pixel_mm=2.7)


def _ill() -> Any:
    from lungshift.prepare.phantom_lesions import Lesions

    return Lesions(mild=0.3, moderate=0.4, severe=0.3, effusion=0.1)


def _page(found: list[Repeated], models: int, patients: int) -> str:
    told = "\n\n".join(" ".join(part.split()) for part in __doc__.split("\n\n")[2:])
    return "\n".join(
        [
            f"# Error bars of quantify\n\n{told}\n\nWritten by `python -m benchmarks.repeatability --models {models} --patients {patients}`; "
            "[what a bar is](../quantify.md#the-error-bar).\n\n## How often the bars hold\n",
            f"Of {_SCANS - 1} scans of each of {models * patients} patients: how many differ from the first by no more than its repeatability coefficient; "
            "95 % is what it says. Lung masks are the true ones, as bars do not cover their error.\n",
            "| quantity | " + " | ".join(_WAYS) + " |\n|---|" + "---|" * len(_WAYS),
            *(_coverage_row(name, found) for name in _SHOWN),
            _coverage_row("all", found),
            "\n## How wide they are\n",
            "The standard deviation that the bar is made of, against that of the nine scans themselves: the median over patients. Below 1 the bar is too narrow.\n",
            "| quantity | " + " | ".join(_WAYS) + " |\n|---|" + "---|" * len(_WAYS),
            *(_ratio_row(name, found) for name in _SHOWN),
            "",
        ]
    )


def _of(found: list[Repeated], name: str, way: str) -> list[Repeated]:
    return [one for one in found if one.way == way and name in (one.quantity, "all")]


def _coverage_row(name: str, found: list[Repeated]) -> str:
    cells = []
    for way in _WAYS:
        told = [one for one in _of(found, name, way) if not math.isnan(one.coefficient)]
        inside = [abs(other - one.value) <= one.coefficient + 1e-9 for one in told for other in one.others]
        cells.append(f"{sum(inside) / len(inside):.0%}" if inside else "undefined")
    return f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |"


def _ratio_row(name: str, found: list[Repeated]) -> str:
    import numpy as np

    cells = []
    for way in _WAYS:
        ratios = []
        for one in _of(found, name, way):
            true = float(np.std([one.value, *one.others], ddof=1))
            if true > 0 and not math.isnan(one.bar):
                ratios.append(one.bar / true)
        cells.append(f"{np.median(ratios):.1f}" if ratios else "none differ")
    return f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
