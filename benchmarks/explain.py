"""Whether the explanation of a drop names the cause that was planted: phantom targets that differ from home in one thing only.

Run by hand: ``python -m benchmarks.explain --output docs/benchmarks/explain.md`` (about 15 minutes of one core).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lungshift.ct.case import Case, Cohort
from lungshift.ct.volume import Mask
from lungshift.learn.checkpoint import Checkpoint, Decision
from lungshift.learn.data import SliceSet
from lungshift.learn.prediction import Predictor, predict_slices
from lungshift.learn.settings import Augmentation, NetworkSettings, TrainingSettings
from lungshift.learn.training import Job, fit
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_errors import LabelError
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import SITE_A
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.slices import select_slices
from lungshift.transfer.decision import choose_decision, validation_score
from lungshift.transfer.explain import explain_drop
from lungshift.transfer.outcome import CauseName, Explanation

SIZE, PATIENTS = 96, 6
ILL = Lesions(mild=0.0, moderate=1.0, severe=0.0, effusion=0.1)
WITH_FLUID = replace(ILL, effusion=1.0)
NETWORK = NetworkSettings(width=8, norm="batch", crop=True)
WORLDS = {"lungs given": (ILL, NETWORK), "fluid, no lungs given": (WITH_FLUID, replace(NETWORK, lung_channel=False))}
"""How ill the source's patients are, and what its model sees. In the second, only its place tells fluid from the chest wall."""
TRAINING = TrainingSettings(
    epochs=12,
    patience=0,
    monitor="loss",
    batch=8,
    micro_batch=8,
    optimiser="adamw",
    learning_rate=3e-3,
    schedule="one_cycle",
    weight_decay=1e-2,
    loss="bce_dice",
    precision="bf16",
    augmentation=replace(Augmentation.none(), flip=0.5, affine=0.8),
)


@dataclass(frozen=True)
class Planted:
    """A target that differs from home in one thing."""

    cause: CauseName
    words: str
    site: dict[str, Any]
    lesions: Lesions = ILL
    drawn_wide: bool = False
    bare_lungs: bool = False
    world: str = "lungs given"

    def cohort(self, seed: int) -> Cohort:
        errors = tuple(LabelError("dilated", n) for n in range(PATIENTS)) if self.drawn_wide else ()
        name = "away-" + "".join(letter if letter.isalnum() else "-" for letter in self.words)
        site = replace(SITE_A, **self.site)
        made = phantom_cohort(
            name, patients=PATIENTS, site=site, seed=1000 + seed, lesions=self.lesions, label_errors=errors
        )
        return with_bare_lungs(made) if self.bare_lungs else made


PLANTS = (
    Planted("hu", "HU 200 too high", {"hu_offset": 200}),
    Planted("hu", "HU 150 too low", {"hu_offset": -150}),
    Planted("hu", "8-bit window", {"eight_bit": True}),
    Planted("sharpness", "blur of 10 mm", {"sharpness_mm": 10.0}),
    Planted("sharpness", "noise of 300 HU", {"noise_hu": 300.0}),
    Planted("pixel_size", "field of view of 592 mm", {"pixel_mm": 3.7}),
    Planted("slice_thickness", "slices of 15 mm", {"slice_mm": 15.0}),
    Planted("slice_thickness", "slices of 2 mm", {"slice_mm": 2.0}),
    Planted("orientation", "front for back", {"flip": "up_down"}),
    Planted("orientation", "front for back, fluid", {"flip": "up_down"}, lesions=WITH_FLUID, world="fluid, no lungs given"),
    Planted("lung_mask", "lung masks without lesions", {}, bare_lungs=True),
    Planted("lesion_sizes", "lesions half as wide", {}, lesions=replace(ILL, size=0.5)),
    Planted("annotation", "lesions drawn 6 mm too wide", {}, drawn_wide=True),
    Planted("annotation", "lesions drawn 2.5 mm too wide", {"annotation": "generous"}),
    Planted("annotation", "lesions drawn in blocks", {"annotation": "blocky"}),
)


def with_bare_lungs(cohort: Cohort) -> Cohort:
    """The cohort with lung masks as a threshold without closing leaves them: nothing denser than -700 HU is lung."""
    return replace(cohort, cases=tuple(replace(case, source=_bare(case.source)) for case in cohort.cases))


def _bare(source: Any) -> Any:
    def make() -> Case:
        case = source.make()
        return replace(case, lung=Mask(case.lung.voxels & (case.volume.hu < -700), case.lung.geometry))

    return replace(source, make=make, digest=source.digest + "bare")


@dataclass(frozen=True, eq=False)
class Home:
    """A source model with the cohort it comes from."""

    model: Checkpoint
    cohort: PreparedCohort
    train: np.ndarray
    test: np.ndarray


def train_home(world: str, seed: int, folder: Path) -> Home:
    """Ten patients train, two choose, six are tested."""
    lesions, network = WORLDS[world]
    made = phantom_cohort("home", patients=18, site=SITE_A, seed=seed, lesions=lesions)
    cohort = prepare_cohort(made, folder, size=SIZE)
    rows = select_slices(cohort.table, "lung")
    number = cohort.table["case"][rows]
    train, validation, test = rows[number < 10], rows[(number >= 10) & (number < 12)], rows[number >= 12]
    slices = SliceSet.of(cohort, validation)
    job = Job(SliceSet.of(cohort, train), slices, network, TRAINING, seed)
    model = fit(job, score=validation_score, device="cpu")
    seen = (
        (probability, np.stack([cohort.lesion(validation[n]) for n in chosen]))
        for chosen, probability in predict_slices(Predictor.of(model, "cpu"), slices)
    )
    return Home(model.with_decision(choose_decision(seen, Decision())), cohort, train, test)


def explain(home: Home, planted: Planted, seed: int, folder: Path) -> Explanation:
    """The explanation of one planted difference."""
    away = prepare_cohort(planted.cohort(seed), folder, size=SIZE)
    rows = select_slices(away.table, "lung")
    return explain_drop(home.model, home.cohort, home.test, away, rows, source_train=home.train, device="cpu")
