"""Thousands of damaged files, and what the readers make of them.

    python -m benchmarks.abuse.intake --output docs/benchmarks/abuse/intake.md
    python -m benchmarks.abuse.intake --make dicom 2281 damaged.dcm

The second makes one file again by its suite and number. ``--data`` names a folder with a real series of JPEG Lossless, of which counts alone come into the page.
Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO

from benchmarks.result import Result, short_table
from benchmarks.turns import ONE_THREAD

_GIVE_UP_S = 60.0
_GOOD = ("refused", "accepted", "resampled", "other")


@dataclass(frozen=True)
class Suite:
    """Files of one kind: how many, and how long reading one may take."""

    name: str
    title: str
    about: str
    count: int
    limit_s: float


SUITES = (
    Suite(
        "header",
        "Damaged NIfTI headers",
        "A sound file of 7 x 6 x 5 voxels (ten types, both byte orders, NIfTI-1 and -2, all 48 orders and directions of axes, scaled or not, scans and masks) with a damaged "
        "header; every fourth is compressed afterwards. It is read whole and slice by slice, which must give one answer; oblique ones are read again with resampling. What "
        "is accepted is compared, voxel by voxel at its place in the world, with what the bytes declare by arithmetic of our own "
        "(`benchmarks/abuse/oracle.py`, which uses neither lungshift nor nibabel).",
        10_000,
        5.0,
    ),
    Suite(
        "stream",
        "Damaged gzip streams",
        "Scans of 60 to 130 KB as gzip streams (six ways to deflate, one to five members, optional header fields). The truth is zlib with every CRC and length "
        "checked. A fifth is read strictly. Four kinds are unusual but sound, and must be accepted.",
        2_000,
        5.0,
    ),
    Suite(
        "dicom",
        "Damaged DICOM files",
        "The middle one of five slices, in sixteen encodings, with damage anywhere: header, meta information, pixels, deflate stream, items, lengths, sequences. Uncompressed files are "
        "read as a user reads them. Of compressed ones the headers are, and the pixels go through the process that decodes for users, with its limits, many files to a process.",
        4_000,
        10.0,
    ),
    Suite(
        "whole",
        "Compressed DICOM files, read whole",
        "The compressed ones among the first 160 of these again, now with a decoder's process for each, as a user reads them.",
        160,
        10.0,
    ),
    Suite(
        "real",
        "A real series of JPEG Lossless",
        "Five slices of 512 x 512 of a published series that is not part of the project, the third of them damaged.",
        60,
        10.0,
    ),
)


def main() -> None:
    """Run the suites, print what was found, write the page."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.abuse.intake", description=__doc__)
    names = [suite.name for suite in SUITES]
    words.add_argument("--only", nargs="*", choices=names, default=names)
    words.add_argument("--first", type=int, metavar="N", help="the first N files of each suite only")
    words.add_argument("--data", type=Path, help="folder of a real series of JPEG Lossless")
    words.add_argument("--make", nargs=3, metavar=("SUITE", "NUMBER", "FILE"), help="write one damaged file")
    words.add_argument("--output", type=Path, help="page to write (.md)")
    asked = words.parse_args()
    if asked.make:
        return _make(*asked.make)
    from benchmarks.report import describe_machine

    start, reached, page = describe_machine(), True, [f"# Intake under abuse\n\n{_ABOUT}"]
    page.append(_planted())
    for suite in SUITES:
        if suite.name not in asked.only or (suite.name == "real" and not asked.data):
            continue
        began = _cpu_seconds()
        results = _run(suite, min(suite.count, asked.first or suite.count), asked.data)
        goals = _goals(suite, results)
        reached &= all(goal.reached for goal in goals)
        page.append(_section(suite, results, goals, _cpu_seconds() - began))
        print(page[-1], flush=True)
    page.append(_machine(start, describe_machine()))
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text("\n\n".join(page) + "\n")
    return sys.exit(not reached)


_ABOUT = """Written by `python -m benchmarks.abuse.intake`, which exits with 1 if a goal is missed. Every file is made from its number:
`python -m benchmarks.abuse.intake --make dicom 2281 damaged.dcm` makes one again. A process of its own reads them; one that dies or does not end would be noticed,
counted, and replaced. What the faults are that these files found, is in the [changes](../../../CHANGELOG.md); each has a test in the [table of faults](faults.md).

“Refused” is an error of lungshift's own with a reason code. “Other” is a file that was accepted, and that no longer says what it said before it was damaged: nothing in an uncompressed
DICOM file, and little in a compressed one, tells a flipped bit from a measured one. Those are counted, and compared with what pydicom finds in the damaged file."""


def _make(name: str, number: str, target: str) -> None:
    from benchmarks.abuse.dicom_files import damaged_dicom
    from benchmarks.abuse.nifti_files import damaged_header, damaged_stream

    make = {"header": damaged_header, "stream": damaged_stream, "dicom": damaged_dicom, "whole": damaged_dicom}[name]
    Path(target).write_bytes(make(int(number)).data)


def _planted() -> str:
    """Try the judge on differences that it must see; what it lets pass ends the run."""
    import numpy as np

    from benchmarks.abuse.nifti_files import damaged_header
    from benchmarks.abuse.nifti_trial import difference
    from lungshift.ct.geometry import Geometry
    from lungshift.io.nifti import read_volume

    with tempfile.TemporaryDirectory() as folder:
        for number in range(1000):
            file = damaged_header(number)
            path = Path(folder) / file.name
            path.write_bytes(file.data)
            try:
                volume = read_volume(path, require_hu=False)
            except Exception:
                continue
            if not file.mask and not difference(volume.hu, volume.geometry, file.truth or b""):
                break
    moved = volume.geometry.affine.copy()
    moved[0, 3] += 0.01
    off = volume.hu.astype(float)
    off[0, 0, 0] += 1
    planted = [
        (off, volume.geometry),
        (volume.hu, Geometry(volume.geometry.shape, moved)),
        *((np.flip(volume.hu, axis), volume.geometry) for axis in range(3)),
    ]
    seen = sum(bool(difference(hu, geometry, file.truth or b"")) for hu, geometry in planted)
    if seen < len(planted):
        sys.exit(f"The judge saw {seen} of {len(planted)} planted differences.")
    return f"The judge itself is tried first: it sees {seen} of {len(planted)} planted differences (1 HU in one voxel, 0.01 mm, and each axis mirrored)."


# --- the process that reads


def _run(suite: Suite, count: int, data: Path | None) -> list[dict]:
    """What became of every file; where the process died or did not end, another begins after the file that did it."""
    results: list[dict] = []
    first = 0
    while first < count:
        with tempfile.TemporaryDirectory() as folder:
            last_began = first - 1
            for line in _lines(suite, first, count, folder, data):
                last_began = max(last_began, line.get("began", -1))
                results += [line] if "verdict" in line else []
        done = {line["number"] for line in results}
        lost = [number for number in range(first, last_began + 1) if number not in done and suite.name != "whole"]
        results += [_lost(number) for number in lost[-1:]]
        first = count if last_began == count - 1 or last_began < first else last_began + 1
    return sorted(results, key=lambda line: line["number"])


def _lost(number: int) -> dict:
    return {"number": number, "source": "", "kind": "", "verdict": "died or hung", "words": "", "seconds": _GIVE_UP_S}


def _lines(suite: Suite, first: int, last: int, folder: str, data: Path | None) -> Iterator[dict]:
    words = [sys.executable, "-m", "benchmarks.abuse.child", suite.name, str(first), str(last), folder]
    words += [str(data)] if data else []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | ONE_THREAD
    ) as child:
        if child.stdout is None:
            return
        queue: Queue[str] = Queue()
        Thread(target=_pump, args=(child.stdout, queue), daemon=True).start()
        try:
            while line := queue.get(timeout=_GIVE_UP_S):
                yield json.loads(line)
        except Empty:
            child.kill()


def _pump(stream: IO[str], queue: Queue[str]) -> None:
    for line in stream:
        queue.put(line)
    queue.put("")


def _cpu_seconds() -> float:
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    return children.ru_utime + children.ru_stime + own


# --- the page


def _goals(suite: Suite, results: list[dict]) -> list[Result]:
    counts = Counter(line["verdict"] for line in results)
    peak = {who: max((line["mib"][who] for line in results if "mib" in line), default=0) for who in ("own", "decoder")}
    slowest = max(results, key=lambda line: line["seconds"])
    goals = [
        Result("files read", len(results), "", len(results) if suite.name == "whole" else suite.count, "at least"),
        Result("crashes and processes that did not end", counts["died or hung"], "", 0),
        Result("errors without a reason code", counts["untyped"] + counts["resources"], "", 0),
        Result("accepted with voxels or places other than the file declares", counts["wrong"], "", 0),
    ]
    if suite.name in ("header", "stream"):
        goals.append(Result("whole and slice by slice: two answers", counts["two answers"], "", 0))
    goals.append(Result(f"slowest file (number {slowest['number']}), s", slowest["seconds"], "", suite.limit_s))
    goals.append(Result("memory of the reading process, MiB", peak["own"], "", 500))
    if peak["decoder"]:
        goals.append(Result("memory of the largest decoder's process, MiB", peak["decoder"], "", 500))
    return goals


def _section(suite: Suite, results: list[dict], goals: list[Result], cpu_s: float) -> str:
    codes = Counter(line["words"].partition(",")[0] for line in results if line["verdict"] == "refused")
    told = ", ".join(f"`{code}` {count}" for code, count in codes.most_common())
    parts = [f"## {suite.title}", suite.about, short_table(goals), _by_kind(results), f"Refused with {told}."]
    parts += _others(results) + _exceptions(results)
    parts.append(f"{cpu_s:.0f} CPU seconds.")
    return "\n\n".join(parts)


def _by_kind(results: list[dict]) -> str:
    """A row for each kind of damage, a column for each verdict that occurs."""
    verdicts = [name for name in (*_GOOD, "refused though sound") if any(line["verdict"] == name for line in results)]
    rows = [f"| damage | files | {' | '.join(verdicts)} |", "|---|---|" + "---|" * len(verdicts)]
    for kind in sorted({line["kind"] for line in results}):
        of = Counter(line["verdict"] for line in results if line["kind"] == kind)
        rows.append(f"| {kind} | {of.total()} | {' | '.join(str(of[name]) for name in verdicts)} |")
    return "\n".join(rows)


def _others(results: list[dict]) -> list[str]:
    """By encoding: accepted files that say something else than before."""
    others = [line for line in results if line["verdict"] == "other"]
    if not others:
        return []
    kinds = sorted({line["words"] for line in others})
    rows = [f"| accepted, but other than before | files | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for source in dict.fromkeys(line["source"] for line in results):
        of = Counter(line["words"] for line in others if line["source"] == source)
        files = sum(line["source"] == source for line in results)
        rows.append(f"| {source} | {files} | {' | '.join(str(of[kind]) for kind in kinds)} |")
    return ["\n".join(rows)]


def _exceptions(results: list[dict]) -> list[str]:
    """What needs a word: sound streams that were refused, and files that are no goal's but not good."""
    told = []
    if sound := [line["number"] for line in results if line["verdict"] == "refused though sound"]:
        told.append(
            f"{len(sound)} sound streams were refused: those whose gzip header has a CRC of its own (a flag that the gzip program never sets) and is longer than a piece of 64 KiB, "
            f"which isal cannot take in two pieces. The first is {sound[0]}."
        )
    bad = [line for line in results if line["verdict"] not in (*_GOOD, "refused though sound")]
    told += [f"- {line['number']}: {line['verdict']}, {line['kind']}, {line['words']}" for line in bad[:20]]
    return told


def _machine(start: dict, end: dict) -> str:
    names = ("lungshift", "numpy", "isal", "nibabel", "SimpleITK")
    versions = ", ".join(f"{name} {start['versions'][name]}" for name in names)
    return (
        f"Measured on {start['processor']}, one thread; Python {start['python']}, {versions}. Load (1, 5, 15 minutes) {start['load']} at the start and "
        f"{end['load']} at the end; seconds of a file are by the clock, so a busy machine lengthens them."
    )


if __name__ == "__main__":
    main()
