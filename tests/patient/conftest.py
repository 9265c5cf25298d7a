"""One patient on two dates, registered once for all tests of this room."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lungshift.ct.case import Case
from lungshift.patient.followup import FollowUp, follow_up
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
