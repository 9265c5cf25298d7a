"""Does this lesion model work on our chest CT, and what does it cost to repair it?

The public names are found when they are first used, so that importing lungshift stays fast and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Case": "lungshift.ct.case",
    "Cohort": "lungshift.ct.case",
    "Geometry": "lungshift.ct.geometry",
    "Mask": "lungshift.ct.volume",
    "Volume": "lungshift.ct.volume",
}

__all__ = ["Case", "Cohort", "Geometry", "Mask", "Volume", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lungshift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
