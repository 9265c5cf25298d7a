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
    "Job": "lungshift.learn.training",
    "Mask": "lungshift.ct.volume",
    "Outcome": "lungshift.transfer.outcome",
    "Predictor": "lungshift.learn.prediction",
    "Protocol": "lungshift.transfer.protocol",
    "Volume": "lungshift.ct.volume",
    "average": "lungshift.measure.conventions",
    "count_overlap": "lungshift.measure.overlap",
    "dice": "lungshift.measure.overlap",
    "evaluate_cohort": "lungshift.transfer.single",
    "fit": "lungshift.learn.training",
    "load_checkpoint": "lungshift.learn.checkpoint",
    "phantom_cohort": "lungshift.prepare.phantom",
    "predict": "lungshift.learn.prediction",
    "prepare_cohort": "lungshift.prepare.prepared",
    "read_cohort": "lungshift.io.cohort",
    "read_protocol": "lungshift.transfer.protocol",
    "read_scan": "lungshift.io.scan",
    "run": "lungshift.transfer.study",
    "save_checkpoint": "lungshift.learn.checkpoint",
    "train_cohort": "lungshift.transfer.single",
    "write_mask": "lungshift.io.writing",
    "write_report": "lungshift.show.report",
}

__all__ = [
    "Case",
    "Cohort",
    "Geometry",
    "Job",
    "Mask",
    "Outcome",
    "Predictor",
    "Protocol",
    "Volume",
    "__version__",
    "average",
    "count_overlap",
    "dice",
    "evaluate_cohort",
    "fit",
    "load_checkpoint",
    "phantom_cohort",
    "predict",
    "prepare_cohort",
    "read_cohort",
    "read_protocol",
    "read_scan",
    "run",
    "save_checkpoint",
    "train_cohort",
    "write_mask",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lungshift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
