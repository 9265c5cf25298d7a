"""How much lesion there is: millilitres, percent of lung, by side and third, by density, lesion by lesion, and as a severity score.

Lesion inside the lung mask is what every number but ``outside_ml`` and ``lesions`` speaks of, so sides, thirds and zones add up to the whole;
lesion outside the lung mask is counted on its own and never dropped. What would be 0 / 0 is NaN: the percent of a zone without lung, the
density where there is no lesion.

**Severity.** Five classes of how much of a zone is involved: 0 none, 1 under 25 %, 2 from 25 %, 3 from 50 %, 4 from 75 %; the sum over the six
zones, 0 to 24, is the score of Ooi et al. (Radiology 230:836, 2004, SARS), used for COVID-19 since. Two things differ from a reader's
score. The percent is measured, not estimated by eye; and the zones are thirds of equal height (``measure.regions``), where a reader cuts at the carina and
the inferior pulmonary veins. Scores by lobe (0 to 25: Pan et al., Radiology 295:715, 2020; 0 to 20: Li et al., European Radiology 30:4407, 2020) need the
five lobes, which are not known here, so none is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError
from lungshift.measure.density import is_dense
from lungshift.measure.lesions import Lesion, find_lesions
from lungshift.measure.regions import REGIONS, ZONES, Regions, find_regions

SEVERITY_PERCENT: Final = (0.0, 25.0, 50.0, 75.0)
"""Class 1 is above the first, class 2, 3 and 4 from the second, third and fourth."""

COUNTED_ML: Final = 0.1
"""Lesions of this and more are counted as ``lesions_counted``: 100 mm³, a ball of about 6 mm, below which the Fleischner Society follows up no
nodule as a rule (MacMahon et al., Radiology 284:228, 2017). Smaller pieces are often noise of a mask; ``lesions`` counts them too."""


@dataclass(frozen=True)
class Extent:
    """Lesion in one region of the lungs.

    Attributes:
        lung_ml: Volume of the lung there, lesion included.
        lesion_ml: Volume of the lesion in it.
        percent: Lesion as percent of that lung; NaN without lung.
        ground_glass_ml: Of the lesion, below ``density.CONSOLIDATION_HU``.
        consolidation_ml: Of the lesion, the rest.
        consolidation_percent: Consolidation as percent of the lesion; NaN without lesion.
        mean_hu: Mean of the lesion's voxels; NaN without lesion.
        severity: Class 0 to 4; NaN without lung.
    """

    lung_ml: float
    lesion_ml: float
    percent: float
    ground_glass_ml: float
    consolidation_ml: float
    consolidation_percent: float
    mean_hu: float
    severity: float


@dataclass(frozen=True, eq=False)
class Burden:
    """What a lesion mask amounts to.

    Attributes:
        extents: By the name of a region, in the order of ``regions.REGIONS``; ``both`` is the whole.
        outside_ml: Lesion outside the lung mask, in no region.
        lesions: The connected pieces of the whole mask, the largest first.
        severity_score: Sum of the classes of the six zones, 0 to 24; NaN if one of them has no lung.
    """

    extents: dict[str, Extent]
    outside_ml: float
    lesions: tuple[Lesion, ...]
    severity_score: float

    @property
    def whole(self) -> Extent:
        """Both lungs."""
        return self.extents["both"]

    @property
    def lesions_counted(self) -> int:
        """How many lesions have ``COUNTED_ML`` or more."""
        return sum(lesion.volume_ml >= COUNTED_ML for lesion in self.lesions)

    @property
    def largest_ml(self) -> float:
        """Volume of the largest lesion; 0 if there is none."""
        return self.lesions[0].volume_ml if self.lesions else 0.0

    def quantities(self) -> dict[str, float]:
        """Every number by name, flat: of the whole without prefix, of a region as ``right_lesion_ml``, ``left_lower_percent``."""
        return dict(_quantities(self))


def measure_burden(volume: Volume, lesion: Mask, regions: Regions) -> Burden:
    """Measure a lesion mask.

    Args:
        volume: The scan in HU.
        lesion: Lesion mask; parts outside the lungs are counted apart.
        regions: Of the lungs, from ``find_regions``.

    Raises:
        GeometryError: Scan, lesion mask and lung regions are not on one grid.
    """
    volume.geometry.require_same(lesion.geometry, "Scan and lesion mask")
    volume.geometry.require_same(regions.geometry, "Scan and lung mask")
    tally = _tally(volume, lesion, regions)
    ml = volume.geometry.voxel_ml
    extents = {name: _extent(tally[:, list(numbers)].sum(axis=1), ml) for name, numbers in REGIONS.items()}
    score = float(sum(extents[zone].severity for zone in ZONES))
    return Burden(extents, float(tally[1, 0]) * ml, find_lesions(lesion, volume), score)


def burden_of(volume: Volume, lesion: Mask, lung: Mask | None) -> Burden:
    """``measure_burden`` with the regions of a lung mask.

    Raises:
        AnnotationError: There is no lung mask, or it is empty (code ``E_NO_LUNG``).
        GeometryError: Scan and masks are not on one grid.
    """
    if lung is None:
        raise AnnotationError(
            "A lesion mask without a lung mask has no percent of lung and no side. Give the lung mask of this scan.",
            code="E_NO_LUNG",
        )
    volume.geometry.require_same(lesion.geometry, "Scan and lesion mask")
    return measure_burden(volume, lesion, find_regions(lung, volume))


def severity_class(percent: float) -> float:
    """0 to 4 by ``SEVERITY_PERCENT``; NaN stays NaN."""
    if np.isnan(percent):
        return float("nan")
    return float(percent > SEVERITY_PERCENT[0]) + sum(percent >= least for least in SEVERITY_PERCENT[1:])


def unit_of(quantity: str) -> str:
    """``ml``, ``%``, ``HU``, or nothing for a number, a class and a score."""
    return {"ml": "ml", "percent": "%", "hu": "HU"}.get(quantity.rpartition("_")[2], "")


def bounds_of(quantity: str) -> tuple[float, float]:
    """The least and the most that a quantity can be."""
    if quantity.endswith("hu"):
        return -np.inf, np.inf
    most = {"percent": 100.0, "severity": float(len(SEVERITY_PERCENT)), "score": 24.0}
    return 0.0, most.get(quantity.rpartition("_")[2], np.inf)


def why_undefined(quantity: str) -> str:
    """Why a quantity that is NaN has no value, in words."""
    if quantity == "severity_score":
        return "a zone has no lung"
    return "no lesion there" if quantity.endswith(("hu", "consolidation_percent")) else "no lung there"


def _tally(volume: Volume, lesion: Mask, regions: Regions) -> Float64[np.ndarray, "4 zone"]:
    """By zone (0 is outside the lungs): voxels, lesion voxels, dense lesion voxels, sum of HU over the lesion."""
    tally = np.zeros((4, len(ZONES) + 1))
    size = len(ZONES) + 1
    for hu, ill, zone in zip(volume.hu, lesion.voxels, regions.zones, strict=True):
        tally[0] += np.bincount(zone.ravel(), minlength=size)
        if not ill.any():
            continue
        values, at = hu[ill].astype(np.float64), zone[ill]
        tally[1] += np.bincount(at, minlength=size)
        tally[2] += np.bincount(at, is_dense(values), minlength=size)
        tally[3] += np.bincount(at, values, minlength=size)
    return tally


def _extent(tally: Float64[np.ndarray, " 4"], voxel_ml: float) -> Extent:
    lung, ill, dense, total = (float(one) for one in tally)
    percent = _ratio(100 * ill, lung)
    return Extent(
        lung_ml=lung * voxel_ml,
        lesion_ml=ill * voxel_ml,
        percent=percent,
        ground_glass_ml=(ill - dense) * voxel_ml,
        consolidation_ml=dense * voxel_ml,
        consolidation_percent=_ratio(100 * dense, ill),
        mean_hu=_ratio(total, ill),
        severity=severity_class(percent),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _quantities(burden: Burden) -> Iterator[tuple[str, float]]:
    for region, extent in burden.extents.items():
        prefix = "" if region == "both" else f"{region}_"
        yield from ((f"{prefix}{name}", value) for name, value in vars(extent).items())
        if region == "both":
            yield "outside_ml", burden.outside_ml
            yield "lesions", float(len(burden.lesions))
            yield "lesions_counted", float(burden.lesions_counted)
            yield "largest_ml", burden.largest_ml
            yield "severity_score", burden.severity_score
