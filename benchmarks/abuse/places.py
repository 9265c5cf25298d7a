"""The inputs of the runs that are killed or run out of disk: two cohorts, scans to predict, a series, a model, all of phantoms."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.abuse.runs import Command, start

FOLDERS = ("out/checkpoints/*", "out/prepared/*")
TESTS = Path(__file__).parents[2] / "tests"
PARTS = ("volume", "lung", "lesion")
ARMS = "arms=" + str(
    [
        *("zero_shot", "fine_tuned", "from_scratch", "frozen_encoder", "head_only", "joint"),
        *("adapted_batch_norm", "adapted_histogram", "adapted_tent"),
    ]
)
SMALL = ("prepare.size=32", "network.width=4", "network.levels=2", "training.epochs=3", "training.average_decay=0.9")
LONG = ("prepare.size=32", "network.width=8", "network.levels=2", "training.epochs=30", "training.learning_rate=1e-2")
SHORT = (*SMALL, "fine_tuning.epochs=2", "budgets=[0,1]", "explain_drop=false")
ALL = (
    *SMALL,
    "training.epochs=2",
    "fine_tuning.epochs=1",
    "budgets=[0,1]",
    "split.folds=2",
    "explain_drop=false",
    ARMS,
)
AUDIT = """name = "small-audit"
[prepare]
size = 48
[split]
kind = "patient"
validation_patients = 1
[network]
width = 4
levels = 2
norm = "batch"
[training]
epochs = 3
patience = 0
batch = 8
micro_batch = 8
optimiser = "adamw"
learning_rate = 2e-3
average_decay = 0.9
"""


@dataclass(frozen=True)
class Places:
    """Where the inputs lie."""

    root: Path

    def commands(self) -> dict[str, Command]:
        """What is run, by name."""
        home, away, scans = (str(self.root / name) for name in ("home", "away", "scans"))
        model, told = str(self.root / "model"), str(self.root / "told")
        scan = str(self.root / "scans" / "s0.nii.gz")
        listed = (
            Command("prepare", ("prepare", home, "--size", "32"), whole=("out/*",)),
            Command("train", ("train", home, *_settings(SMALL), "--device", "cpu"), whole=FOLDERS),
            Command(
                "transfer",
                ("transfer", "quick", "--source", home, "--target", away, *_settings(SHORT), "--device", "cpu"),
                whole=FOLDERS,
            ),
            Command(
                "transfer, all arms, 2 processes",
                (
                    *("transfer", "quick", "--source", home, "--target", away, *_settings(ALL), "--device", "cpu"),
                    *("--jobs", "2"),
                ),
                whole=FOLDERS,
            ),
            Command(
                "audit",
                ("audit", home, "--models", str(self.root / "audit.toml"), "--folds", "2", "--device", "cpu"),
                whole=("out/models/home/checkpoints/*", "out/models/home/prepared/*"),
            ),
            Command("predict", ("predict", model, scans, "--device", "cpu"), whole=("out/*",)),
            Command("SEG", ("predict", model, str(self.root / "series"), "--device", "cpu")),
            Command("scene", ("scene", scan, "--prediction", told), whole=("out",)),
            Command(
                "quantify",
                ("quantify", scan, "--prediction", told, "--checkpoint", model, "--retakes", "2", "--device", "cpu"),
            ),
        )
        return {command.name: command for command in listed}


def test_tools():
    """What the tests kill processes with."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    import killing

    return killing


def _settings(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def make_places(root: Path) -> Places:
    """Write the inputs: needs ``get_ready`` before."""
    from lungshift.io.writing import write_volume
    from lungshift.prepare.phantom import phantom_case, phantom_cohort
    from lungshift.prepare.phantom_lesions import Lesions
    from lungshift.prepare.phantom_site import SITE_A, SITE_B

    ill = Lesions(mild=0.0, moderate=0.0, severe=1.0)
    small = {"size": 56, "pixel_mm": 6.2, "slice_mm": 15.0}
    for name, site, seed in (("home", SITE_A, 1), ("away", SITE_B, 2)):
        write_cohort(phantom_cohort(name, patients=5, site=replace(site, **small), seed=seed, lesions=ill), root / name)
    (root / "audit.toml").write_text(AUDIT)
    chests = [phantom_case(3, number, replace(SITE_A, **small), lesions=ill) for number in range(4)]
    for number, chest in enumerate(chests[:3]):
        write_volume(chest.volume, root / "scans" / f"s{number}.nii.gz")
    _write_series(chests[3], root / "series")
    _write_series(chests[3], root / "scans" / "series")
    places, home = Places(root), str(root / "home")
    _once(["train", home, *_settings(LONG), "--device", "cpu", "--output", str(root / "training" / "out")], root)
    (root / "training" / "out" / "checkpoints" / "source-seed0").rename(root / "model")
    _once(
        [
            "predict",
            str(root / "model"),
            str(root / "scans" / "s0.nii.gz"),
            "--device",
            "cpu",
            "--output",
            str(root / "told"),
        ],
        root,
    )
    return places


def _once(line: list[str], root: Path) -> None:
    if code := start(line, root / "log").wait():
        raise SystemExit(f"lungshift {' '.join(line)} ended with {code}:\n{(root / 'log').read_text()[-2000:]}")


def write_cohort(cohort, folder: Path) -> None:
    """Write a cohort with lung and lesion masks as NIfTI, with a manifest that keeps its patients."""
    from lungshift.io.writing import write_mask, write_volume

    lines = [f'name = "{cohort.name}"']
    for case in cohort.read():
        for part in PARTS:
            write = write_volume if part == "volume" else write_mask
            write(getattr(case, part), folder / part / f"{case.case_id}.nii.gz")
        files = "\n".join(f'{part} = "{part}/{case.case_id}.nii.gz"' for part in PARTS)
        lines.append(f'\n[[case]]\ncase_id = "{case.case_id}"\npatient_id = "{case.patient_id}"\n{files}')
    (folder / "manifest.toml").write_text("\n".join(lines) + "\n")


def _write_series(case, folder: Path) -> None:
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from series import turned, write_ct

    write_ct(folder, case.volume.hu.round(), turned(case.volume.geometry))
