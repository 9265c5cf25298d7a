"""What load does: a study of 1,000 slices of 768 x 768, memory limits, and 200 predictions in one process.

    python -m benchmarks.abuse.load --output docs/benchmarks/abuse/load.md

Every row is measured on a process of its own that does nothing else. Memory is the highest resident memory that the system saw of it (``VmHWM``),
what memory maps included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Result
from benchmarks.turns import ONE_THREAD

_MIB, _GIB = 1 << 20, 1 << 30
_ROOT = Path(__file__).parents[2]
PARTS = ("intake", "prediction", "pages", "limit", "flat", "soak")
"""The parts of the page, in order."""
_CHILD = """
import json, sys
from pathlib import Path
from benchmarks.abuse import load, load_inputs
print(json.dumps({call}))
"""


@dataclass(frozen=True)
class Ran:
    """What became of a process.

    Attributes:
        code: Its exit code; below 0 the signal that killed it.
        peak_mib: Its highest resident memory.
        cpu_s, wall_s: Its time.
        said: What it printed, errors last.
    """

    code: int
    peak_mib: float
    cpu_s: float
    wall_s: float
    said: str

    @property
    def cost(self) -> str:
        """Time in words."""
        return f"{self.cpu_s:.1f} CPU-s, {self.wall_s:.0f} s by the clock"


def run(words: Sequence[str], limit_bytes: int | None = None) -> Ran:
    """Run a Python process, under a limit on its address space if there is one."""

    def begin() -> None:
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))

    environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "src")])}
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=said,
            stderr=said,
            env=environment,
            preexec_fn=begin,  # noqa: PLW1509 — there are no threads here
            cwd=_ROOT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        said.seek(0)
        text = said.read()
    code = os.waitstatus_to_exitcode(status)
    return Ran(code, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, wall, text)


def lungshift(*words: object, limit_bytes: int | None = None) -> Ran:
    """Run a command."""
    return run(["-m", "lungshift", *map(str, words)], limit_bytes)


def child(call: str) -> tuple[Ran, object]:
    """Run a call of this module or of ``load_inputs`` in a process of its own; what it cost and what it gave."""
    done = run(["-c", _CHILD.format(call=call)])
    if done.code:
        raise SystemExit(f"{call} failed:\n{done.said}")
    return done, json.loads(done.said.splitlines()[-1])


def take_in(scan: str, lung: str | None) -> dict[str, float]:
    """Read a study to its last byte, slice by slice, with every check, and hash its files; how far memory rose above the imports."""
    import lungshift.io.dicom
    from lungshift.io.scan import open_scan

    lungshift.io.dicom.decode  # noqa: B018 — imported before memory is looked at
    before, started = _high_mib(), time.process_time()
    source = open_scan(Path(scan), lung=lung and Path(lung))
    count = sum(1 for _ in source.slices())
    source.checksums()
    return {"mib": _high_mib() - before, "cpu_s": time.process_time() - started, "slices": count}


def soak(model: str, folder: str, cases: int) -> list[float]:
    """Predict small scans, one after another in this process, each into a folder; resident memory in MiB after each."""
    from lungshift.patient.batch import predict_one
    from lungshift.patient.predicting import Options
    from lungshift.patient.studies import find_studies

    scans, options, resident = sorted(Path(folder).glob("*.nii.gz")), Options(Path(model), device="cpu"), []
    for number in range(cases):
        target = Path(folder) / f"out{number}"
        predict_one(find_studies([scans[number % len(scans)]]), options, target)
        shutil.rmtree(target)
        resident.append(_status_mib("VmRSS"))
    return resident


def _high_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure(folder: Path, only: Sequence[str], slices: int, size: int, cases: int) -> Iterator[tuple[str, str, str]]:
    """The parts of the page that are asked for, as they are done: name, title and table."""
    from benchmarks.report import table

    large, model = folder / "large", folder / "model"
    child(f"str(load_inputs.write_model(Path({str(model)!r})))")
    if set(only) - {"flat", "soak"}:
        child(f"load_inputs.write_large(Path({str(large)!r}), {slices}, {size})")
    what = f"{slices:,} slices of {size} x {size}"
    parts = {
        "intake": (f"Taking in {what}", lambda: table(list(_intake(large)))),
        "prediction": (f"Predicting {what}", lambda: table(list(_prediction(large, model, folder)))),
        "pages": (f"Showing {what}", lambda: table(list(_pages(large, model, folder)))),
        "limit": ("Under a limit of 2 GiB", lambda: "\n".join(_limited(large, model, folder))),
        "flat": ("Many slices and few", lambda: table(list(_flat(model, folder, slices)))),
        "soak": (f"{cases} predictions in one process", lambda: table(list(_soak(model, folder, cases)))),
    }
    for name in only:
        title, done = parts[name]
        yield name, title, done()


def _intake(large: Path) -> Iterator[Result]:
    for name, scan, lung in (
        ("NIfTI, gzip", "volume.nii.gz", None),
        ("NIfTI with its lung mask", "volume.nii.gz", "lung.nii.gz"),
        ("DICOM series", "series", None),
    ):
        mask = str(large / lung) if lung else None
        done, told = child(f"load.take_in({str(large / scan)!r}, {mask!r})")
        assert isinstance(told, dict)
        note = f"{told['slices']} slices read, checked and hashed in {told['cpu_s']:.1f} CPU-s; {done.peak_mib:.0f} MiB with imports"
        yield Result(f"{name}: memory above the imports", told["mib"], "MiB", 100, note=note)


def _prediction(large: Path, model: Path, folder: Path) -> Iterator[Result]:
    for name, scan, more in (
        ("NIfTI, lungs by a file", "volume.nii.gz", ["--lung", large / "lung.nii.gz"]),
        ("NIfTI, lungs by threshold", "volume.nii.gz", []),
        ("NIfTI across the slices, lungs by threshold", "across.nii", []),
        ("DICOM series to SEG, lungs by threshold", "series", []),
    ):
        output = folder / name.replace(" ", "-").replace(",", "")
        done = lungshift("predict", model, large / scan, *more, "--output", output, "--device", "cpu")
        said = done.said.partition(": ")[2].partition(". ")[0] if done.code == 0 else f"exit code {done.code}"
        yield Result(
            f"{name}: memory", done.peak_mib / 1024 if done.code == 0 else None, "GiB", 3.0, note=f"{said}; {done.cost}"
        )


def _pages(large: Path, model: Path, folder: Path) -> Iterator[Result]:
    scan, found = large / "volume.nii.gz", _predicted(large, model, folder)
    for name, page, words in (
        ("page of quantify", "patient.html", ("quantify", scan, "--prediction", found)),
        ("viewer", "viewer.html", ("scene", scan, "--prediction", found, "--formats", "viewer")),
    ):
        output = folder / words[0]
        done = lungshift(*words, "--output", output)
        size = (output / page).stat().st_size / 1e6 if done.code == 0 else None
        voxel = done.peak_mib * _MIB / _voxels(scan)
        note = f"{done.peak_mib / 1024:.1f} GiB of memory, {voxel:.1f} bytes a voxel; {done.cost}"
        yield Result(f"{name}: size", size, "MB", 20, note=note)


def _predicted(large: Path, model: Path, folder: Path) -> Path:
    """The folder of a prediction; the same command again keeps it."""
    output, words = folder / "NIfTI-lungs-by-a-file", ["--lung", large / "lung.nii.gz", "--device", "cpu"]
    lungshift("predict", model, large / "volume.nii.gz", *words, "--output", output)
    return output


def _voxels(scan: Path) -> int:
    from lungshift.io.scan import open_scan

    slices, rows, columns = open_scan(scan).geometry.shape
    return slices * rows * columns


def _limited(large: Path, model: Path, folder: Path) -> Iterator[str]:
    """What fits is done; what does not is refused before anything is read, with exit code 6."""
    predict, scan, found = ("predict", model), large / "volume.nii.gz", _predicted(large, model, folder)
    yield "| what | exit code expected | was | files left | CPU-s | said |\n|---|---|---|---|---|---|"
    for name, code, words in (
        ("predict, NIfTI, which fits", 0, (*predict, scan, "--device", "cpu")),
        ("predict, NIfTI across the slices", 6, (*predict, large / "across.nii", "--device", "cpu")),
        ("predict, DICOM series", 6, (*predict, large / "series", "--device", "cpu")),
        ("quantify", 6, ("quantify", scan, "--prediction", found)),
        ("scene", 6, ("scene", scan, "--prediction", found, "--formats", "viewer")),
    ):
        output = folder / "limited"
        done = lungshift(*words, "--output", output, limit_bytes=2 * _GIB)
        left = sorted({file.name for file in output.rglob("*") if file.is_file()} - {".lock"})
        said = done.said.replace(f"{folder}/", "").splitlines()[-1 if done.code else 0].partition(". ")[0]
        shutil.rmtree(output, ignore_errors=True)
        yield f"| {name} | {code} | {done.code} | {', '.join(left) or 'none'} | {done.cpu_s:.1f} | {said} |"


def _flat(model: Path, folder: Path, slices: int) -> Iterator[Result]:
    """The command on short and long scans of 512 x 512."""
    from benchmarks.inputs import write_phantom

    peaks: dict[int, dict[str, float]] = {}
    for count in (40, slices):
        scans = folder / f"flat{count}"
        write_phantom(scans, count)
        for name, more in (("a file", ["--lung", scans / "lung.nii.gz"]), ("threshold", [])):
            output = folder / f"flat-{count}-{len(more)}"
            done = lungshift("predict", model, scans / "volume.nii.gz", *more, "--output", output, "--device", "cpu")
            if done.code:
                raise SystemExit(done.said)
            peaks.setdefault(count, {})[name] = done.peak_mib
    for name in ("a file", "threshold"):
        few, many = peaks[40][name], peaks[slices][name]
        note = (
            f"`lungshift predict`, lungs by {name}: {few:.0f} MiB with 40 slices of 512², {many:.0f} MiB with {slices}"
        )
        yield Result(f"memory of {slices} slices / 40, lungs by {name}", many / few, "x", 1.05, note=note)
        yield Result(f"memory of {slices} slices, lungs by {name}", many / 1024, "GiB", 0.35, note="imports included")


def _soak(model: Path, folder: Path, cases: int) -> Iterator[Result]:
    import numpy as np

    scans = folder / "small"
    scans.mkdir()
    child(f"len(load_inputs.write_small(Path({str(scans)!r}), 10))")
    done, told = child(f"load.soak({str(model)!r}, {str(scans)!r}, {cases})")
    resident = np.array(told)
    settled = len(resident) // 4
    slope, early = (np.polyfit(np.arange(len(part)), part, 1)[0] for part in (resident[settled:], resident[:settled]))
    note = (
        f"fitted to the last {len(resident) - settled} of {cases} predictions of ten different chests; {resident[settled]:.0f} MiB after {settled}, "
        f"{resident[-1]:.0f} MiB in the end; while the first {settled} warm up it is {early:.2f}; {done.cost}"
    )
    yield Result("growth of resident memory", float(slope), "MiB a case", 0.2, note=note)


_INTRODUCTION = """# Load

Written by `python -m benchmarks.abuse.load --output docs/benchmarks/abuse/load.md`; `--only` runs some parts again, and each part names its own run. The study is a phantom in
thin slices with noise of its own on each: as NIfTI (int16, gzip), as NIfTI whose slices lie across the order of its voxels, and as a DICOM series (uncompressed). Every row is
a process of its own with one thread; memory is its highest resident memory (`VmHWM`), imports included unless the row says otherwise. The network has width 16 and random
weights but for the path that finds what is dense.
"""


def write_page(parts: dict[str, dict[str, str]], output: Path) -> None:
    """Write the page, and a JSON of its parts beside it; parts of an earlier run that were not run again are kept."""
    file = output.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.is_file() else {}
    kept |= parts
    output.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    sections = [
        f"## {one['title']}\n\n{one['table']}\n\n{one['run']}\n"
        for one in (kept[name] for name in PARTS if name in kept)
    ]
    output.write_text("\n".join([_INTRODUCTION, *sections]))


def main() -> None:
    """Measure, print, and write the page if asked."""
    from benchmarks.report import describe_machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="The page to write.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--cases", type=int, default=200)
    words = parser.parse_args()
    start, used = describe_machine(), _used_s()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for name, title, text in measure(Path(folder), words.only, words.slices, words.size, words.cases):
            run = _describe(start, used)
            start, used = describe_machine(), _used_s()
            print(f"{title}\n{text}\n{run}\n", flush=True)
            if words.output:
                write_page({name: {"title": title, "table": text, "run": run}}, words.output)


def _used_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _describe(start: dict, used_s: float) -> str:
    from benchmarks.report import describe_machine

    versions = ", ".join(f"{name} {start['versions'][name]}" for name in ("lungshift", "numpy", "openvino", "isal"))
    return (
        f"{start['processor']}, {start['cores']} cores, {start['system']}, load (1, 5, 15 minutes) {start['load']} at the start and "
        f"{describe_machine()['load']} at the end; {_used_s() - used_s:.0f} CPU-seconds; Python {start['python']}, {versions}."
    )


if __name__ == "__main__":
    main()
