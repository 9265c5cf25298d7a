"""The demo's two synthetic hospitals, whose difference is known."""

from __future__ import annotations

from lungshift.ct.case import Cohort
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_site import SITE_A, SITE_B


def demo_cohorts() -> tuple[Cohort, Cohort]:
    """Source and target: other patients, and a target with a sharper kernel, more noise, thinner slices, shifted HU."""
    source = phantom_cohort("hospital-a", patients=6, site=SITE_A, seed=1)
    target = phantom_cohort("hospital-b", patients=6, site=SITE_B, seed=2)
    return source, target
