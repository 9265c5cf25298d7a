"""Predicting: a scan of 512 x 512 x 300 and its lung mask as files in, a lesion mask as a file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant, Turn, all_of

_M = "benchmarks.contest_predict:"
_LESION_HU = -650.0


def measure_predicting(setup: Setup) -> list[Result]:
    """Against Keras and MONAI, the share of the network, and memory."""
    model = _Model.write(setup)
    return [*_speed(setup, model), *_memory(setup, model)]


class _Model:
    """A U-Net of width 16 that calls lesion what is denser than a threshold inside the lungs, as a checkpoint and as arrays.

    One path of channel 0 does that; all other weights are random, and computed like those of any network.
    """

    def __init__(self, checkpoint: Path, arrays: Path, size: int) -> None:
        self.checkpoint, self.arrays, self.size = str(checkpoint), str(arrays), size

    @classmethod
    def write(cls, setup: Setup) -> _Model:
        from lungshift.learn.checkpoint import Checkpoint, save_checkpoint
        from lungshift.learn.settings import NetworkSettings

        network = NetworkSettings(width=4 if setup.quick else 16)
        weights = _weights(network)
        folder = setup.folder / "model"
        save_checkpoint(Checkpoint(weights, network, setup.size, "nearest"), folder)
        np.savez(setup.folder / "model.npz", **weights)  # type: ignore[arg-type]
        return cls(folder, setup.folder / "model.npz", setup.size)


def _weights(network: Any) -> dict[str, np.ndarray]:
    from lungshift.learn.shapes import weight_shapes

    draw, weights = np.random.default_rng(0), {}
    for name, shape in weight_shapes(network).items():
        spread = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.0
        weights[name] = (draw.standard_normal(shape) * spread).astype(np.float32)
    for block in ("down.0", f"up.{network.levels - 1}"):
        for at in (0, 3):
            weights[f"{block}.{at}.weight"][0] = 0
            weights[f"{block}.{at}.weight"][0, 0, 1, 1] = 1
    weights["down.0.0.weight"][0, 1, 1, 1], weights["down.0.0.bias"][0] = 1, -1  # window + lung - 1: 0 outside the lung
    window = network.windows[0]
    at = (_LESION_HU - window.low_hu) / (window.high_hu - window.low_hu)
    weights["last.weight"][:] = 0
    weights["last.weight"][0, 0], weights["last.bias"][:] = 40, -40 * at
    return weights


def _speed(setup: Setup, model: _Model) -> list[Result]:
    scan = setup.phantom_to_predict
    files = {"volume": str(scan / "volume.nii.gz"), "lung": str(scan / "lung.nii.gz")}
    rival: dict[str, Any] = {"weights": model.arrays, "size": model.size, **files}
    out = {name: str(setup.folder / f"{name}.nii.gz") for name in ("ours", "fp32", "keras", "monai")}
    contestants = {
        "ours": Contestant(_M + "lungshift", checkpoint=model.checkpoint, output=out["ours"], **files),
        "fp32": Contestant(
            _M + "lungshift", checkpoint=model.checkpoint, output=out["fp32"], precision="fp32", **files
        ),
        "monai": Contestant(_M + "monai", output=out["monai"], **rival),
    }
    if setup.keras:
        contestants["keras"] = Contestant(_M + "keras", setup.keras, output=out["keras"], **rival)
    with all_of(*contestants.values()):
        best = _best_turns(contestants, setup.rounds)
    ours = best["ours"]
    said = ours.answer
    slices = f"{said['slices']} slices; {said['engine']} {said['precision']} {ours.cpu_s:.2f} s"
    rest = ours.cpu_s - said["network_s"]
    note = f"{rest:.2f} s of {ours.cpu_s:.2f} s, {1e3 * rest / said['slices']:.2f} ms a slice: read, check, resize, window, decide, write, read back"
    return [
        _against("Keras, the paper's way", "keras", 3, best, out, slices),
        _against("MONAI, fp32 in torch", "monai", 4.5, best, out, slices),
        _against("OpenVINO in fp32", "fp32", None, best, out, slices),
        Result("everything but the network", 100 * rest / ours.cpu_s, "% of the total", 8, note=note),
        Result("load the checkpoint and compile, once", said["start_s"], "s", note="not in the ratios"),
    ]


def _best_turns(contestants: dict[str, Contestant], rounds: int) -> dict[str, Turn]:
    best: dict[str, Turn] = {}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            turn = contestant.turn()
            best[name] = min(best.get(name, turn), turn, key=lambda one: one.cpu_s)
    return best


def _against(
    title: str, name: str, goal: float | None, best: dict[str, Turn], out: dict[str, str], note: str
) -> Result:
    what = f"{title} / predict"
    if name not in best:
        return Result(what, None, goal=goal, sense="at least", note="no environment; name one with --keras")
    turn = best[name]
    peak = f"{turn.peak_mib / 1024:.1f} GiB against {best['ours'].peak_mib / 1024:.2f}"
    note = f"{note} against {turn.cpu_s:.2f} s; {peak}; Dice between the masks {_dice(out['ours'], out[name]):.4f}"
    return Result(what, turn.cpu_s / best["ours"].cpu_s, goal=goal, sense="at least", note=note)


def _dice(one: str, other: str) -> float:
    import nibabel as nib

    a, b = (np.asanyarray(nib.load(path).dataobj) > 0 for path in (one, other))
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def _memory(setup: Setup, model: _Model) -> list[Result]:
    peaks, start = {}, 0.0
    for slices, scan in setup.phantoms_short_and_long.items():
        files = {"volume": str(scan / "volume.nii.gz"), "lung": str(scan / "lung.nii.gz")}
        output = str(setup.folder / "memory.nii.gz")
        with Contestant(_M + "lungshift", checkpoint=model.checkpoint, output=output, **files) as contestant:
            start, peaks[slices] = contestant.start_mib, contestant.turn().peak_mib
    (few, low), (many, high) = peaks.items()
    note = f"{low:.0f} MiB with {few} slices of 512², {high:.0f} MiB with {many}; {start:.0f} MiB with the network, before a scan"
    return [
        Result(f"memory to predict {many} slices / {few}", high / low, goal=1.05, note=note),
        Result(
            f"memory to predict {many} slices",
            high / 1024,
            "GiB",
            0.35,
            note="highest resident memory, imports included",
        ),
    ]
