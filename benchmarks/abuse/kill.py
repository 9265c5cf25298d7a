"""Kill every command again and again at random moments, take it up each time, and compare every byte with a run that was left alone.

    .venv/bin/python -m benchmarks.abuse.kill --output docs/benchmarks/abuse/kill.md

The commands run on small phantoms, in forks of one process that has imported everything. A kill is SIGKILL, either at a moment of the
clock (to the command alone, or with all that it started) or right before a change to its output: a file opened for writing, a rename,
a folder made, something removed. After each kill every file that can be seen is read; then the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.abuse.looking import Seen, look, wrong_with
from benchmarks.abuse.places import make_places, test_tools
from benchmarks.abuse.runs import Child, Command, get_ready, start
from benchmarks.report import describe_machine

ALL_ARMS = "transfer, all arms, 2 processes"
KILLS = {
    "prepare": 200,
    "train": 200,
    "predict": 200,
    "scene": 70,
    "SEG": 70,
    "quantify": 70,
    "transfer": 200,
    "audit": 50,
    ALL_ARMS: 20,
}
PAGE = """# Killed at random moments, and run again and again

{found}

Every command below was killed with SIGKILL, {kills} times in all, on small phantoms. Half of the kills fall on a moment of the clock, to the
command alone or to it and all that it started; half right before a change to its output (a file opened for writing, a rename, a folder
made, something removed), in the command or in its worker, whoever makes that change. After each kill

- every file that can be seen is read to its end: it has the bytes that it has in a run that was left alone, or it is `run.json` or the state of a
  training, which change as a run goes on;
- every folder that can be seen of a prepared cohort, a checkpoint, a study or a scene has all its files;
- whatever the command had started ends by itself; where only one of its workers was killed, the command puts another in its place or ends with 6 and says how to go on;
- the same command is given again, and killed again, up to ten times, until it comes to its end.

In the end all files are those of the run that was left alone, bit for bit, weights, masks, tables, pictures and pages among them, and nothing hidden is
left but the lock. Kills in the midst of an epoch are among them: the epoch is done again, from the state of the one before, and comes out the same.

| command | kills | how | left alone it takes | files looked at after kills | runs that came to their end, and compared | faults | CPU-s |
|---|---|---|---|---|---|---|---|
{rows}

{missing}Left out of the comparison are: the seconds that an epoch took (`seconds`, in the JSON of checkpoints and of studies), and whether a study of a cohort was
predicted now or kept from the run before (`done`, `kept`, in `predictions.csv` and `.json`). `predict` is a cohort of three files and a series, by a worker;
`SEG` is `predict` of a series, with its DICOM segmentation. The figures of `transfer` were drawn once, by the run that was left alone, and only written by the
others, and workers are forked instead of begun anew: both so that kills fall on the work.

## The same answer each time

| command | runs with all files equal | files |
|---|---|---|
{repeated}

One thread, one seed; the last of the runs is begun from the shell, the others are forks. The same is left out as above.

One thread on {processor}, {cores} cores, {versions}; run by

{runs}
"""
_ORPHANS_S = 20.0
_NOTHING, _AT_MOST = 1 << 60, 10


@dataclass
class Told:
    """What was found of one command."""

    name: str
    took: float
    changes: int
    whole: Seen
    kills: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    looked: int = 0
    faults: list[str] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def row(self) -> str:
        """A row of the table."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        return (
            f"| {self.name} | {self.kills.total()} | {kinds} | {self.took:.1f} s, {self.changes} changes | {self.looked} | {self.finished}, of "
            f"{len(self.whole.files)} files each | {len(self.faults) or 'none'} | {self.cpu:.0f} |"
        )


def prove(command: Command, room: Path, kills: int, rng: random.Random) -> Told:
    """Kill a command so many times; its runs lie in ``room``."""
    began = _cpu()
    told = _left_alone(command, room)
    folder, run, before = _fresh(room, 0), 0, 0
    while told.kills.total() < kills:
        killed = _kill_once(command, folder, told, rng, before) if before < _AT_MOST else _finish(command, folder, told)
        if killed:
            told.kills[killed] += 1
            before += 1
            _look_after_a_kill(command, folder, told)
        else:
            _compare(command, folder, told)
            shutil.rmtree(folder)
            folder, run, before = _fresh(room, run + 1), run + 1, 0
    _finish(command, folder, told)
    _compare(command, folder, told)
    told.cpu = _cpu() - began
    return told


def _finish(command: Command, folder: Path, told: Told) -> str:
    """Let a run come to its end: nothing kills it."""
    code = start(command.line(folder), folder / ".log", partial(make_cheap, folder.parent)).wait()
    if code and not _was_done(folder):
        told.faults.append(f"the last run ended with {code}: {_tail(folder)}")
    return ""


def _left_alone(command: Command, room: Path) -> Told:
    """Two runs that nobody disturbs, the second timed and with its changes counted."""
    first, second = _fresh(room, "first"), _fresh(room, "whole")
    for folder in (first, second):
        counter = test_tools().shared_counter()
        child = start(command.line(folder), folder / ".log", _hooks(_NOTHING, folder, counter))
        if code := child.wait():
            raise SystemExit(f"{command.name} ended with {code}: {_tail(folder)}")
    told = Told(command.name, time.monotonic() - child.began, int(counter[0]), look(second))
    told.faults += wrong_with(second, told.whole, None, command.whole)
    _compare(command, first, told)
    return told


def _hooks(number: int, folder: Path, counter: memoryview) -> Callable[[], None]:
    def hook() -> None:
        make_cheap(folder.parent)
        test_tools().kill_before(number, folder, counter)

    return hook


def fork_workers() -> None:
    """Let commands fork their workers, as importing everything anew in each would take most of the time."""
    import multiprocessing

    from lungshift import workers

    workers.get_context = lambda _: multiprocessing.get_context("fork")  # type: ignore[attr-defined, assignment]


def make_cheap(room: Path) -> None:
    """Fork workers, and draw the figures of a transfer once for all runs: drawing would take most of the time."""
    from lungshift.show import report

    fork_workers()
    draw, kept = report.draw_all, room / "figures.pickle"

    def drawn(*given: Any) -> Any:
        if not kept.exists():
            kept.write_bytes(pickle.dumps(draw(*given)))
        return pickle.loads(kept.read_bytes())

    report.draw_all = drawn


def _kill_once(command: Command, folder: Path, told: Told, rng: random.Random, before: int) -> str:
    """How it was killed; empty if it came to its end before. A run that was killed ``before`` has less to do, so it is killed sooner."""
    share = 1 / (1 + before / 2)
    if rng.random() < 0.5:
        counter, number = test_tools().shared_counter(), rng.randrange(max(3, round(told.changes * share)))
        child = start(command.line(folder), folder / ".log", _hooks(number, folder, counter))
        child.wait()
        _await_orphans(child, told)
        if counter[0] > number:
            if child.code not in (0, -signal.SIGKILL) and not _says_how_to_go_on(child.code, folder):
                told.faults.append(f"a worker was killed, and it ended with {child.code}: {_tail(folder)}")
            return "before a change"
    else:
        child = start(command.line(folder), folder / ".log", partial(make_cheap, folder.parent))
        if child.wait(rng.uniform(0, told.took * share)) is None:
            alone = rng.random() < 0.5
            (child.kill if alone else child.kill_all)()
            _await_orphans(child, told)
            return "by the clock"
    if child.code and not _was_done(folder):
        told.faults.append(f"taken up, it ended with {child.code}: {_tail(folder)}")
    return ""


def _was_done(folder: Path) -> bool:
    """Whether the run had come to its end before its process was killed."""
    return "already holds a finished run" in _tail(folder) or "already exists and was kept" in _tail(folder)


def _await_orphans(child: Child, told: Told) -> None:
    """What the command had started has to end by itself."""
    until = time.monotonic() + _ORPHANS_S
    while left := child.session():
        if time.monotonic() > until:
            told.faults.append(f"{len(left)} processes outlived it by {_ORPHANS_S:.0f} s")
            child.kill_all()
            return
        time.sleep(0.05)


def _look_after_a_kill(command: Command, folder: Path, told: Told) -> None:
    seen = look(folder)
    told.looked += len(seen.files)
    told.faults += wrong_with(folder, seen, told.whole, command.whole)


def _compare(command: Command, folder: Path, told: Told) -> None:
    """A finished run has the files of the whole one, bit for bit, and nothing besides."""
    seen = look(folder)
    told.finished += 1
    told.faults += [f"left behind: {name}" for name in seen.hidden]
    for name in sorted(seen.files.keys() | told.whole.files.keys()):
        if seen.files.get(name) != told.whole.files.get(name):
            told.faults.append(f"{command.name}: {name} differs from that of the run left alone")


def repeat(command: Command, room: Path, runs: int) -> tuple[str, list[str]]:
    """Runs that nobody disturbs, the last of them begun from the shell: the row of the table, and what differs."""
    seen, faults = [], []
    for number in range(runs):
        folder = _fresh(room, f"again-{number}")
        if number < runs - 1:
            code = start(command.line(folder), folder / ".log", fork_workers).wait()
        else:
            with open(folder / ".log", "wb") as log:
                line = [sys.executable, "-m", "lungshift", *command.line(folder)]
                code = subprocess.run(line, stdout=log, stderr=log, check=False).returncode
        if code:
            faults.append(f"{command.name} ended with {code}: {_tail(folder)}")
        seen.append(look(folder))
    same = sum(one.files == seen[0].files for one in seen)
    if same < runs:
        names = {name for one in seen for name in one.files if one.files[name] != seen[0].files.get(name)}
        faults.append(f"{command.name}: {', '.join(sorted(names))} differ between runs")
    return f"| {command.name} | {same} of {runs} | {len(seen[0].files)} |", faults


def _fresh(room: Path, name: object) -> Path:
    folder = room / str(name)
    folder.mkdir(parents=True)
    return folder


def _says_how_to_go_on(code: int, folder: Path) -> bool:
    """What a command with several processes does when one of them is killed: it ends as out of memory, and keeps what is finished."""
    return code == 6 and "What is finished is kept: the same command goes on" in _tail(folder)


def _tail(folder: Path) -> str:
    lines = (folder / ".log").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])[-400:]


def _cpu() -> float:
    return sum(os.times()[:4])


def main(words: Sequence[str] | None = None) -> None:
    """Run the suite, print what was found and write the page."""
    asked = _asked(words)
    get_ready()
    machine, rng = describe_machine(), random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        places = make_places(Path(place) / "inputs")
        commands, faults = places.commands(), 0
        for name in asked.only or KILLS:
            one = prove(commands[name], Path(place) / "kills" / name, max(1, round(KILLS[name] * asked.share)), rng)
            shutil.rmtree(Path(place) / "kills")
            again, differs = repeat(commands[name], Path(place) / "again" / name, asked.repeats)
            shutil.rmtree(Path(place) / "again")
            found = [*(f"{name}: {fault}" for fault in one.faults), *differs]
            faults += len(found)
            print(one.row, again, *found[:9], sep="\n  ", flush=True)
            if asked.output:  # after each, so that what was found is not lost
                part = {"kills": one.kills.total(), "row": one.row, "again": again, "faults": found}
                _keep(asked.output, name, part | {"machine": machine, "words": _words(asked)})
    if faults:
        raise SystemExit(f"{faults} faults.")


def _words(asked: argparse.Namespace) -> str:
    only = f" --only {' '.join(asked.only)}" if asked.only else ""
    return f"python -m benchmarks.abuse.kill{only}{'' if asked.share == 1 else f' --share {asked.share}'} --seed {asked.seed}"


def _keep(output: Path, name: str, part: dict[str, Any]) -> None:
    """Write the page, and a JSON of its parts beside it: parts of an earlier run that were not run again are kept."""
    file = output.with_suffix(".json")
    parts = (json.loads(file.read_text()) if file.is_file() else {}) | {name: part}
    parts = {name: parts[name] for name in KILLS if name in parts}
    file.write_text(json.dumps(parts, indent=2, ensure_ascii=False) + "\n")
    output.write_text(_page(list(parts.values())))


def _page(parts: Sequence[dict[str, Any]]) -> str:
    faults = [fault for part in parts for fault in part["faults"]]
    machine = parts[0]["machine"]
    versions = machine["versions"]
    return PAGE.format(
        kills=sum(part["kills"] for part in parts),
        found="\n".join(f"- {fault}" for fault in faults) or "**No fault was found.**",
        rows="\n".join(part["row"] for part in parts),
        repeated="\n".join(part["again"] for part in parts),
        runs="\n".join(dict.fromkeys(_told_run(part) for part in parts)),
        missing=_told_missing([part["row"].split(" | ")[0].removeprefix("| ") for part in parts]),
        processor=machine["processor"],
        cores=machine["cores"],
        versions=f"Python {machine['python']}, torch {versions['torch']}, openvino {versions['openvino']}",
    )


def _told_missing(there: Sequence[str]) -> str:
    """What was not run yet, in words."""
    missing = [f"`{name}`" for name in KILLS if name not in there]
    return f"**Not measured yet:** {', '.join(missing)} (`--only` runs them and adds them here).\n\n" if missing else ""


def _told_run(part: dict[str, Any]) -> str:
    begin = ", ".join(map(str, part["machine"]["load"]))
    return f"- `{part['words']}`, load (1, 5, 15 minutes) {begin} at its start."


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the kills of each command")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
