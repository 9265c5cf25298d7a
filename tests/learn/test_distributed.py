"""Several processes train one network, by the library's own strategy."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from lungshift.learn.checkpoint import save_checkpoint
from lungshift.learn.training import Job, fit

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[3])
from dataclasses import replace
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from lungshift.learn.pictures import SliceSet
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.learn.training import Job, fit
from lungshift.prepare.prepared import open_prepared
from lungshift.prepare.slices import select_slices
import os
cohort = open_prepared(Path(sys.argv[1]))
rows = select_slices(cohort.table, "lung")
training = TrainingSettings(epochs=2, patience=0, batch=4, micro_batch=1, learning_rate=1e-2)
job = Job(SliceSet.of(cohort, rows[:8]), SliceSet.of(cohort, rows[8:]), NetworkSettings(width=2, levels=2), training, seed=5)
if len(sys.argv) > 4:
    from lungshift.learn.checkpoint import load_checkpoint
    job = replace(job, start=load_checkpoint(Path(sys.argv[4])), trainable="decoder")
weights = fit(job, device="cpu").weights
if os.environ["RANK"] == "0":
    save_file(weights, sys.argv[2])
"""


def train_in_two_processes(job: Job, folder: Path, *more: str) -> dict[str, np.ndarray]:
    script, there = folder / "train.py", folder / "weights.safetensors"
    script.write_text(SCRIPT)
    words = [str(job.train.parts[0][0].folder), str(there), str(Path(__file__).parents[1]), *more]
    # A port of its own, on this machine only: another test, or a network that is not there, cannot get in between.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*launcher, "--local-addr=127.0.0.1", str(script), *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(there)


def as_in_script(job: Job) -> Job:
    return replace(job, training=replace(job.training, epochs=2, micro_batch=1))


def test_two_processes_end_with_the_weights_of_one(job: Job, folder: Path) -> None:
    """Gradients are exact means over a step's slices, however many processes share them."""
    alone = fit(as_in_script(job), device="cpu").weights

    together = train_in_two_processes(job, folder)

    for name, tensor in alone.items():
        np.testing.assert_allclose(together[name], tensor, rtol=1e-3, atol=1e-5)


def test_two_processes_keep_frozen_layers_as_they_are(job: Job, folder: Path) -> None:
    start = fit(as_in_script(job), device="cpu")
    save_checkpoint(start, folder / "start")
    alone = fit(replace(as_in_script(job), start=start, trainable="decoder"), device="cpu").weights

    together = train_in_two_processes(job, folder, str(folder / "start"))

    for name, tensor in alone.items():
        np.testing.assert_allclose(together[name], tensor, rtol=1e-3, atol=1e-5)
    kept = {name for name, tensor in start.weights.items() if np.array_equal(together[name], tensor)}
    assert kept >= {name for name in start.weights if name.startswith("down")}
    assert "last.bias" not in kept
