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

_PACKAGES = ("lungshift", "numpy", "torch", "isal", "nibabel", "SimpleITK", "pillow")
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
    """Write the page, and a JSON of the same values beside it."""
    end_load = describe_machine()["load"]
    versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
    text = [
        "# Speed and memory\n",
        "Written by the run itself; see `benchmarks/README.md` for how to repeat it and how to read it. Times are CPU seconds of "
        "one thread, the best of the turns; ratios are of contestants that took turns in this run.\n",
        f"- Date: {start['date']}",
        f"- Command: `{command}`",
        f"- Machine: {start['processor']}, {start['cores']} cores, {start['system']}; load {start['load']} at the start, "
        f"{end_load} at the end (1, 5 and 15 minutes)",
        f"- Versions: Python {start['python']}, {versions}\n",
    ]
    for title, results in parts.items():
        text += [f"## {title}\n", table(results) + "\n"]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(text))
    values = {title: [asdict(r) | {"verdict": r.verdict} for r in results] for title, results in parts.items()}
    whole = start | {"load_at_end": end_load, "command": command, "results": values}
    output.with_suffix(".json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
