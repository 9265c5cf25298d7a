"""A study that no process survives."""

from __future__ import annotations

import os
import signal

from lungshift.io.nifti import NiftiSource
from lungshift.patient.studies import Study


class Poison(Study):
    """Kills whoever reads it, as a scan does that takes all memory."""

    def source(self) -> NiftiSource:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")
