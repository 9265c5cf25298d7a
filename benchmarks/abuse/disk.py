"""Run every command on disks of every size, and on disks that fail otherwise: never a success with a bad file, never an old output lost.

    .venv/bin/python -m benchmarks.abuse.disk --output docs/benchmarks/abuse/disk.md

Needs the right to mount (tmpfs), so it is run as root; where that is not allowed it says so and ends. Each command runs on small
phantoms, in a fork of one process that has imported everything, with its output on a small disk of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.abuse.kill import make_cheap
from benchmarks.abuse.looking import Seen, look, wrong_with
from benchmarks.abuse.places import make_places
from benchmarks.abuse.runs import Command, get_ready, start
from benchmarks.report import describe_machine

_PAGE_BYTES = 4096
_MIB = 1 << 20
_NAMES_BYTES = re.compile(r"[\d,]+ (?:bytes|are free)")
COMMANDS = ("prepare", "train", "predict", "SEG", "scene", "audit", "quantify", "transfer")
OTHERS = "disks that fail otherwise"
PAGE = """# Full disks, and disks that fail

{found}

Each command ran with its output on disks (tmpfs) of its own: sizes drawn at random between one that holds nearly nothing and a little more than the output
itself, and 1, 2, 4, … 64 MiB as far as they are smaller than that. Each time

- it ends with 0 and has every file of a run on a large disk, bit for bit, or it ends with 6 and says which path, how many bytes, and what to do;
- every file that can be seen can be read to its end, no folder is half there, and nothing hidden is left but the lock;
- an output of an earlier run beside it is as it was;
- given again with more room, the command that was refused goes on and ends with the files of the run on a large disk.

| command | disks | its output | done | refused with 6 | faults |
|---|---|---|---|---|---|
{rows}

{missing}While it works a command needs more than its output takes in the end, so that few of these disks are large enough. The runs are forks of one process, as for
[kills](kill.md), and leave out of the comparison what is left out there.

A `scene` was also written over an older one with `--overwrite`, which stays until the new one stands whole. A folder of a run
(`train`, `transfer`, `audit`, `quantify`) is another matter: `--overwrite` gives the old run up before the new one begins.

## Disks and machines that fail otherwise

A disk that is read-only; one whose third flush fails, and all after it; a process that may open one file more than are open
(0: it needed no more, and every file it wrote can be read).

| what | command | exit code | says |
|---|---|---|---|
{others}

One thread on {processor}, {cores} cores; run by

{runs}
"""


@contextmanager
def disk(size: int, place: Path) -> Iterator[Path]:
    """A tmpfs of so many bytes."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def may_mount() -> bool:
    """Whether a tmpfs can be mounted here."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with disk(_MIB, Path(place) / "try"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@dataclass
class Told:
    """What was found of one command."""

    name: str
    writes: int
    whole: Seen
    ends: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        """A row of the table."""
        return (
            f"| {self.name} | {self.ends.total()} | {self.writes / _MIB:.1f} MiB | {self.ends[0]} | {self.ends[6]} | "
            f"{len(self.faults) or 'none'} |"
        )


def sweep_sizes(command: Command, room: Path, count: int, rng: random.Random) -> Told:
    """Run a command on disks of many sizes."""
    whole, most = _on_a_large_disk(command, room)
    told = Told(command.name, most, whole)
    drawn = [rng.randrange(_PAGE_BYTES, int(1.15 * most)) // _PAGE_BYTES * _PAGE_BYTES for _ in range(count)]
    powers = [_MIB << power for power in range(7)]
    for size in sorted([*drawn, *(power for power in powers if power < 1.15 * most)]):
        _try_size(command, max(size, 3 * _PAGE_BYTES), room, told)
    return told


def _on_a_large_disk(command: Command, room: Path) -> tuple[Seen, int]:
    """Its output with room for everything, and what it takes."""
    with disk(256 * _MIB, room / "disk") as place:
        log = room / "log"
        if code := _run(command, place, log):
            raise SystemExit(f"{command.name} ended with {code}: {log.read_text()[-500:]}")
        return look(place), 256 * _MIB - os.statvfs(place).f_bavail * os.statvfs(place).f_frsize


def _run(command: Command, place: Path, log: Path, *more: str) -> int:
    log.unlink(missing_ok=True)
    code = start(command.line(place, *more), log, partial(make_cheap, log.parent)).wait()
    return 70 if code is None else code


def _try_size(command: Command, size: int, room: Path, told: Told) -> None:
    old, log = b"an output of another run", room / "log"
    with disk(size, room / "disk") as place:
        (place / "other").write_bytes(old)
        code = _run(command, place, log)
        told.ends[code] += 1
        said, where = log.read_text(errors="replace").strip(), f"{command.name} on {size:,} bytes"
        told.faults += [f"{where}: {fault}" for fault in _faults(command, place, code, said, told.whole)]
        if (place / "other").read_bytes() != old:
            told.faults.append(f"{where}: the other output is not as it was")
        if code == 6:
            _go_on(command, place, log, told, where)


def _faults(command: Command, place: Path, code: int, said: str, whole: Seen) -> list[str]:
    seen = look(place)
    faults = [f"left behind: {name}" for name in seen.hidden]
    files = {name: one for name, one in seen.files.items() if name != "other"}
    if code == 0:
        return faults + ([] if files == whole.files else ["it says 0, and its files are not those of a large disk"])
    last = said.splitlines()[-1] if said else "nothing"
    if code != 6:
        faults.append(f"it ended with {code}: {last[-300:]}")
    if str(place) not in last or not _NAMES_BYTES.search(last):
        faults.append(f"neither path nor bytes: {last[-300:]}")
    return faults + wrong_with(place, Seen(files, ()), whole, command.whole)


def _go_on(command: Command, place: Path, log: Path, told: Told, where: str) -> None:
    """The disk grows, and the same command goes on."""
    subprocess.run(["mount", "-o", "remount,size=256m", place], check=True)
    code = _run(command, place, log)
    files = {name: one for name, one in look(place).files.items() if name != "other"}
    if code or files != told.whole.files:
        told.faults.append(
            f"{where}: given again with more room, it ended with {code} and other files: {log.read_text()[-300:]}"
        )
    told.faults += [f"{where}: left behind in the end: {name}" for name in look(place).hidden]


def overwrite_scene(command: Command, room: Path, count: int, rng: random.Random) -> list[str]:
    """An old scene stays until a new one stands in its place, whatever the size of the disk."""
    faults = []
    for _ in range(count):
        with disk(256 * _MIB, room / "disk") as place:
            if _run(command, place, room / "log"):
                return [f"scene: {(room / 'log').read_text()[-300:]}"]
            before = look(place)
            used = 256 * _MIB - os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            size = used + rng.randrange(1, used) // _PAGE_BYTES * _PAGE_BYTES
            subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
            code = _run(command, place, room / "log", "--overwrite")
            if code not in (0, 6) or look(place) != before:
                faults.append(
                    f"scene --overwrite with {size - used:,} bytes free ended with {code}; the old scene is not as it was"
                )
    return faults


def fail_otherwise(commands: dict[str, Command], room: Path) -> list[tuple[str, str, int, str, bool]]:
    """What each command says of a disk that cannot be written, that breaks, and of a machine without free handles; last, whether that is right."""
    rows = []
    for name in COMMANDS:
        for what, prepare, before in _FAILURES:
            place = room / "place"
            place.mkdir()
            log = room / "log"
            log.unlink(missing_ok=True)
            hook = partial(_both, partial(make_cheap, room), partial(before, place))
            with prepare(place):
                code = start(commands[name].line(place), log, hook).wait()
            said = log.read_text(errors="replace").strip().splitlines()
            seen = look(place)
            whole = code == 6 or (code == 0 and bool(seen.files) and not wrong_with(place, seen, None, ()))
            rows.append((what, name, code or 0, said[-1].replace(str(place), "OUT") if said else "", whole))
            shutil.rmtree(place)
    return rows


def _both(one: Callable[[], object], other: Callable[[], object]) -> None:
    one()
    other()


@contextmanager
def _as_it_is(_: Path) -> Iterator[None]:
    yield


@contextmanager
def _read_only(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _nothing(_: Path) -> None:
    """The disk fails by itself."""


def _broken(place: Path) -> None:
    """From the third on, no file below the place can be flushed to the disk."""
    flush, count = os.fsync, [0]

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_relative_to(place):
            count[0] += 1
            if count[0] > 2:
                raise OSError(5, "Input/output error")
        flush(handle)

    os.fsync = fail


def _few_handles(_: Path) -> None:
    """No more handles than are open, and one."""
    there = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (there, there))


_FAILURES: tuple[tuple[str, Callable[[Path], Any], Callable[[Path], None]], ...] = (
    ("read-only", _read_only, _nothing),
    ("the disk breaks amid the work", _as_it_is, _broken),
    ("no more open files", _as_it_is, _few_handles),
)


def main(words: Sequence[str] | None = None) -> None:
    """Run the suite, print what was found and write the page."""
    asked = _asked(words)
    if not may_mount():
        print("Skipped: a tmpfs cannot be mounted here; run it as root.")
        return
    get_ready()
    machine, rng = describe_machine(), random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        commands = make_places(room / "inputs").commands()
        parts: dict[str, dict[str, Any]] = {}
        for name in asked.only or COMMANDS:
            told = sweep_sizes(commands[name], room, asked.sizes, rng)
            parts[name] = {"row": told.row, "runs": told.ends.total(), "faults": told.faults}
            print(told.row, *told.faults[:6], sep="\n  ", flush=True)
            _keep(asked.output, parts, machine, asked)
        if not asked.sweep_only:
            parts[OTHERS] = _failing(commands, room)
            parts["scene over an older one"] = {"faults": overwrite_scene(commands["scene"], room, asked.sizes, rng)}
            _keep(asked.output, parts, machine, asked)
    if faults := [fault for part in parts.values() for fault in part["faults"]]:
        print(*faults, sep="\n")
        raise SystemExit(f"{len(faults)} faults.")


def _failing(commands: dict[str, Command], room: Path) -> dict[str, Any]:
    found = fail_otherwise(commands, room)
    faults = [f"{what}: {name} ended with {code}: {said}" for what, name, code, said, whole in found if not whole]
    rows = [f"| {what} | {name} | {code} | {said} |" for what, name, code, said, _ in found]
    return {"rows": rows, "runs": len(rows), "faults": faults}


def _keep(output: Path | None, parts: dict[str, Any], machine: dict[str, Any], asked: argparse.Namespace) -> None:
    """Write the page, and a JSON of its parts beside it: parts of an earlier run that were not run again are kept."""
    if output is None:
        return
    begin, only = ", ".join(map(str, machine["load"])), f" --only {' '.join(asked.only)}" if asked.only else ""
    run = {"words": f"python -m benchmarks.abuse.disk{only} --sizes {asked.sizes} --seed {asked.seed}", "load": begin}
    file = output.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.is_file() else {}
    kept |= {name: part | {"run": run} for name, part in parts.items()}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    output.write_text(_page(kept, machine))


def _page(parts: dict[str, dict[str, Any]], machine: dict[str, Any]) -> str:
    runs = {
        f"- `{part['run']['words']}`, load (1, 5, 15 minutes) {part['run']['load']} at its start"
        for part in parts.values()
    }
    missing = [f"`{name}`" for name in COMMANDS if name not in parts]
    return PAGE.format(
        found="\n".join(f"- {fault}" for part in parts.values() for fault in part["faults"])
        or "**No fault was found.**",
        rows="\n".join(parts[name]["row"] for name in COMMANDS if name in parts),
        others="\n".join(parts.get(OTHERS, {"rows": []})["rows"]),
        missing=f"**Not measured yet:** {', '.join(missing)} (`--only` runs them and adds them here).\n\n"
        if missing
        else "",
        runs="\n".join(sorted(runs)),
        processor=machine["processor"],
        cores=machine["cores"],
    )


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=16, help="sizes of disk drawn for each command")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--sweep-only", action="store_true", help="leave out disks that fail otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
