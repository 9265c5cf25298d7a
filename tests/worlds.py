"""Worlds small enough to compute by hand."""

from __future__ import annotations

import numpy as np

from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume


def tiny_case(seed: int = 0, slices: int = 5, size: int = 32, *, lung: bool = True) -> Case:
    """Noise in the range of lung, a square lung and a small lesion in the lower slices."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.regular((slices, size, size), (5.0, 2.0, 2.0))
    hu = rng.integers(-1000, 100, geometry.shape).astype(np.int16)
    lungs, lesion = np.zeros((2, *geometry.shape), bool)
    lungs[1:, 8:24, 4:28] = True
    lesion[1:3, 10:14, 6:10] = True
    return Case(Volume(hu, geometry), Mask(lungs, geometry) if lung else None, Mask(lesion, geometry), f"case{seed}")


def cohort_of(*cases: Case, name: str = "tiny") -> Cohort:
    return Cohort(name, tuple(CaseRecord(case.case_id, case.patient_id, InMemory.of(case)) for case in cases))
