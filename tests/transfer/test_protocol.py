"""A protocol is a TOML file of known settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungshift.errors import ProtocolError
from lungshift.transfer.arms import ARMS
from lungshift.transfer.protocol import Protocol, parse_protocol, read_protocol, shipped_protocols


@pytest.mark.parametrize("name", shipped_protocols())
def test_every_shipped_protocol_can_be_read_and_bears_its_name(name: str) -> None:
    protocol = read_protocol(name)

    assert protocol.name == name
    assert protocol.description.endswith(".")


def test_the_paper_protocol_is_the_papers() -> None:
    paper = read_protocol("paper")

    assert (paper.prepare.size, paper.prepare.interpolation, paper.prepare.slices) == (320, "nearest", "lung_or_lesion")
    assert (paper.network.width, paper.network.levels, paper.network.norm, paper.network.channels) == (64, 4, "none", 2)
    assert [(w.low_hu, w.high_hu) for w in paper.network.windows] == [(-970, -150)]
    assert (paper.training.epochs, paper.training.batch, paper.training.learning_rate) == (200, 45, 1e-4)
    assert paper.fine_tuning.epochs == 50
    assert (paper.split.kind, paper.split.train_slices, paper.split.validation_slices) == ("slice", 440, 60)


def test_the_default_split_is_by_patient() -> None:
    assert Protocol("mine").split.kind == "patient"


def test_settings_can_be_changed_by_hand() -> None:
    changed = read_protocol("paper", ("network.width=16", "seeds=[1, 2]", "network.norm=batch", "training.epochs = 3"))

    assert (changed.network.width, changed.network.norm, changed.seeds, changed.training.epochs) == (
        16,
        "batch",
        (1, 2),
        3,
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({"name": "x", "netwrok": {}}, "netwrok", id="unknown table"),
        pytest.param({"name": "x", "network": {"widht": 3}}, r"network\.widht", id="unknown setting"),
        pytest.param({"name": "x", "network": {"width": "wide"}}, r"network\.width", id="not a number"),
        pytest.param({"name": "x", "arms": ["magic"]}, "magic", id="unknown arm"),
        pytest.param({"name": "x", "arms": ["adapted_tent"]}, "change batch norm", id="no batch norm to adapt"),
        pytest.param(
            {"name": "x", "arms": ["fine_tuned"], "budgets": [0]}, "no budget is above 0", id="labels without budget"
        ),
        pytest.param({"name": "x", "budgets": [-1]}, "a budget is at least 0", id="negative budget"),
        pytest.param({"name": "x", "split": {"folds": 1}}, "Folds are 0 or at least 2", id="one fold"),
        pytest.param({"name": "x", "split": {"kind": "slice", "folds": 2}}, "of patients", id="folds of slices"),
        pytest.param({"name": "x", "split": {"kind": "case"}}, "'patient' or 'slice'", id="by case"),
        pytest.param(
            {"name": "x", "split": {"kind": "slice", "train_slices": 8}, "budgets": [9]},
            "at most split.train_slices",
            id="slices",
        ),
        pytest.param({"name": "x", "seeds": [-1]}, "a seed is from 0", id="negative seed"),
        pytest.param({"name": "x", "seeds": [1, 1]}, "names one twice", id="one seed twice"),
        pytest.param({"name": "x", "prepare": {"size": -32}}, "at least 16 x 16", id="negative size"),
        pytest.param({"name": "x", "network": {"dropout": 2}}, "Dropout", id="dropout"),
        pytest.param({"name": "x", "split": {"test_share": 1.5}}, "share between 0 and 1", id="test share"),
        pytest.param({"name": "x", "decision": {"threshold": 0}}, "threshold is above 0", id="threshold"),
        pytest.param({"name": "x", "training": {"loss": "typo"}}, "typo", id="unknown loss"),
        pytest.param({"name": "x", "seeds": []}, "seeds is empty", id="no seed"),
        pytest.param({"name": "x", "prepare": {"size": 100}}, "cannot be halved 4 times", id="size"),
        pytest.param({"name": "x", "training": {"batch": 0}}, "at least 1", id="no batch"),
        pytest.param(
            {"name": "x", "network": {"windows": [{"low_hu": 0, "high_hu": -5}]}}, "lower to a higher", id="window"
        ),
        pytest.param({"name": "x", "network": {"norm": "bacth"}}, "bacth", id="unknown normalisation"),
        pytest.param({"name": "x", "network": {"windows": []}}, "a window", id="no window"),
        pytest.param({}, "name", id="no name"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        parse_protocol(values)


@pytest.mark.parametrize("change", ["network.width", "name.width=3"])
def test_a_change_that_is_not_one_is_refused(change: str) -> None:
    with pytest.raises(ProtocolError):
        read_protocol("paper", (change,))


def test_a_protocol_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ProtocolError, match="demo, full, lung, paper"):
        read_protocol("papre")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("mine.yaml", "name: !!python/object/apply:os.system ['touch CANARY']", id="F65 yaml"),
        pytest.param("mine.toml", "name: !!python/object/apply:os.system ['touch CANARY']", id="F65 yaml as toml"),
        pytest.param("mine.toml", 'name = "x"\nimports = "$import os; os.system(\'touch CANARY\')"', id="F66 bundle"),
        pytest.param(
            "mine.toml", "name = \"x\"\n[network]\nwidth = \"$__import__('os').system('touch CANARY')\"", id="F66"
        ),
        pytest.param("mine.toml", 'name = "x"\n[network]\n_target_ = "os.system"\n_args_ = ["touch CANARY"]', id="F67"),
        pytest.param("mine.toml", 'name = "x"\n_target_ = "os.system"\ncommand = "touch CANARY"', id="F67 at the top"),
    ],
)
def test_f65_f66_f67_a_protocol_never_runs_anything(tmp_path: Path, name: str, text: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / name).write_text(text.replace("CANARY", str(canary)))

    with pytest.raises(ProtocolError):
        read_protocol(tmp_path / name)

    assert not canary.exists()


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("name = ")

    with pytest.raises(ProtocolError, match="not valid TOML"):
        read_protocol(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("values", "budgets"),
    [
        ({}, (2,)),
        ({"budgets": [4, 0, 1]}, (1, 4)),
        ({"budgets": [0], "arms": ["zero_shot"]}, ()),
        ({"split": {"kind": "slice", "train_slices": 40}}, (40,)),
    ],
)
def test_budgets_that_train_are_those_above_zero_or_the_standing_one(values: dict, budgets: tuple) -> None:
    assert parse_protocol({"name": "x", **values}).labelled_budgets == budgets


def test_the_full_protocol_tests_every_patient_with_every_arm_and_gives_each_budget_as_many_steps() -> None:
    full = read_protocol("full")

    assert set(full.arms) == set(ARMS)
    assert (full.split.kind, full.split.folds, full.split.test_seed, len(full.seeds)) == ("patient", 2, 0, 3)
    assert full.training.epoch_slices > 0 < full.fine_tuning.epoch_slices
