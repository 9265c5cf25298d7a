"""What a network and its training are, as frozen values that a protocol file can hold. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from lungshift.errors import ProtocolError
from lungshift.prepare.windows import PAPER_WINDOW, Window

Norm = Literal["none", "batch", "instance", "group"]

Target = Literal["lesion", "lung"]
"""What a network finds."""

Trainable = Literal["all", "decoder", "head"]
"""Which layers training changes: all, those after the bottom of the U, or the last 1x1 convolution."""

Adaptation = Literal["batch_norm", "histogram", "tent"]
"""How a network is fitted to a cohort without its labels, see ``learn.adaptation``."""


@dataclass(frozen=True)
class Augmentation:
    """How often and how far slices are changed; a probability is per slice, a range is drawn from evenly."""

    flip: float = 0.5
    """Probability of a mirror image, left to right."""
    affine: float = 0.8
    """Probability of a rotation, scale and shift."""
    rotation_deg: float = 15.0
    """Rotation of up to this either way."""
    scale: float = 0.2
    """Size times up to ``exp(scale)`` or down to ``exp(-scale)``."""
    stretch: float = 0.1
    """Rows over columns, as ``scale``."""
    shift: float = 0.05
    """Shift of up to this part of the slice's rows and columns."""
    intensity: float = 0.8
    """Probability of an offset, gain and gamma."""
    offset_hu: float = 60.0
    """HU added, up to this either way."""
    gain: float = 0.15
    """Contrast about air, as ``scale``."""
    gamma: float = 0.25
    """Exponent of the intensity between -1000 and 400 HU, as ``scale``."""
    kernel: float = 0.5
    """Probability of a sharper or softer image."""
    sharpness: float = 1.0
    """Up to this much of what a blur of one pixel takes away is added or taken."""
    noise: float = 0.4
    """Probability of white noise, added before the change of sharpness."""
    noise_hu: float = 50.0
    """Standard deviation of the noise, from zero up to this."""
    consolidation: float = 0.0
    """Probability of dense patches painted into the lung, for networks that find lungs: they are to know it however dense it is."""

    @classmethod
    def none(cls) -> Augmentation:
        """Settings that leave every slice as it is."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


@dataclass(frozen=True)
class NetworkSettings:
    """What the network is and what it sees; prediction needs exactly this."""

    width: int = 64
    """Filters of the first level; each level doubles them."""
    levels: int = 4
    """Times the picture is halved."""
    norm: Norm = "none"
    """Normalisation after each convolution; the source paper has none."""
    dropout: float = 0.0
    """Share of features dropped at the bottom of the U."""
    windows: tuple[Window, ...] = (PAPER_WINDOW,)
    """HU windows, each one input channel."""
    lung_channel: bool = True
    """Whether the lung mask is a further input channel, as in the source paper."""
    crop: bool = False
    """Whether only the lungs' bounding box and a margin are looked at, not the whole slice."""
    neighbours: int = 0
    """Slices on each side that are further input channels, in the first window."""
    neighbour_mm: float = 6.0
    """Distance between them; the nearest slice is taken, at least the next."""
    target: Target = "lesion"
    """What it finds: lesion, or lung; the latter is given no lung mask, so neither ``lung_channel`` nor ``crop``."""

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ProtocolError(f"Normalisation is one of {', '.join(get_args(Norm))}; got {self.norm!r}.")
        if min(self.width, self.levels) < 1 or self.neighbours < 0 or self.neighbour_mm <= 0 or not self.windows:
            raise ProtocolError(
                "A network has a width and levels of at least 1, no fewer than 0 neighbours, further than 0 mm away, and a window; "
                f"got {self}."
            )
        if not 0 <= self.dropout < 1:
            raise ProtocolError(f"Dropout is a share from 0 to below 1; got {self.dropout}.")
        self._require_target()

    def _require_target(self) -> None:
        if self.target not in get_args(Target):
            raise ProtocolError(f"A network's target is one of {', '.join(get_args(Target))}; got {self.target!r}.")
        if self.target == "lung" and (self.lung_channel or self.crop):
            raise ProtocolError(
                "A network that finds the lungs cannot be shown them: set network.lung_channel and network.crop to false, or take the "
                f"protocol lung; got lung_channel {self.lung_channel} and crop {self.crop}.",
                code="E_TARGET",
            )

    @property
    def offsets_mm(self) -> tuple[float, ...]:
        """Where the neighbours are, from the nearest: below 0 towards the foot."""
        return tuple(sign * n * self.neighbour_mm for n in range(1, self.neighbours + 1) for sign in (-1, 1))

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.windows) + 2 * self.neighbours + self.lung_channel


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; fine-tuning has a second one of these."""

    epochs: int = 200
    """At most so many passes over the training slices."""
    patience: int = 10
    """Stop after so many epochs without a better validation value; 0 never stops early."""
    monitor: Literal["loss", "score"] = "loss"
    """The validation value by which weights are kept and training is stopped."""
    batch: int = 45
    """Slices per step of the optimiser."""
    micro_batch: int = 5
    """Slices held in memory at once; gradients add up to exactly those of the whole batch (without batch norm)."""
    epoch_slices: int = 0
    """Slices drawn for an epoch; 0 takes as many as there are."""
    balance: float = 0.0
    """Draw patients with few slices more often: 0 takes every slice once an epoch, 1 gives each patient the same share."""
    optimiser: Literal["adam", "adamw"] = "adam"
    """The optimiser; adamw uses ``weight_decay``."""
    learning_rate: float = 1e-4
    """Highest learning rate."""
    schedule: Literal["constant", "one_cycle", "cosine"] = "constant"
    """How the learning rate goes over the epochs."""
    weight_decay: float = 0.0
    """Decoupled weight decay, for adamw."""
    loss: Literal["bce", "dice", "bce_dice"] = "bce"
    """The loss of a slice, see learn.losses."""
    clip: float = 0.0
    """Largest norm of a step's gradient; larger ones are scaled down. 0 is off."""
    average_decay: float = 0.0
    """Decay of the moving average of weights that is kept instead of the last weights; 0 is off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network's arithmetic while training; weights stay fp32."""
    augmentation: Augmentation = field(default_factory=Augmentation.none)
    """Random changes of the training slices; none in the source paper."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.micro_batch < 1 or self.epochs < 1 or self.learning_rate <= 0:
            raise ProtocolError(
                f"Training needs batch, micro_batch and epochs of at least 1 and a learning rate above 0; got batch "
                f"{self.batch}, micro_batch {self.micro_batch}, epochs {self.epochs}, learning rate {self.learning_rate}."
            )
        if self.epoch_slices < 0:
            raise ProtocolError(f"An epoch has 0 slices (as many as there are) or more; got {self.epoch_slices}.")
