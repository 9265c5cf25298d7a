"""Kill a study at random moments, take it up again each time, and compare every number with a run that was left alone.

    .venv/bin/python -m benchmarks.kill --kills 20

A small study of phantoms: all arms, two budgets, two folds. It is killed with SIGKILL, children and all, at moments drawn from
the time that an uninterrupted run takes, once with one process and once with two.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_STUDY = """
import sys
from pathlib import Path
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_site import SITE_A, SITE_B
from lungshift.transfer.arms import ARMS
from lungshift.workers import Workers
from lungshift.transfer.protocol import DecisionSettings, PrepareSettings, Protocol, SplitSettings
from lungshift.transfer.study import run
from lungshift.show.report import write_report
from dataclasses import replace

if __name__ == "__main__":
    jobs, folder = int(sys.argv[1]), Path(sys.argv[2])
    small = {"size": 64, "pixel_mm": 5.4, "slice_mm": 12.0}
    source = phantom_cohort("home", patients=6, site=replace(SITE_A, **small), seed=1)
    target = phantom_cohort("away", patients=6, site=replace(SITE_B, **small), seed=2)
    short = TrainingSettings(epochs=4, epoch_slices=48, patience=0, batch=8, micro_batch=8, optimiser="adamw",
                             learning_rate=2e-3, schedule="one_cycle", average_decay=0.9)
    protocol = Protocol("kill", prepare=PrepareSettings(size=64), network=NetworkSettings(width=4, levels=3, norm="batch"),
                        split=SplitSettings(folds=2, test_seed=0), training=short, fine_tuning=short, arms=tuple(ARMS),
                        budgets=(0, 1, 2), decision=DecisionSettings(choose_on_validation=True), explain_drop=False)
    write_report(run(protocol, source, target, folder, device="cpu", workers=Workers(jobs)), folder)
"""


def main() -> None:
    """Run the proof and print what was found."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    lines = ["# Killed and taken up again", "", __doc__.split("\n\n")[-1].strip(), ""]
    for jobs in (1, 2):
        lines.append(_prove(jobs, asked.kills, random.Random(asked.seed + jobs)))
        print(lines[-1])
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n")


def _prove(jobs: int, kills: int, rng: random.Random) -> str:
    with tempfile.TemporaryDirectory() as place:
        script, whole, broken = (Path(place) / name for name in ("study.py", "whole", "broken"))
        script.write_text(_STUDY)
        started = time.monotonic()
        _start(script, jobs, whole).wait()
        took = time.monotonic() - started
        moments, done = [], 0
        while done < kills:
            moment, began = rng.uniform(0.1 * took, took), time.monotonic()
            if _killed(_start(script, jobs, broken), moment):
                done += 1
                moments.append(moment)
            else:  # it came to its end: begin again, so that every kill hits work
                took = min(took, time.monotonic() - began)
                _compare(whole, broken)
                shutil.rmtree(broken)
        _start(script, jobs, broken).wait()
        numbers = _compare(whole, broken)
    return (
        f"- {jobs} process{'es' if jobs > 1 else ''} at a time: killed {kills} times, {min(moments):.1f} to {max(moments):.1f} s after "
        f"a start (an uninterrupted run took {took:.0f} s); {numbers} counts, all weights, table.csv and counts.csv are those of "
        "the uninterrupted run, bit for bit."
    )


def _start(script: Path, jobs: int, folder: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, str(script), str(jobs), str(folder)], env=environment, start_new_session=True
    )


def _killed(process: subprocess.Popen, moment: float) -> bool:
    """Whether it was still at work."""
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        raise SystemExit(f"The study failed with {process.returncode}.")
    return False


def _compare(whole: Path, broken: Path) -> int:
    """Count the numbers compared; stop at the first that differs."""
    numbers = 0
    for name in ("table.csv", "counts.csv"):
        if (whole / name).read_bytes() != (broken / name).read_bytes():
            raise SystemExit(f"{name} differs.")
    for file in sorted((whole / "tests").glob("*.npz")):
        with np.load(file) as one, np.load(broken / "tests" / file.name) as other:
            for name in ("counts", "in_lung", "native", "rows"):
                np.testing.assert_array_equal(one[name], other[name], err_msg=file.name)
                numbers += one[name].size
    for file in sorted((whole / "checkpoints").glob("*/weights.safetensors")):
        if file.read_bytes() != (broken / file.relative_to(whole)).read_bytes():
            raise SystemExit(f"The weights of {file.parent.name} differ.")
    return numbers


if __name__ == "__main__":
    main()
