"""A prepared cohort of three tiny cases, and settings of a network that trains on it in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungshift.learn.pictures import SliceSet
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.learn.training import Job
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.slices import select_slices
from worlds import cohort_of, tiny_case

TINY = NetworkSettings(width=2, levels=2)
SHORT = TrainingSettings(epochs=3, patience=0, batch=4, micro_batch=4, learning_rate=1e-2)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    cases = (tiny_case(seed) for seed in range(3))
    return prepare_cohort(cohort_of(*cases), tmp_path_factory.mktemp("prepared"), size=32)


@pytest.fixture
def job(prepared: PreparedCohort) -> Job:
    rows = select_slices(prepared.table, "lung")
    return Job(SliceSet.of(prepared, rows[:8]), SliceSet.of(prepared, rows[8:]), TINY, SHORT, seed=5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
