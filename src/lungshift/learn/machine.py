"""The machine: which device computes, with what arithmetic, and what the result depends on."""

from __future__ import annotations

import logging
import os
import platform
from importlib import metadata
from typing import Literal

import torch
from lightning.fabric import Fabric, seed_everything

from lungshift.errors import MissingError, ProtocolError
from lungshift.memory import keep_freed_memory


def start_fabric(device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32", seed: int = 0) -> Fabric:
    """Lightning Fabric on the device that was asked for, with every random generator seeded.

    One device computes, unless ``torchrun`` started several processes: then all of them take part, one device each, by
    Fabric's own data-parallel strategy.

    Raises:
        MissingError: The device is not there; another is never taken instead.
    """
    accelerator, devices = _parse(device)
    keep_freed_memory()
    for name in (
        "lightning",
        "lightning.fabric",
        "lightning.fabric.utilities.rank_zero",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    seed_everything(seed, verbose=False)
    fabric = Fabric(
        accelerator=accelerator, devices=devices, precision="bf16-mixed" if precision == "bf16" else "32-true"
    )
    fabric.launch()
    return fabric


def use_threads(count: int) -> None:
    """Let torch compute with so many threads in this process, where several processes share the cores.

    Raises:
        ProtocolError: Fewer than one.
    """
    if count < 1:
        raise ProtocolError(f"Something must compute: threads are 1 or more; got {count}.")
    torch.set_num_threads(count)


def _parse(device: str) -> tuple[str, list[int] | int]:
    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if kind == "cpu" and not number:
        return "cpu", together
    if kind == "cuda" and number in ("", *map(str, range(torch.cuda.device_count()))) and torch.cuda.is_available():
        return "cuda", [int(number)] if number else together
    raise MissingError(
        f"The device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use --device cpu, or auto."
    )


def name_device(device: str) -> str:
    """What computes for a word such as ``auto``: ``cpu``, or the name of the graphics card."""
    accelerator, devices = _parse(device)
    number = devices[0] if isinstance(devices, list) else 0
    return torch.cuda.get_device_name(number) if accelerator == "cuda" else "cpu"


def describe_software() -> dict[str, str]:
    """Versions and machine facts on which the bits of a result depend."""
    packages = {name: metadata.version(name) for name in ("lungshift", "torch", "lightning", "numpy")}
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "cuda": str(torch.version.cuda or "none"),
    }
    return {**packages, **machine}
