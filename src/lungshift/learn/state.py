"""Everything a training run carries from epoch to epoch, and its one file on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lungshift.errors import CheckpointError
from lungshift.files import write_file
from lungshift.learn.history import EpochRecord
from lungshift.learn.settings import TrainingSettings


@dataclass(eq=False)
class TrainingState:
    """The one changing value of a run; ``model`` and ``optimiser`` change in place."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    averaged_model: nn.Module | None
    best: dict[str, Tensor]
    best_value: float = float("-inf")
    best_epoch: int = 0
    step: int = 0
    records: list[EpochRecord] = field(default_factory=list)

    @classmethod
    def fresh(cls, model: nn.Module, optimiser: torch.optim.Optimizer, *, averaged: bool) -> TrainingState:
        """The state before the first epoch."""
        average = deepcopy(_plain(model)).requires_grad_(False) if averaged else None
        return cls(model, optimiser, average, _copy(_plain(model)))

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.records)

    @property
    def kept_model(self) -> nn.Module:
        """The weights that would be kept now: the moving average if there is one."""
        return self.averaged_model if self.averaged_model is not None else self.model

    def finished(self, settings: TrainingSettings) -> bool:
        """Whether all epochs are done, or the best was too long ago."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= settings.epochs or (settings.patience > 0 and waited >= settings.patience)

    def note(self, record: EpochRecord, value: float) -> None:
        """Add an epoch; keep its weights if ``value`` is the best so far."""
        self.records.append(record)
        if value > self.best_value:
            self.best_value, self.best_epoch, self.best = value, record.epoch, _copy(_plain(self.kept_model))

    def average(self, decay: float) -> None:
        """Move the average towards the weights; early steps count more, so that it leaves its random start."""
        self.step += 1
        share = 1 - min(decay, (1 + self.step) / (10 + self.step))
        assert self.averaged_model is not None
        target = _plain(self.model).state_dict()
        for name, tensor in self.averaged_model.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(target[name], share)
            else:
                tensor.copy_(target[name])


def save_state(state: TrainingState, path: Path, fingerprint: str) -> None:
    """Write the state as one safetensors file, which is read again; it replaces the old one whole or not at all.

    Raises:
        ResourceError: The disk is full; the old state is as it was.
    """
    from safetensors.torch import save_file

    numbers = {
        "fingerprint": fingerprint,
        "best_value": state.best_value,
        "best_epoch": state.best_epoch,
        "step": state.step,
        "records": [asdict(record) for record in state.records],
    }
    tensors = {name: tensor.contiguous().clone() for name, tensor in _tensors(state).items()}

    def write(temporary: Path) -> None:
        with _system_errors(temporary):
            save_file(tensors, temporary, metadata={"state": json.dumps(numbers)})

    write_file(path, write, lambda temporary: _holds(temporary, tensors))


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turn what safetensors says of a full disk into the system's own error."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if not (number := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Whether a file holds these tensors, to the bit."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        return all(_same_bits(stored.get_tensor(name), tensor) for name, tensor in tensors.items())


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(*(tensor.cpu().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def load_state(state: TrainingState, path: Path, fingerprint: str) -> None:
    """Put a saved state back.

    Raises:
        CheckpointError: The file is damaged, or is the state of another run.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            numbers = json.loads(stored.metadata()["state"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 — not a dict
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the state of a run ({error}); delete it to start again."
        ) from error
    if numbers["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{path} is the state of a run with other settings, data or seed. Choose another --output, or delete it to start again.",
            code="E_OTHER_RUN",
        )
    _restore(state, tensors)
    state.best_value, state.best_epoch, state.step = numbers["best_value"], numbers["best_epoch"], numbers["step"]
    state.records = [EpochRecord(**record) for record in numbers["records"]]


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    groups: dict[str, dict[str, Any]] = {"model": _plain(state.model).state_dict(), "best": state.best}
    if state.averaged_model is not None:
        groups["average"] = state.averaged_model.state_dict()
    for number, moments in state.optimiser.state_dict()["state"].items():
        groups[f"optimiser/{number}"] = moments
    return {
        f"{group}/{name}": torch.as_tensor(tensor)
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def _restore(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    def group(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix + "/"): tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")
        }

    _plain(state.model).load_state_dict(group("model"))
    state.best = group("best")
    if state.averaged_model is not None:
        state.averaged_model.load_state_dict(group("average"))
    parameters = [one for part in state.optimiser.param_groups for one in part["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in group("optimiser").items():
        number, key = name.split("/")
        moments.setdefault(int(number), {})[key] = _laid_out_like(parameters[int(number)], tensor)
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the memory order of its parameter: a fused optimiser walks both alike, whatever their strides say."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _plain(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of Fabric and of its strategies."""
    inner = getattr(model, "_forward_module", model)
    return getattr(inner, "module", inner)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
