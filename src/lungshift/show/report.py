"""The report: one page that explains itself and needs no network, and the same numbers as files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungshift.audit.duplicates import Twins
from lungshift.files import write_bytes, write_json, write_text
from lungshift.show import claims, tables, words
from lungshift.show.causes import CAUSE_WORDS, cause_records
from lungshift.show.curves import CONVENTIONS_DRAWN
from lungshift.show.drawing import Drawing
from lungshift.show.dumbbells import patient_records
from lungshift.show.figures import draw_all
from lungshift.show.findings import Findings
from lungshift.show.matrix import matrices_of, matrix_records, shade
from lungshift.show.methods import methods
from lungshift.show.paper import PAPER_SOURCE, is_paper
from lungshift.show.pooled import Region
from lungshift.show.tables import PAPER_CONVENTIONS, SHOWN, Cell, Row, summary_rows
from lungshift.transfer.outcome import Outcome, Run

_GROUPS = ("curves", "forgetting", "cases", "drop", "examples", "training")
_PAGE_WIDTH = 1240
"""Pixels of an example on the page; the files have it in full."""


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write ``report.html``, its numbers as CSV and JSON, ``outcome.json`` and ``figures/`` into a folder.

    ``table`` holds every average, ``counts.csv`` what they were made of; ``matrix``, ``patients``, ``leak``, ``drop``, ``twins`` and
    ``claims`` hold what the page shows of each, where there is any. The page is written last: where it stands, all else does.

    Args:
        outcome: What a study found.
        folder: New or existing; files of the same name are replaced.

    Returns:
        The page.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    findings = Findings.of(outcome)
    drawings = draw_all(outcome, findings.table)
    for drawing in drawings:
        write_bytes(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write_bytes(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write_text(folder / "table.csv", tables.to_csv(findings.table))
    write_json(folder / "table.json", plain(_table_json(outcome, findings)))
    write_text(folder / "counts.csv", tables.counts_csv(outcome))
    for name, records in _further(outcome, findings).items():
        write_text(folder / f"{name}.csv", tables.write_csv(records))
        write_json(folder / f"{name}.json", plain(records))
    write_json(folder / "outcome.json", plain(_outcome_json(outcome, findings)))
    page = folder / "report.html"
    write_text(page, render_page(outcome, findings, drawings))
    return page


def render_page(outcome: Outcome, findings: Findings, drawings: Sequence[Drawing]) -> str:
    """The page as HTML: no script, no address, every picture inside it."""
    table = findings.table
    template = page_environment().get_template("report.html.j2")
    return template.render(
        outcome=outcome,
        findings=findings,
        methods=methods(outcome),
        matrices=matrices_of(outcome, table),
        compact=_compact(table),
        leaks=_side_by_side(findings.leak),
        groups=[(name, summary_rows(table, name), summary_rows(table, name, "in_lung")) for name in SHOWN],
        native=_compact(table, "native"),
        seeds=[(name, *tables.by_seed(table, name)) for name in CONVENTIONS_DRAWN],
        paper=[(name, [row for row in summary_rows(table, name) if row.paper]) for name in PAPER_CONVENTIONS],
        paper_source=PAPER_SOURCE if is_paper(outcome) else "",
        paper_notes=words.comparison_notes(outcome),
        drawings={group: [d for d in drawings if d.group == group] for group in _GROUPS},
        settings=list(flatten(plain(outcome.protocol))),
        manifest=list(flatten(plain(outcome.manifest))),
        cause_words=CAUSE_WORDS,
        shown=SHOWN,
        words=words,
    )


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses as dictionaries, numpy as numbers and lists, infinity and others as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines of a table: ``("training.epochs", "200")``; NaN and None say ``undefined``."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flatten(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{name}[{index}]")
    else:
        yield name, ", ".join(map(_word, value)) if isinstance(value, list | dict) else _word(value)


def _compact(table: Sequence[Row], region: Region = "whole_slice") -> list[tuple[str, list[tuple[Row, list[Cell]]]]]:
    """F1 alone, the conventions side by side; the rows of one cohort that were tested alike under one heading."""
    found: dict[str, list[tuple[Row, list[Cell]]]] = {}
    for row, cells in _side_by_side(table, region):
        again = " again, after training on more" if row.role == "source" and row.labels else ""
        found.setdefault(f"{row.tested_on}{again}: {_tested(row)}", []).append((row, cells))
    return list(found.items())


def _tested(row: Row) -> str:
    """How much was tested, in words."""
    parts = [
        words.plural(row.patients, "patient"),
        f"{tables.whole(row.slices)} slices{' for each seed' * row.is_pooled}",
    ]
    parts += [f"{len(row.seeds)} seeds"] * row.is_pooled + [f"{row.folds} folds"] * (row.folds > 1)
    return ", ".join(parts)


def _side_by_side(table: Sequence[Row], region: Region = "whole_slice") -> list[tuple[Row, list[Cell]]]:
    """Each arm and budget once, with its F1 by every convention that pages show."""
    columns = [{row.key: row.cells["dice"] for row in summary_rows(table, name, region)} for name in SHOWN]
    return [(row, [column[row.key] for column in columns]) for row in summary_rows(table, SHOWN[0], region)]


def _word(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "undefined" if missing else str(value)


def page_environment() -> Any:
    """How pages are made from templates: text is escaped, and nothing undefined is passed over."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lungshift.show", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "exact": tables.exact,
        "number": tables.number,
        "span": tables.span,
        "signed": tables.signed,
        "whole": tables.whole,
        "shade": shade,
        "data_uri": _data_uri,
    }
    environment.tests["undefined_number"] = math.isnan
    return environment


def _data_uri(drawing: Drawing) -> str:
    """Charts as vectors; slices, and the many training curves, as small pictures."""
    small = drawing.group in ("examples", "training", "planes")
    kind, data = ("webp", _small(drawing.png)) if small else ("svg+xml", drawing.svg)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _small(png: bytes) -> bytes:
    """A picture as WebP at the width of the page: half of the PNG or less."""
    from PIL import Image

    if not png:
        return b""
    picture, out = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    picture.thumbnail((_PAGE_WIDTH, _PAGE_WIDTH), Image.Resampling.LANCZOS)
    picture.save(out, "webp", quality=88, method=4)
    return out.getvalue()


def _further(outcome: Outcome, findings: Findings) -> dict[str, list[dict[str, Any]]]:
    """What else has its own files, by name; without those that would be empty."""
    found = {
        "matrix": matrix_records(matrices_of(outcome, findings.table)),
        "patients": patient_records(outcome),
        "leak": tables.records(findings.leak),
        "drop": cause_records(outcome.explanation) if outcome.explanation else [],
        "twins": [_twins_record(twins) for twins in outcome.twins],
        "claims": list(findings.claim_records),
    }
    return {name: records for name, records in found.items() if records}


def _twins_record(twins: Twins) -> dict[str, Any]:
    sides = zip(("first", "second"), (twins.first, twins.second), twins.patients, strict=True)
    who = {
        f"{side}_{key}": value
        for side, (cohort, case), patient in sides
        for key, value in (("cohort", cohort), ("case", case), ("patient", patient))
    }
    return who | {"kind": twins.kind, "likeness": twins.likeness, "reason": twins.reason}


def _table_json(outcome: Outcome, findings: Findings) -> dict[str, Any]:
    return {
        "question": findings.question,
        "answer": findings.answer,
        "on_all_slices": findings.on_all_slices,
        "claims": claims.sentences(findings.claims),
        "use": words.RESEARCH_ONLY,
        "leaky_split": outcome.leaky,
        "warning": f"{words.LEAK_WARNING} {words.LEAK_INTERVALS}" if outcome.leaky else "",
        "conventions": words.CONVENTION_WORDS,
        "regions": tables.REGIONS,
        "paper": PAPER_SOURCE if is_paper(outcome) else None,
        "rows": tables.records(findings.table),
    }


def _outcome_json(outcome: Outcome, findings: Findings) -> dict[str, Any]:
    return {
        "kind": outcome.kind,
        "protocol": outcome.protocol,
        "cohorts": outcome.cohorts,
        "source": outcome.source,
        "target": outcome.target,
        "splits": outcome.splits,
        "leaky_split": outcome.leaky,
        "runs": [_run_json(run) for run in outcome.runs],
        "leak": [_run_json(run) for run in outcome.leak],
        "averages": tables.records(findings.table),
        "histories": outcome.histories,
        "examples": [
            {"run": e.run, "kind": e.kind, "case": e.case_id, "slice": e.slice_index, "slice_dice": e.dice}
            for e in outcome.examples
        ],
        "twins": outcome.twins,
        "explanation": outcome.explanation,
        "manifest": outcome.manifest,
    }


def _run_json(run: Run) -> dict[str, Any]:
    names = ("arm", "tested_on", "role", "budget", "labels", "seed", "fold", "trained_on", "threshold", "min_pixels")
    return {name: getattr(run, name) for name in names} | {"slices": len(run.scores.slices)}
