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

Arm = Literal["zero_shot", "fine_tuned"]


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

    def __post_init__(self) -> None:
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
    arms: tuple[Arm, ...] = ("zero_shot", "fine_tuned")
    """What is compared on the target's held-out slices."""
    budgets: tuple[int, ...] = (2,)
    """By patient: how many target patients fine-tuning may see."""
    seeds: tuple[int, ...] = (0,)
    """Each seed draws its own split and weights."""

    def __post_init__(self) -> None:
        for name in ("arms", "budgets", "seeds"):
            if not getattr(self, name):
                raise ProtocolError(f"Protocol {self.name!r}: {name} is empty; name at least one.")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ProtocolError(f"Protocol {self.name!r}: {name} names one twice: {getattr(self, name)}.")
        if min(self.seeds) < 0 or max(self.seeds) >= 2**31:
            raise ProtocolError(f"Protocol {self.name!r}: a seed is from 0 to 2147483647; got {self.seeds}.")
        if self.prepare.size % (1 << self.network.levels):
            raise ProtocolError(
                f"Protocol {self.name!r}: pictures of {self.prepare.size} pixels cannot be halved {self.network.levels} times; "
                f"choose a size that {1 << self.network.levels} divides."
            )

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
