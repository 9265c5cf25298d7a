"""A checkpoint says everything needed to use it, and is checked before it is."""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from killing import full_after
from lungshift.errors import CheckpointError, OutputError, ResourceError
from lungshift.files import sha256
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network, load_checkpoint, save_checkpoint
from lungshift.learn.history import EpochRecord, History
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.windows import Window

NETWORK = NetworkSettings(width=2, levels=2, norm="batch", windows=(Window(-1000, 0), Window(-160, 240)), neighbours=1)


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    weights = {name: tensor.clone() for name, tensor in build_network(NETWORK).state_dict().items()}
    history = History("source", (EpochRecord(1, 0.5, 0.6, float("nan"), 1e-3, 2.0),), 1)
    return Checkpoint(weights, NETWORK, 64, decision=Decision(0.4, 12, flips=True), history=history, seed=3)


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Other weights with a checksum that fits them."""
    save_file(weights, folder / "weights.safetensors")
    text = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(
        json.dumps(text | {"weights_sha256": sha256(folder / "weights.safetensors")})
    )


def test_what_is_saved_is_what_is_loaded(checkpoint: Checkpoint, saved: Path) -> None:
    loaded = load_checkpoint(saved)

    assert loaded.network == checkpoint.network
    assert loaded.decision == checkpoint.decision
    assert (loaded.size, loaded.seed) == (64, 3)
    assert str(loaded.history) == str(checkpoint.history), "NaN comes back as NaN"
    assert all(np.array_equal(loaded.weights[name], weight) for name, weight in checkpoint.weights.items())


def test_f75_a_full_disk_is_told_in_words_and_leaves_the_old_checkpoint(checkpoint: Checkpoint, saved: Path) -> None:
    with full_after(1000), pytest.raises(ResourceError, match=r"weights.safetensors: .* it takes [\d,]+ bytes"):
        save_checkpoint(replace(checkpoint, seed=4), saved, overwrite=True)

    assert load_checkpoint(saved).seed == 3
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_checkpoint_is_kept_unless_it_may_be_overwritten(checkpoint: Checkpoint, saved: Path) -> None:
    with pytest.raises(OutputError, match="already exists"):
        save_checkpoint(checkpoint, saved)
    save_checkpoint(replace(checkpoint, seed=4), saved, overwrite=True)
    assert load_checkpoint(saved).seed == 4


def test_a_flipped_bit_in_the_weights_is_noticed(saved: Path) -> None:
    data = bytearray((saved / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "weights.safetensors").write_bytes(data)

    with pytest.raises(CheckpointError, match="checksum differs"):
        load_checkpoint(saved)


def test_weights_of_another_network_are_refused_and_the_difference_is_named(saved: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    rewrite(saved, weights | {"last.weight": torch.zeros(1, 3, 1, 1)})

    with pytest.raises(CheckpointError, match=r"last\.weight should be \(1, 2, 1, 1\) and is \(1, 3, 1, 1\)"):
        load_checkpoint(saved)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    rewrite(saved, weights | {"last.bias": torch.tensor([float("nan")])})

    with pytest.raises(CheckpointError, match=r"NaN or infinite in last\.bias"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "damage", ["truncated weights", "no weights", "not json", "other version", "missing setting", "nested"]
)
def test_a_damaged_checkpoint_is_refused_in_words(saved: Path, damage: str) -> None:
    weights, description = saved / "weights.safetensors", saved / "checkpoint.json"
    text = json.loads(description.read_text())
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "not json":
        description.write_text("{")
    elif damage == "nested":
        description.write_text("[" * 100_000)
    elif damage == "other version":
        description.write_text(json.dumps(text | {"format": 99}))
    else:
        del text["network"]["width"]
        text["network"]["breadth"] = 2
        description.write_text(json.dumps(text))

    with pytest.raises(CheckpointError):
        load_checkpoint(saved)


def header(text: bytes, claimed: int | None = None) -> bytes:
    """A safetensors file of this header, which claims a length of its own."""
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text


F32 = b'{"dtype":"F32","shape":[4],"data_offsets":'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(header(b"{}", 1 << 62), id="header of 4 EiB"),
        pytest.param(header(b" " * (1 << 20) + b"{"), id="header cut off"),
        pytest.param(header(b'{"a":' + F32 + b"[0,1000000]}}") + bytes(16), id="longer than the file"),
        pytest.param(header(b'{"a":' + F32 + b'[0,16]},"b":' + F32 + b"[8,24]}}") + bytes(24), id="overlapping"),
        pytest.param(
            header(b'{"a":{"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,16]}}') + bytes(16),
            id="overflow",
        ),
        pytest.param(
            header(b'{"a":{"dtype":"OBJ","shape":[4],"data_offsets":[0,16]}}') + bytes(16), id="no type of numbers"
        ),
        pytest.param(header(b'{"a":' * 20_000), id="nested"),
    ],
)
def test_f68_weights_that_lie_about_their_size_are_refused_though_their_checksum_fits(saved: Path, data: bytes) -> None:
    (saved / "weights.safetensors").write_bytes(data)
    text = json.loads((saved / "checkpoint.json").read_text()) | {
        "weights_sha256": sha256(saved / "weights.safetensors")
    }
    (saved / "checkpoint.json").write_text(json.dumps(text))

    with pytest.raises(CheckpointError):
        load_checkpoint(saved)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth", ".h5"])
def test_a_file_that_could_run_code_is_never_opened(tmp_path: Path, suffix: str) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (canary,))

    file = tmp_path / f"model{suffix}"
    file.write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(CheckpointError, match="may run code"):
        load_checkpoint(file)
    assert not canary.exists()
