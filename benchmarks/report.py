"""The results of one run as a page and as JSON, with the machine they are from."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.result import Result

_PACKAGES = ("lungshift", "numpy", "torch", "openvino", "monai", "isal", "nibabel", "SimpleITK", "pillow")
_INTRODUCTION = """# Speed and memory

Written by the runs themselves; `benchmarks/README.md` says how to repeat them and how to read them. Times are CPU seconds of one
thread, the best of a contestant's turns; a ratio is of contestants that took turns in one run. The run is named under each table.
"""
_HEAD = "| what | goal | measured | verdict | how |\n|---|---|---|---|---|"


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load and versions; nothing that names the machine."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }


def table(results: list[Result]) -> str:
    """Results as a markdown table."""
    return "\n".join([_HEAD, *(result.as_row() for result in results)])


def write_report(parts: dict[str, list[Result]], start: dict[str, Any], command: str, output: Path) -> None:
    """Write the page, and a JSON of the same values beside it; parts of an earlier run that were not run again are kept."""
    here = start | {"load_at_end": describe_machine()["load"], "command": command}
    file = output.with_suffix(".json")
    whole = json.loads(file.read_text()) if file.is_file() else {}
    for title, results in parts.items():
        whole[title] = {"run": here, "results": [asdict(result) | {"verdict": result.verdict} for result in results]}
    output.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    output.write_text("\n".join([_INTRODUCTION, *(_section(title, part) for title, part in whole.items())]))


def _section(title: str, part: dict[str, Any]) -> str:
    run = part["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rows = [Result(**{key: value for key, value in row.items() if key != "verdict"}) for row in part["results"]]
    return (
        f"## {title}\n\n{table(rows)}\n\n{run['date']}, `{run['command']}`, {run['processor']}, {run['cores']} cores, {run['system']}, "
        f"load (1, 5, 15 minutes) {run['load']} at the start and {run['load_at_end']} at the end; Python {run['python']}, {versions}.\n"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
