"""The demo's two synthetic hospitals, whose difference is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lungshift.ct.case import Cohort
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import SITE_A, SITE_B


def demo_cohorts() -> tuple[Cohort, Cohort]:
    """Source and target: other patients; the target has a sharper kernel, more noise, thinner slices and HU shifted by 110.

    The shift is planted, so large that the drop is plain to see in a small study; it says nothing of real scanners.
    """
    ill = Lesions(mild=0.2, moderate=0.5, severe=0.3, effusion=0.1)
    small: dict[str, Any] = {"size": 96, "pixel_mm": 3.6}
    source = phantom_cohort("hospital-a", patients=7, site=replace(SITE_A, **small), seed=1, lesions=ill)
    target = phantom_cohort("hospital-b", patients=7, site=replace(SITE_B, **small), seed=2, lesions=ill)
    return source, target
