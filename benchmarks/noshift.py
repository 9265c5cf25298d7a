"""Two phantom hospitals that do not differ: no arm may differ from the source model as it is, beyond the interval.

    .venv/bin/python -m benchmarks.noshift --output docs/benchmarks/noshift.md

The same study twice: the target is scanned and annotated as the source is (the site difference off), and with the demo's
difference (on), to show that the study does find one. Other patients each time. The source trains on twelve patients, the budget
is ten target patients, and training is long, so that an arm with fresh weights has about as much to learn from and time to do so.
The threshold stays at 0.5, for one chosen on two validation patients is another source of luck.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import SITE_A, SITE_B, Site
from lungshift.show.claims import records, sentences
from lungshift.transfer.arms import ARMS
from lungshift.transfer.claims import Claims, claims_of
from lungshift.transfer.protocol import DecisionSettings, Protocol, SplitSettings, read_protocol
from lungshift.transfer.study import run
from lungshift.workers import Workers

_SMALL: dict[str, Any] = {"size": 96, "pixel_mm": 3.6, "slice_mm": 7.0}
_ILL = Lesions(mild=0.2, moderate=0.5, severe=0.3, effusion=0.1)


def main() -> None:
    """Run both studies and write what they say."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--jobs", type=int, default=1)
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    text = ["# With the site difference off, and on", "", __doc__.split("\n\n")[2].replace("\n", " ").strip(), ""]
    for title, site in (("off", SITE_A), ("on", SITE_B)):
        text += [f"## Site difference {title}", "", *_report(_study(site, asked.jobs)), ""]
        print("\n".join(text[-20:]))
    if asked.output:
        asked.output.write_text("\n".join(text))


def protocol() -> Protocol:
    """The demo's network and training, for all arms, folds and two seeds; every arm sees as many slices."""
    demo = read_protocol("demo")
    return replace(
        demo,
        name="noshift",
        arms=tuple(ARMS),
        budgets=(0, 10),
        seeds=(0, 1),
        split=SplitSettings(test_share=0.4, validation_patients=2, folds=2, test_seed=0),
        decision=DecisionSettings(),
        training=replace(demo.training, epochs=24, epoch_slices=128),
        fine_tuning=replace(demo.fine_tuning, epochs=8, epoch_slices=128),
        explain_drop=False,
    )


def _study(site: Site, jobs: int) -> Claims:
    source = phantom_cohort("hospital-a", patients=24, site=replace(SITE_A, **_SMALL), seed=11, lesions=_ILL)
    target = phantom_cohort("hospital-b", patients=24, site=replace(site, **_SMALL), seed=12, lesions=_ILL)
    with tempfile.TemporaryDirectory() as folder:
        return claims_of(run(protocol(), source, target, Path(folder), device="cpu", workers=Workers(jobs)))


def _report(claims: Claims) -> list[str]:
    told = records(claims)
    return [*(f"- {sentence}" for sentence in sentences(claims)), "", f"{len(told)} claims in all."]


if __name__ == "__main__":
    main()
