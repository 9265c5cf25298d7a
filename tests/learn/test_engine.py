"""Two engines compute one network: OpenVINO on a CPU, without torch, and torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from lungshift.errors import CheckpointError, MissingError, ProtocolError
from lungshift.learn import engine
from lungshift.learn.checkpoint import Checkpoint, build_network, save_checkpoint
from lungshift.learn.engine import start_engine
from lungshift.learn.engine_openvino import OpenVinoEngine
from lungshift.learn.engine_torch import TorchEngine
from lungshift.learn.prediction import Predictor
from lungshift.learn.settings import NetworkSettings, Norm
from lungshift.learn.shapes import weight_shapes

NORMS = get_args(Norm)


def lively(norm: Norm = "batch", width: int = 8, levels: int = 3) -> Checkpoint:
    """A network with weights that are neither 0 nor 1 anywhere, and logits of both signs."""
    network, draw = NetworkSettings(width=width, levels=levels, norm=norm), np.random.default_rng(7)
    weights = {}
    for name, shape in weight_shapes(network).items():
        if name.endswith("num_batches_tracked"):
            weights[name] = np.array(3)
        elif name.endswith("running_var") or (".weight" in name and len(shape) == 1):
            weights[name] = draw.uniform(0.5, 2, shape).astype(np.float32)
        else:
            spread = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.2
            weights[name] = (draw.standard_normal(shape) * spread).astype(np.float32)
    weights["last.weight"] *= 2
    return Checkpoint(weights, network, 64)


def images(rows: int = 64, columns: int = 64, n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((n, 2, rows, columns), dtype=np.float32)


def probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("norm", NORMS)
def test_openvino_and_torch_agree_in_single_precision(norm: Norm) -> None:
    checkpoint = lively(norm)
    ours = OpenVinoEngine.start(checkpoint, "fp32").logits(images())
    theirs = TorchEngine.start(checkpoint, "cpu", "fp32").logits(images())

    p, q = probability(ours), probability(theirs)
    assert 0.05 < (q > 0.5).mean() < 0.95, "there is something to agree on"
    assert np.abs(p - q).max() <= 1e-4
    both, either = np.sum((p > 0.5) & (q > 0.5)), np.sum(p > 0.5) + np.sum(q > 0.5)
    assert 2 * both / either >= 0.9999


@pytest.mark.parametrize("norm", NORMS)
def test_they_agree_at_the_bottom_of_the_u(norm: Norm) -> None:
    checkpoint = lively(norm)

    ours = OpenVinoEngine.start(checkpoint, "fp32").bottom(images())

    assert ours.shape == (3, 64, 8, 8)
    theirs = TorchEngine.start(checkpoint, "cpu", "fp32").bottom(images())
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_picture_gives_the_same_bits_whatever_came_before_it(precision: str) -> None:
    ours = OpenVinoEngine.start(lively(), precision, threads=1)  # type: ignore[arg-type]
    first = ours.logits(images())

    for rows, columns in ((8, 64), (64, 24), (40, 40)):
        assert ours.logits(images(rows, columns)).shape == (3, rows, columns)

    np.testing.assert_array_equal(ours.logits(images()), first)
    np.testing.assert_array_equal(ours.logits(images()[1:2]), first[1:2])
    again = OpenVinoEngine.start(lively(), precision, threads=1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.logits(images()), first)


def test_bf16_is_near_single_precision() -> None:
    exact, near = (OpenVinoEngine.start(lively(), kind).logits(images()) for kind in ("fp32", "bf16"))  # type: ignore[arg-type]

    assert np.abs(probability(exact) - probability(near)).mean() < 0.01


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("levels", "width"), [(1, 1), (4, 8)])
def test_the_shapes_of_the_weights_are_those_of_the_network(norm: Norm, levels: int, width: int) -> None:
    network = NetworkSettings(width=width, levels=levels, norm=norm, neighbours=1)

    found = {name: tuple(tensor.shape) for name, tensor in build_network(network).state_dict().items()}

    assert weight_shapes(network) == found


def test_a_processor_is_given_openvino_and_the_manifest_says_so() -> None:
    said = Predictor.of(lively(), "cpu", "fp32").describe()

    assert said["engine"].startswith("openvino 20")
    assert (said["device"], said["precision"], said["threads"]) == ("cpu", "fp32", "1")
    assert "FP32" in said["instructions"]


def test_torch_computes_where_openvino_is_missing_and_the_manifest_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)

    said = start_engine(lively(), "cpu", "bf16").describe()

    assert said["engine"] == f"torch {torch.__version__}"
    assert said["precision"] == "bf16"


def test_weights_of_another_network_are_refused_before_anything_is_computed() -> None:
    checkpoint = lively()
    other = Checkpoint(dict(checkpoint.weights) | {"last.bias": np.zeros(2, np.float32)}, checkpoint.network, 64)

    with pytest.raises(CheckpointError, match=r"last\.bias should be \(1,\) and is \(2,\)"):
        Predictor.of(other, "cpu")


def test_a_device_that_is_not_there_is_never_replaced_by_another() -> None:
    with pytest.raises(MissingError, match="cuda:9"):
        start_engine(lively(), "cuda:9")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ProtocolError, match="fp32, bf16; got 'int8'"):
        start_engine(lively(), "cpu", "int8")


def test_pictures_that_cannot_be_halved_are_refused_before_a_scan_is_read() -> None:
    checkpoint = lively()

    with pytest.raises(ProtocolError, match="60 pixels cannot be halved 3 times"):
        Predictor.of(Checkpoint(checkpoint.weights, checkpoint.network, 60), "cpu")


PREDICT = """
import sys, threading
from pathlib import Path
import numpy as np
import lungshift
from lungshift.ct.case import InMemory
from worlds import tiny_case
predictor = lungshift.Predictor.of(lungshift.load_checkpoint(Path(sys.argv[1])))
assert predictor.describe()["engine"].startswith("openvino")
assert lungshift.predict(predictor, tiny_case(size=64)).voxels.shape == (5, 64, 64)
heavy = {"torch", "lightning", "monai", "matplotlib", "openvino_telemetry"} & {name.partition(".")[0] for name in sys.modules}
assert not heavy, heavy
assert threading.active_count() == 1, threading.enumerate()
"""


def test_prediction_on_a_processor_loads_no_torch_and_reports_to_nobody(tmp_path: Path) -> None:
    save_checkpoint(lively(), tmp_path / "model")

    ran = subprocess.run(
        [sys.executable, "-c", PREDICT, str(tmp_path / "model")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
