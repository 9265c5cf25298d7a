"""The noise of a date's numbers, by the model that drew its lesions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chests import chest, threshold_model
from lungshift.ct.case import Case, InMemory
from lungshift.ct.volume import Mask
from lungshift.errors import CheckpointError
from lungshift.learn.checkpoint import save_checkpoint
from lungshift.learn.settings import NetworkSettings
from lungshift.measure.burden import Burden, burden_of
from lungshift.patient.dates import DatedScan
from lungshift.patient.noise import Models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "threshold"
    save_checkpoint(threshold_model(), folder)
    return folder


def dated(case: Case, checkpoint: Path | None) -> DatedScan:
    return DatedScan("day 0", 0, InMemory.of(case), checkpoint=checkpoint)


def burden(case: Case) -> Burden:
    return burden_of(case.volume, case.lesion, case.lung)


def test_without_a_model_nothing_is_said_of_the_noise() -> None:
    case = chest()

    assert Models().noise_of(dated(case, None), case, burden(case)) is None


def test_the_noise_is_half_the_width_of_what_the_model_repeats(model: Path) -> None:
    case, told = chest(), []
    models = Models("cpu", 3, told.append)
    noise = models.noise_of(dated(case, model), case, burden(case))

    assert noise is not None
    assert noise.source == "model"
    assert 0 < noise.lesion_ml < case.lung.volume_ml
    assert noise.percent == pytest.approx(100 * noise.lesion_ml / case.lung.volume_ml)
    assert told == ["day 0: predicting it 3 times more, as if it had been taken again"]
    assert models.fingerprints == (threshold_model().fingerprint,)


def test_of_no_lesion_no_scatter_is_measured(model: Path) -> None:
    case = chest()
    bare = replace(case, lesion=Mask(np.zeros_like(case.lesion.voxels), case.lesion.geometry))

    assert Models("cpu").noise_of(dated(bare, model), bare, burden(bare)) is None


def test_a_lesion_that_was_not_given_is_predicted_once(model: Path) -> None:
    case, told = replace(chest(), lesion=None), []
    models = Models("cpu", progress=told.append)
    one, other = (models.complete(dated(case, model), case) for _ in range(2))

    assert one.lesion.voxels.any()
    assert other.lesion is one.lesion
    assert told == ["day 0: predicting the lesion"]


def test_a_lesion_that_was_given_is_kept(model: Path) -> None:
    case = chest()

    assert Models("cpu").complete(dated(case, model), case) is case
    assert Models("cpu").complete(dated(replace(case, lesion=None), None), replace(case, lesion=None)).lesion is None


def test_a_model_of_lungs_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = NetworkSettings(width=1, levels=1, target="lung", lung_channel=False, crop=False)
    lungs = replace(threshold_model(), network=settings)
    monkeypatch.setattr("lungshift.patient.noise.load_checkpoint", lambda _path: lungs)
    case = replace(chest(), lesion=None)

    with pytest.raises(CheckpointError) as error:
        Models("cpu").complete(dated(case, model), case)
    assert error.value.code == "E_TARGET"
