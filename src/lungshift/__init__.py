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
    "Finding": "lungshift.audit.finding",
    "Geometry": "lungshift.ct.geometry",
    "Job": "lungshift.learn.training",
    "Mask": "lungshift.ct.volume",
    "Outcome": "lungshift.transfer.outcome",
    "Pair": "lungshift.measure.compare",
    "Predictor": "lungshift.learn.prediction",
    "Protocol": "lungshift.transfer.protocol",
    "Published": "lungshift.measure.forensics",
    "ViewerDate": "lungshift.show.viewer",
    "Volume": "lungshift.ct.volume",
    "Workers": "lungshift.workers",
    "audit_cohort": "lungshift.audit.cohort",
    "audit_cohorts": "lungshift.audit.cohort",
    "average": "lungshift.measure.conventions",
    "build_scene": "lungshift.show.scene",
    "calibrate": "lungshift.transfer.forecast",
    "chain_transfer": "lungshift.transfer.chains",
    "claims_of": "lungshift.transfer.claims",
    "compare": "lungshift.measure.compare",
    "count_overlap": "lungshift.measure.overlap",
    "dice": "lungshift.measure.overlap",
    "estimate": "lungshift.measure.interval",
    "estimate_difference": "lungshift.measure.interval",
    "evaluate_cohort": "lungshift.transfer.single",
    "examine": "lungshift.measure.forensics",
    "explain_drop": "lungshift.transfer.explain",
    "find_twins": "lungshift.audit.duplicates",
    "fit": "lungshift.learn.training",
    "follow_up": "lungshift.patient.followup",
    "forecast": "lungshift.transfer.forecast",
    "load_checkpoint": "lungshift.learn.checkpoint",
    "new_mask": "lungshift.io.writing",
    "open_scan": "lungshift.io.scan",
    "orientation_findings": "lungshift.audit.orientation",
    "phantom_cohort": "lungshift.prepare.phantom",
    "predict": "lungshift.learn.prediction",
    "predict_lungs": "lungshift.learn.lungs",
    "predict_source": "lungshift.learn.prediction",
    "prepare_cohort": "lungshift.prepare.prepared",
    "quantify": "lungshift.patient.quantify",
    "read_cohort": "lungshift.io.cohort",
    "read_protocol": "lungshift.transfer.protocol",
    "read_scan": "lungshift.io.scan",
    "run": "lungshift.transfer.study",
    "run_chain": "lungshift.transfer.study",
    "run_leave_one_out": "lungshift.transfer.study",
    "save_checkpoint": "lungshift.learn.checkpoint",
    "train_cohort": "lungshift.transfer.single",
    "write_mask": "lungshift.io.writing",
    "write_report": "lungshift.show.report",
    "write_scene": "lungshift.show.scene",
    "write_viewer": "lungshift.show.viewer",
}

__all__ = [
    "Case",
    "Cohort",
    "Finding",
    "Geometry",
    "Job",
    "Mask",
    "Outcome",
    "Pair",
    "Predictor",
    "Protocol",
    "Published",
    "ViewerDate",
    "Volume",
    "Workers",
    "__version__",
    "audit_cohort",
    "audit_cohorts",
    "average",
    "build_scene",
    "calibrate",
    "chain_transfer",
    "claims_of",
    "compare",
    "count_overlap",
    "dice",
    "estimate",
    "estimate_difference",
    "evaluate_cohort",
    "examine",
    "explain_drop",
    "find_twins",
    "fit",
    "follow_up",
    "forecast",
    "load_checkpoint",
    "new_mask",
    "open_scan",
    "orientation_findings",
    "phantom_cohort",
    "predict",
    "predict_lungs",
    "predict_source",
    "prepare_cohort",
    "quantify",
    "read_cohort",
    "read_protocol",
    "read_scan",
    "run",
    "run_chain",
    "run_leave_one_out",
    "save_checkpoint",
    "train_cohort",
    "write_mask",
    "write_report",
    "write_scene",
    "write_viewer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lungshift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
