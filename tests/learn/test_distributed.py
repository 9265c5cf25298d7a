"""Several processes train one network, by the library's own strategy."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from lungshift.learn.training import Job, fit

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[3])
from dataclasses import replace
from pathlib import Path
import numpy as np
from safetensors.torch import save_file
from lungshift.learn.data import SliceSet
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.learn.training import Job, fit
from lungshift.prepare.prepared import open_prepared
from lungshift.prepare.slices import select_slices
import os
cohort = open_prepared(Path(sys.argv[1]))
rows = select_slices(cohort.table, "lung")
training = TrainingSettings(epochs=2, patience=0, batch=4, micro_batch=1, learning_rate=1e-2)
job = Job(SliceSet.of(cohort, rows[:8]), SliceSet.of(cohort, rows[8:]), NetworkSettings(width=2, levels=2), training, seed=5)
weights = fit(job, device="cpu").weights
if os.environ["RANK"] == "0":
    save_file(weights, sys.argv[2])
"""


def test_two_processes_end_with_the_weights_of_one(job: Job, folder: Path) -> None:
    """Gradients are exact means over a step's slices, however many processes share them."""
    script, there = folder / "train.py", folder / "weights.safetensors"
    script.write_text(SCRIPT)
    words = [str(job.train.parts[0][0].folder), str(there), str(Path(__file__).parents[1])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--master-port=29611",
            str(script),
            *words,
        ],
        check=True,
        capture_output=True,
        env=environment,
        timeout=240,
    )

    alone = fit(replace(job, training=replace(job.training, epochs=2, micro_batch=1)), device="cpu").weights

    together = load_file(there)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-5)
