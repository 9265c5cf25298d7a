"""The report: one page that explains itself and needs no network, and the same numbers as files."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungshift.files import write_bytes, write_json, write_text
from lungshift.show import tables, words
from lungshift.show.figures import Drawing, draw_all
from lungshift.show.paper import PAPER_SOURCE, is_paper
from lungshift.show.tables import PAPER_CONVENTIONS, SHOWN, Row, build_table, summary_rows
from lungshift.transfer.outcome import Outcome, Run


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write ``report.html``, ``table.csv``, ``table.json``, ``counts.csv``, ``outcome.json`` and ``figures/`` into a folder.

    The page is written last: where it stands, everything else does.

    Args:
        outcome: What a study found.
        folder: New or existing; files of the same name are replaced.

    Returns:
        The page.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    table, drawings = build_table(outcome), draw_all(outcome)
    for drawing in drawings:
        write_bytes(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write_bytes(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write_text(folder / "table.csv", tables.to_csv(table))
    write_json(folder / "table.json", plain(_table_json(outcome, table)))
    write_text(folder / "counts.csv", tables.counts_csv(outcome))
    write_json(folder / "outcome.json", plain(_outcome_json(outcome, table)))
    page = folder / "report.html"
    write_text(page, render_page(outcome, table, drawings))
    return page


def render_page(outcome: Outcome, table: Sequence[Row], drawings: Sequence[Drawing]) -> str:
    """The page as HTML: no script, no address, every picture inside it."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        outcome=outcome,
        question=words.question(outcome),
        answer=words.answer(outcome, table),
        methods=words.methods(outcome),
        groups=[(name, summary_rows(table, name), summary_rows(table, name, "in_lung")) for name in SHOWN],
        native=[(name, rows) for name in SHOWN if (rows := summary_rows(table, name, "native"))],
        seeds=tables.seed_rows(table),
        paper=[(name, [row for row in summary_rows(table, name) if row.paper]) for name in PAPER_CONVENTIONS],
        paper_source=PAPER_SOURCE if is_paper(outcome) else "",
        paper_notes=words.comparison_notes(outcome),
        drawings={group: [d for d in drawings if d.group == group] for group in ("training", "cases", "examples")},
        settings=list(flatten(plain(outcome.protocol))),
        manifest=list(flatten(plain(outcome.manifest))),
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


def _word(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "undefined" if missing else str(value)


def _environment() -> Any:
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
        "data_uri": _data_uri,
    }
    environment.tests["undefined_number"] = math.isnan
    return environment


def _data_uri(drawing: Drawing) -> str:
    """Charts as vectors; slices as PNG, which is what they are inside an SVG anyway."""
    kind, data = ("png", drawing.png) if drawing.group == "examples" else ("svg+xml", drawing.svg)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _table_json(outcome: Outcome, table: Sequence[Row]) -> dict[str, Any]:
    return {
        "question": words.question(outcome),
        "answer": words.answer(outcome, table),
        "use": words.RESEARCH_ONLY,
        "leaky_split": outcome.leaky,
        "warning": f"{words.LEAK_WARNING} {words.LEAK_INTERVALS}" if outcome.leaky else "",
        "conventions": words.CONVENTION_WORDS,
        "regions": tables.REGIONS,
        "paper": PAPER_SOURCE if is_paper(outcome) else None,
        "rows": tables.records(table),
    }


def _outcome_json(outcome: Outcome, table: Sequence[Row]) -> dict[str, Any]:
    return {
        "protocol": outcome.protocol,
        "source": outcome.source,
        "target": outcome.target,
        "splits": outcome.splits,
        "leaky_split": outcome.leaky,
        "runs": [_run_json(run) for run in outcome.runs],
        "averages": tables.records(table),
        "histories": outcome.histories,
        "examples": [
            {"run": e.run, "kind": e.kind, "case": e.case_id, "slice": e.slice_index, "slice_dice": e.dice}
            for e in outcome.examples
        ],
        "manifest": outcome.manifest,
    }


def _run_json(run: Run) -> dict[str, Any]:
    names = ("arm", "tested_on", "role", "budget", "seed", "threshold", "min_pixels")
    return {name: getattr(run, name) for name in names} | {"slices": len(run.scores.slices)}
