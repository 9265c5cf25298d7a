"""One patient on two dates, registered once for all tests of this room; and a model that calls lesion what is dense in the lungs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from chests import threshold_model
from lungshift.ct.case import Case
from lungshift.learn.checkpoint import save_checkpoint
from lungshift.patient.followup import FollowUp, follow_up
from lungshift.patient.predicting import Options
from lungshift.prepare.phantom_dates import CHANGES, PhantomDate, phantom_dates
from lungshift.prepare.phantom_site import Site

SITE = Site(slice_mm=5.0, pixel_mm=2.5, size=140)


@dataclass(frozen=True)
class Given:
    """A date in memory."""

    label: str
    day: int
    case: Case

    def read(self) -> Case:
        return self.case


@pytest.fixture(scope="session")
def dates() -> tuple[PhantomDate, ...]:
    return phantom_dates(5, 1, SITE, [CHANGES])


@pytest.fixture(scope="session")
def follow(dates: tuple[PhantomDate, ...]) -> FollowUp:
    return follow_up([Given(f"day {date.day}", date.day, date.case) for date in dates])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "threshold"
    save_checkpoint(threshold_model(), folder)
    return folder


@pytest.fixture(scope="session")
def options(checkpoint: Path) -> Options:
    return Options(checkpoint, device="cpu")
