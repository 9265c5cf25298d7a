"""Memory: how the C library treats what was freed, how much there is, and a refusal before it runs out."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

from lungshift.errors import ResourceError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEEP_BYTES = (1 << 31) - 1
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def keep_freed_memory() -> None:
    """Let the C library keep what arrays and tensors free instead of giving it back to the system each time.

    Giving it back costs a page fault for every 4 KiB when it is asked for again: a third of the time to prepare a cohort.
    The same as GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=…, but after the start of the process.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def available_bytes() -> int:
    """Memory that this process may still take: of the machine, of its control group, and under its own ``ulimit -v``."""
    import psutil

    left = [int(psutil.virtual_memory().available), *_left_in_groups()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        left.append(soft - int(psutil.Process().memory_info().vms))
    return max(0, min(left))


def require_memory(needed: int, what: str) -> None:
    """Refuse work that would not fit, before anything of it is done.

    Args:
        needed: Bytes that the work takes at its highest.
        what: What takes them, with the numbers that they come from; the beginning of a sentence.

    Raises:
        ResourceError: There is less (code ``E_MEMORY``).
    """
    left = available_bytes()
    if needed > left:
        raise ResourceError(
            f"{what} takes about {needed >> 20} MiB of memory, and {left >> 20} MiB are free. Nothing was begun. Close other programs, "
            "raise the limit, or work on less at a time.",
            code="E_MEMORY",
        )


def require_memory_for_scan(shape: tuple[int, int, int], bytes_a_voxel: int, doing: str) -> None:
    """The same for work on a scan that is in memory whole, as its header tells.

    Args:
        shape: Slices, rows and columns.
        bytes_a_voxel: What the work takes at its highest for each voxel.
        doing: What is done with the scan, such as ``Measuring``.

    Raises:
        ResourceError: There is less (code ``E_MEMORY``).
    """
    slices, rows, columns = shape
    require_memory(slices * rows * columns * bytes_a_voxel, f"{doing} a scan of {slices} x {rows} x {columns} voxels")


def _left_in_groups() -> list[int]:
    """What control groups leave; nothing where there is no limit."""
    left = []
    for most, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            left.append(int(most.read_text()) - int(used.read_text()))
    return left
