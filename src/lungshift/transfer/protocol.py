"""A study's frozen settings, as a TOML file holds them."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lungshift.errors import ProtocolError
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.prepare.grid import Interpolation
from lungshift.prepare.slices import SliceRule
from lungshift.transfer.arms import ARMS


@dataclass(frozen=True)
class PrepareSettings:
    """How scans become pictures."""

    size: int = 320
    """Rows and columns of the picture; a multiple of 2 to the power of the network's levels."""
    interpolation: Interpolation = "linear"
    """How CT values are resized; masks are always nearest neighbour."""
    slices: SliceRule = "lung"
    """Which slices take part: those with lung, or those with lung or lesion (the paper's 714)."""

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ProtocolError(f"Pictures have at least 16 x 16 pixels; got a size of {self.size}.")


@dataclass(frozen=True)
class SplitSettings:
    """Who trains, who stops the training, who is tested."""

    kind: Literal["patient", "slice"] = "patient"
    """By patient, or by slice: only to replicate, for neighbours of tested slices are then trained on."""
    train_slices: int = 440
    """By slice: training slices of each cohort, half with lesion."""
    validation_slices: int = 60
    """By slice: validation slices of each cohort, half with lesion."""
    test_share: float = 0.4
    """By patient: share of each cohort's patients that is only ever tested."""
    validation_patients: int = 1
    """By patient: patients of each cohort that stop the training."""
    folds: int = 0
    """By patient: divide the target's patients into so many groups and test each in turn; 0 holds one group out."""
    test_seed: int | None = None
    """By patient: draws the tested patients (with folds: the groups), the same for every seed; none draws them by each seed."""

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1 or (self.folds and self.kind == "slice"):
            raise ProtocolError(
                f"Folds are 0 or at least 2, and of patients; got {self.folds} with a split by {self.kind}."
            )
        if not 0 < self.test_share < 1 or min(self.validation_patients, self.train_slices, self.validation_slices) < 1:
            raise ProtocolError(
                "A split tests a share between 0 and 1 of the patients, and has at least one patient or slice to train on and to "
                f"validate on; got {self}."
            )


@dataclass(frozen=True)
class DecisionSettings:
    """How probabilities become a mask."""

    threshold: float = 0.5
    """Probability from which a pixel is lesion."""
    min_pixels: int = 0
    """A slice with fewer lesion pixels has none."""
    inside_lung: bool = False
    """Whether only pixels of the lung mask can be lesion."""
    choose_on_validation: bool = False
    """Choose threshold and smallest area on the validation slices instead."""
    flips: bool = False
    """Average the prediction with that of the mirrored slice."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.min_pixels < 0:
            raise ProtocolError(f"A threshold is above 0 and at most 1, and min_pixels at least 0; got {self}.")


@dataclass(frozen=True)
class Protocol:
    """A study: what is asked, of whom, how often. Read from TOML with ``read_protocol``."""

    name: str
    """Short name, used in file names and on the page."""
    description: str = ""
    """What the study is for, in one sentence."""
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    fine_tuning: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=50))
    decision: DecisionSettings = field(default_factory=DecisionSettings)
    arms: tuple[str, ...] = ("zero_shot", "fine_tuned")
    """What is compared on the target's held-out slices: zero_shot, from_scratch, fine_tuned, frozen_encoder, head_only, joint,
    adapted_batch_norm, adapted_histogram, adapted_tent."""
    budgets: tuple[int, ...] = ()
    """Target patients (by slice: slices) that arms with labels are trained on, each in turn; 0 is no retraining. Empty: 2
    patients, or by slice split.train_slices."""
    seeds: tuple[int, ...] = (0,)
    """Each seed draws its own weights, batches and order of patients."""
    price_leak: bool = False
    """Also train the source model on splits by slice, by case and by patient that share their tested slices."""
    explain_drop: bool = True
    """Also replay the source model on the target with one difference removed at a time."""

    def __post_init__(self) -> None:
        for name in ("arms", "seeds"):
            if not getattr(self, name):
                raise ProtocolError(f"Protocol {self.name!r}: {name} is empty; name at least one.")
        for name in ("arms", "budgets", "seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ProtocolError(f"Protocol {self.name!r}: {name} names one twice: {getattr(self, name)}.")
        self._require_arms()
        if min(self.budgets, default=0) < 0:
            raise ProtocolError(f"Protocol {self.name!r}: a budget is at least 0; got {self.budgets}.")
        if self.split.kind == "slice" and max(self.budgets, default=0) > self.split.train_slices:
            raise ProtocolError(
                f"Protocol {self.name!r}: by slice, a budget is at most split.train_slices, {self.split.train_slices}; got {self.budgets}."
            )
        if min(self.seeds) < 0 or max(self.seeds) >= 2**31:
            raise ProtocolError(f"Protocol {self.name!r}: a seed is from 0 to 2147483647; got {self.seeds}.")
        if self.prepare.size % (1 << self.network.levels):
            raise ProtocolError(
                f"Protocol {self.name!r}: pictures of {self.prepare.size} pixels cannot be halved {self.network.levels} times; "
                f"choose a size that {1 << self.network.levels} divides."
            )

    def _require_arms(self) -> None:
        """Refuse arms that are not known, or that could not be carried out after hours of training."""
        if unknown := sorted(set(self.arms) - set(ARMS)):
            raise ProtocolError(
                f"Protocol {self.name!r}: no arm is called {', '.join(unknown)}; choose from {', '.join(ARMS)}."
            )
        if self.network.norm != "batch" and (bad := {"adapted_batch_norm", "adapted_tent"} & set(self.arms)):
            raise ProtocolError(
                f"Protocol {self.name!r}: {', '.join(sorted(bad))} change batch norm, and network.norm is {self.network.norm!r}; leave "
                "the arm out or set network.norm to batch."
            )
        if not self.labelled_budgets and (bad := {arm for arm in self.arms if ARMS[arm].labels}):
            raise ProtocolError(
                f"Protocol {self.name!r}: {', '.join(sorted(bad))} are trained on labels, and no budget is above 0; got {self.budgets}."
            )

    @property
    def labelled_budgets(self) -> tuple[int, ...]:
        """The budgets above 0, in rising order; those for the split's kind if none are named."""
        standing = (self.split.train_slices if self.split.kind == "slice" else 2,)
        return tuple(sorted(budget for budget in self.budgets or standing if budget))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for a manifest."""
        return asdict(self)


def shipped_protocols() -> tuple[str, ...]:
    """Names of the protocols that come with lungshift."""
    folder = resources.files("lungshift.transfer") / "protocols"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def read_protocol(name_or_path: str | Path, changes: tuple[str, ...] = ()) -> Protocol:
    """Read a protocol: a shipped one by name, or a TOML file.

    Args:
        name_or_path: ``paper``, ``quick``, ``demo``, … or the path of a file.
        changes: Settings to replace, each ``key.key=value`` with the value as TOML writes it.

    Raises:
        ProtocolError: No such protocol, not TOML, an unknown setting or a value that cannot be.
    """
    try:
        values = tomllib.loads(_text_of(name_or_path))
        for change in changes:
            _apply(values, change)
    except tomllib.TOMLDecodeError as error:
        raise ProtocolError(f"{name_or_path} is not valid TOML: {error}.") from error
    return parse_protocol(values)


def parse_protocol(values: dict[str, Any]) -> Protocol:
    """A protocol from plain values.

    Raises:
        ProtocolError: An unknown setting, or a value that cannot be; the message names each.
    """
    from pydantic import TypeAdapter, ValidationError

    if unknown := _unknown(values, Protocol, ""):
        raise ProtocolError(
            f"Settings that lungshift does not know: {', '.join(unknown)}. See docs/protocols.md for those it does."
        )
    try:
        return TypeAdapter(Protocol).validate_python(values)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise ProtocolError("The protocol has settings that cannot be: " + "; ".join(found) + ".") from error


def _text_of(name_or_path: str | Path) -> str:
    if str(name_or_path) in shipped_protocols():
        return (resources.files("lungshift.transfer") / "protocols" / f"{name_or_path}.toml").read_text()
    try:
        return Path(name_or_path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(
            f"No protocol {str(name_or_path)!r}: it is neither a readable file nor one of {', '.join(shipped_protocols())}."
        ) from error


def _apply(values: dict[str, Any], change: str) -> None:
    """Set one ``key.key=value``; a value that is not TOML is taken as a word."""
    path, equals, text = change.partition("=")
    if not equals:
        raise ProtocolError(f"A changed setting is key=value, such as network.width=16; got {change!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *folders, last = path.strip().split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
        if not isinstance(values, dict):
            raise ProtocolError(f"{path!r} goes through a setting that holds no others.")
    values[last] = value


def _unknown(values: dict[str, Any], settings: Any, prefix: str) -> list[str]:
    known = get_type_hints(settings)
    found = []
    for key, value in values.items():
        if key not in known:
            found.append(prefix + key)
        elif isinstance(value, dict) and is_dataclass(known[key]):
            found += _unknown(value, known[key], f"{prefix}{key}.")
    return found
