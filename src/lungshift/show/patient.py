"""The numbers of one patient as JSON, CSV and a page of one sheet: what was found, how sure it is, and by which definitions."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lungshift.files import write_bytes, write_json, write_text
from lungshift.measure.burden import COUNTED_ML, unit_of, why_undefined
from lungshift.measure.density import CONSOLIDATION_HU
from lungshift.measure.lesions import Lesion
from lungshift.measure.regions import REGIONS, SIDES, THIRDS, ZONES
from lungshift.patient.quantify import Patient, Quantities
from lungshift.show.planes import CLASS_COLOURS, draw_views, draw_zones, pick_views
from lungshift.show.report import page_environment, plain
from lungshift.show.tables import write_csv
from lungshift.show.words import RESEARCH_ONLY, plural

PAGE: Final = "patient.html"
"""The page's file."""

LUNG_WORDS: Final = {
    "reader": "given as a mask",
    "model": "found by a lung network",
    "threshold": "found by thresholds",
    "none": "none",
}
"""Who drew the lung mask."""

COVERED: Final = "how the network answers to noise, to a few HU of calibration, and to the place of the pixels (shift, turn, size, mirror)"
NOT_COVERED: Final = "another breath, scanner, kernel, dose or slice thickness, the error of the lung mask, and what the model gets wrong every time"

DEFINITIONS: Final = (
    (
        "Percent",
        "lesion inside the lung mask, by the volume of that lung with the lesion in it. Lesion outside the lung mask is in no percent and has a row of its own.",
    ),
    ("Thirds", "of each lung, equal in height from its own lowest to its own highest slice; not lobes."),
    (
        "Consolidation",
        f"lesion of −{-CONSOLIDATION_HU:.0f} HU and more (Chaganti et al. 2020), the rest is ground glass; vessels inside a lesion count as dense.",
    ),
    (
        "Class",
        "of a zone: 0 none, 1 under 25 %, 2 from 25 %, 3 from 50 %, 4 from 75 % of it; their sum over six zones is the score, 0 to 24 (Ooi et al. 2004). Zones are thirds here, where a reader cuts at the carina and the inferior pulmonary veins. Scores by lobe need lobes: none is given.",
    ),
    ("Lesions", f"pieces of the mask that touch; counted are those of {COUNTED_ML:g} ml and more."),
)
"""What the numbers mean, in the words of the page."""

CLASS_WORDS: Final = ("none", "under 25 %", "25 to 50 %", "50 to 75 %", "75 % and more")
"""The five classes."""

_WHOLE: Final = (
    ("percent", "Percent of lung"),
    ("lesion_ml", "Lesion in the lungs"),
    ("ground_glass_ml", "Ground glass"),
    ("consolidation_ml", "Consolidation"),
    ("consolidation_percent", "Consolidation, of the lesion"),
    ("mean_hu", "Mean density"),
    ("severity_score", "CT severity score, 0 to 24"),
    ("lesions_counted", f"Lesions of {COUNTED_ML:g} ml and more"),
    ("largest_ml", "Largest lesion"),
    ("outside_ml", "Lesion outside the lung mask"),
    ("lung_ml", "Lungs, lesion included"),
)
_SHOWN_LESIONS = 5
_BAR_PX = 92
_MOST_FLAGS = 5
_COLUMNS = 100
_LEAST = 0.005
_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Number:
    """A quantity as a page shows it; words, and NaN where there is none.

    Attributes:
        name: Of the quantity.
        label: What it is called.
        value: The number.
        low: Lower 95 % limit.
        high: Upper 95 % limit.
        unit: ``ml``, ``%``, ``HU`` or nothing.
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    unit: str

    @property
    def text(self) -> str:
        """The number with its unit, or why there is none."""
        if math.isnan(self.value):
            return f"undefined: {why_undefined(self.name)}"
        return f"{_figure(self.value, self.name)}{_NO_BREAK * bool(self.unit)}{self.unit}"

    @property
    def span(self) -> str:
        """The 95 % limits; empty where there are none."""
        if math.isnan(self.low):
            return ""
        return f"{_figure(self.low, self.name)} to {_figure(self.high, self.name)}"


def write_patient(found: Quantities, patient: Patient, folder: Path) -> str:
    """Write ``quantities.json``, ``quantities.csv``, ``lesions.csv`` and the page; return the text for the terminal.

    Args:
        found: What was measured.
        patient: The scan it was measured on; its ``identity`` is written, so it is empty unless that may leave.
        folder: Where the files go.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    write_json(folder / "quantities.json", plain(as_record(found, patient)))
    write_text(folder / "quantities.csv", write_csv(records(found)))
    write_text(folder / "lesions.csv", write_csv([_lesion_record(lesion, found) for lesion in found.burden.lesions]))
    write_bytes(folder / PAGE, render_patient(found, patient).encode())
    return f"{summary(found)}\n\nPage  {folder / PAGE}\nFiles in {folder}"


def records(found: Quantities) -> list[dict[str, Any]]:
    """A flat record for each quantity: what CSV and JSON hold."""
    return [_record(found, name, value) for name, value in found.burden.quantities().items()]


def as_record(found: Quantities, patient: Patient) -> dict[str, Any]:
    """Everything as JSON."""
    geometry = found.case.volume.geometry
    return {
        "use": RESEARCH_ONLY,
        "answer": answer(found),
        "identity": dict(patient.identity),
        "flags": found.flags,
        "lung_source": found.case.lung_source,
        "lesion_source": found.drawn_by,
        "quantities": records(found),
        "lesions": [_lesion_record(lesion, found) for lesion in found.burden.lesions],
        "repeatability": {
            "bar": found.bar,
            "retakes": found.retakes,
            "models": found.models,
            "covers": COVERED if found.spreads else "",
            "does_not_cover": NOT_COVERED if found.spreads else "",
        },
        "definitions": dict(DEFINITIONS),
        "lungs_touched": found.regions.touching,
        "geometry": {
            "shape": geometry.shape,
            "spacing_mm": geometry.spacing_mm,
            "axes": "slice (foot to head), row (front to back), column (patient's right to left)",
        },
        "input_sha256": dict(patient.checksums),
        "made_with": {"lungshift": metadata.version("lungshift")},
    }


def answer(found: Quantities) -> str:
    """What was found, in a sentence or two."""
    whole, number = found.burden.whole, _numbers(found)
    if not whole.lesion_ml:
        outside = (
            f" {number['outside_ml'].text} of lesion lies outside the lung mask." if found.burden.outside_ml else ""
        )
        return f"No lesion was found in {number['lung_ml'].text} of lung.{outside}"
    limits = f" (95 % limits of repeats {number['percent'].span})" if number["percent"].span else ""
    most = max(ZONES, key=lambda zone: found.burden.extents[zone].lesion_ml)
    share = 100 * found.burden.extents[most].lesion_ml / whole.lesion_ml
    dense = _figure(whole.consolidation_percent, "percent")
    return (
        f"Lesion takes up {number['percent'].text} of the lungs{limits}: {number['lesion_ml'].text}, {share:.0f} % of it in the "
        f"{_zone_words(most)} third. {dense} % of it is consolidation. CT severity score {number['severity_score'].text}"
        f"{'' if math.isnan(found.burden.severity_score) else ' of 24'}."
    )


def summary(found: Quantities) -> str:
    """The numbers for the terminal, at most 100 columns."""
    whole = [_line(number.label, number.text, number.span) for number in _whole_numbers(found)]
    heads = ("percent of lung", "limits of repeats", "ml") if found.spreads else ("percent of lung", "", "ml")
    regions = [_line("", *heads)]
    for region in (*SIDES, *THIRDS, *ZONES):
        percent, ml = (_number(found, f"{region}_{what}", "") for what in ("percent", "lesion_ml"))
        regions.append(_line(_zone_words(region), percent.text, percent.span, ml.text))
    told = [textwrap.fill(text, _COLUMNS) for text in (f"{answer(found)} {RESEARCH_ONLY}.", found.bar)]
    flags = [textwrap.fill(f"Look at it: {flag}", _COLUMNS, subsequent_indent="  ") for flag in found.flags]
    lines = [told[0], "", *whole, "", *regions, "", told[1], *flags]
    return "\n".join(line.rstrip() for line in lines)


def render_patient(found: Quantities, patient: Patient) -> str:
    """The page as HTML: no script, no address, every picture inside it; one sheet of A4 in print."""
    template = page_environment().get_template("patient.html.j2")
    regions = [_region_row(found, region) for region in (*SIDES, *THIRDS, *ZONES)]
    return template.render(
        answer=answer(found),
        found=found,
        identity=patient.identity,
        lung_words=LUNG_WORDS[found.case.lung_source],
        whole=_whole_numbers(found),
        regions=regions,
        bar_px=_BAR_PX,
        most_flags=_MOST_FLAGS,
        lesions=[_lesion_record(lesion, found) for lesion in found.burden.lesions[:_SHOWN_LESIONS]],
        more_lesions=max(0, len(found.burden.lesions) - _SHOWN_LESIONS),
        planes=draw_views(pick_views(found.case.volume, found.lesion, found.regions)),
        zones=draw_zones(found.regions, found.burden),
        definitions=DEFINITIONS,
        covered=COVERED,
        not_covered=NOT_COVERED,
        grid=_grid_words(found),
        version=metadata.version("lungshift"),
        research_only=RESEARCH_ONLY,
        figure=_figure,
        classes=list(zip(CLASS_COLOURS, CLASS_WORDS, strict=True)),
    )


def _number(found: Quantities, name: str, label: str) -> Number:
    low, high = found.limits(name)
    return Number(name, label, found.burden.quantities()[name], low, high, unit_of(name))


def _numbers(found: Quantities) -> dict[str, Number]:
    return {number.name: number for number in _whole_numbers(found)}


def _whole_numbers(found: Quantities) -> list[Number]:
    return [_number(found, name, label) for name, label in _WHOLE]


def _record(found: Quantities, name: str, value: float) -> dict[str, Any]:
    low, high = found.limits(name)
    region = next((one for one in sorted(REGIONS, key=len, reverse=True) if name.startswith(f"{one}_")), "both")
    spread = found.spread(name)
    return {
        "quantity": name,
        "region": region,
        "value": value,
        "unit": unit_of(name),
        "low": low,
        "high": high,
        "sd": spread.sd,
        "repeatability_coefficient": spread.coefficient,
        "undefined": why_undefined(name) if math.isnan(value) else "",
    }


def _lesion_record(lesion: Lesion, found: Quantities) -> dict[str, Any]:
    zone = int(found.regions.zones[lesion.seat])
    x, y, z = lesion.centre_mm
    return {
        "lesion": lesion.number,
        "ml": lesion.volume_ml,
        "mean_hu": lesion.mean_hu,
        "zone": _zone_words(ZONES[zone - 1]) if zone else "outside the lung mask",
        "slice": lesion.seat[0] + 1,
        "left_mm": x,
        "posterior_mm": y,
        "superior_mm": z,
    }


def _region_row(found: Quantities, region: str) -> dict[str, Any]:
    """A region's numbers, and where its percent and limits lie on a bar as wide as the largest."""
    percents = [found.limits(f"{zone}_percent")[1] for zone in (*SIDES, *THIRDS, *ZONES)]
    percents += [found.burden.extents[zone].percent for zone in (*SIDES, *THIRDS, *ZONES)]
    most = max((one for one in percents if not math.isnan(one)), default=0.0) or 1.0
    percent = _number(found, f"{region}_percent", _zone_words(region))
    places = {
        end: 0.0 if math.isnan(value) else _BAR_PX * value / most
        for end, value in (("value", percent.value), ("low", percent.low), ("high", percent.high))
    }
    ml = _number(found, f"{region}_lesion_ml", "")
    return {"region": region, "percent": percent, "ml": ml, "extent": found.burden.extents[region], "at": places}


def _zone_words(region: str) -> str:
    return region.replace("_", " ")


def _grid_words(found: Quantities) -> str:
    geometry = found.case.volume.geometry
    slices, rows, columns = geometry.shape
    slice_mm, row_mm, column_mm = geometry.spacing_mm
    return f"{plural(slices, 'slice')} of {rows} × {columns}, {slice_mm:.2g} × {row_mm:.2g} × {column_mm:.2g} mm"


def _figure(value: float, name: str = "") -> str:
    """A number with as many digits as it deserves: two or three, and none behind the point for counts, scores and HU."""
    if math.isnan(value):
        return "undefined"
    whole = name.endswith(("hu", "severity", "severity_score", "lesions", "lesions_counted"))
    if 0 < abs(value) < _LEAST and not whole:
        return "under 0.01"
    one = 1.0 if name.endswith("percent") else 10.0
    digits = 0 if whole or abs(value) >= 100 or value == 0 else 1 if abs(value) >= one else 2
    return f"{value:.{digits}f}".replace("-", "−")


def _line(label: str, *columns: str) -> str:
    return f"  {label:<30}" + "".join(
        f"{column:>24}" if place else f"{column:>18}" for place, column in enumerate(columns)
    )
