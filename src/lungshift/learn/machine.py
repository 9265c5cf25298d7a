"""The machine: which device computes, with how many threads, with what arithmetic, and what the result depends on.

torch is imported only where it computes: prediction on a CPU, which OpenVINO does, asks here for its device and threads and
never loads it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from lungshift.errors import MissingError, ProtocolError
from lungshift.memory import keep_freed_memory

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Precision = Literal["fp32", "bf16"]
"""Number format of a network's arithmetic."""

_THREADS = "OMP_NUM_THREADS"
_CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


def start_fabric(device: str = "auto", precision: Precision = "fp32", seed: int = 0) -> Fabric:
    """Lightning Fabric on the device that was asked for, with every random generator seeded.

    One device computes, unless ``torchrun`` started several processes: then all of them take part, one device each, by
    Fabric's own data-parallel strategy.

    Raises:
        MissingError: The device is not there; another is never taken instead.
    """
    from lightning.fabric import Fabric, seed_everything

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
    """Let networks compute with so many threads in this process, where several processes share the cores.

    Raises:
        ProtocolError: Fewer than one.
    """
    if count < 1:
        raise ProtocolError(f"Something must compute: threads are 1 or more; got {count}.")
    os.environ[_THREADS] = str(count)  # torch, if it is loaded later, and OpenVINO's engine both go by it
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def threads_here() -> int:
    """How many threads a network computes with in this process: ``OMP_NUM_THREADS``, or the cores that it may run on."""
    said = os.environ.get(_THREADS, "").split(",")[0]
    if said.isdigit() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_device(device: str) -> Literal["cpu", "cuda"]:
    """Which kind of device computes for a word such as ``auto``; torch is loaded only if a graphics card may be meant.

    Raises:
        MissingError: The device is not there; another is never taken instead.
    """
    if device == "cpu" or (device == "auto" and not _card_possible()):
        return "cpu"
    return "cuda" if _parse(device)[0] == "cuda" else "cpu"


def _card_possible() -> bool:
    """Whether torch might find a graphics card: there is a driver to load, or it is a build for other cards than NVIDIA's."""
    if "rocm" in metadata.version("torch"):
        return True
    for name in _CUDA_DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _parse(device: str) -> tuple[str, list[int] | int]:
    import torch

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
    import torch

    accelerator, devices = _parse(device)
    number = devices[0] if isinstance(devices, list) else 0
    return torch.cuda.get_device_name(number) if accelerator == "cuda" else "cpu"


def describe_software() -> dict[str, str]:
    """Versions and machine facts on which the bits of a result depend."""
    import torch

    packages = {name: metadata.version(name) for name in ("lungshift", "torch", "lightning", "numpy")}
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "cuda": str(torch.version.cuda or "none"),
    }
    return {**packages, **machine}
