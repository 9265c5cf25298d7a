"""The process that reads damaged files, one line of JSON for each: ``python -m benchmarks.abuse.child SUITE FIRST LAST FOLDER [DATA]``.

It may crash, hang or take memory without end; who started it notices and starts another after the file that did it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.turns import ONE_THREAD

Trials = Callable[[int, int, Path], Iterator[dict]]


def main() -> None:
    suite, first, last, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    logging.disable(logging.CRITICAL)
    os.environ.update(ONE_THREAD)
    for told in trials_of(suite, *sys.argv[5:])(first, last, folder):
        print(json.dumps(told | {"mib": _peak_mib()}), flush=True)


def trials_of(suite: str, data: str = "") -> Trials:
    """The function that makes files by their numbers, reads each and judges what came of it."""
    if suite in ("dicom", "whole", "real"):
        from benchmarks.abuse import dicom_trial

        real = partial(dicom_trial.try_real, series=Path(data))
        return {"dicom": dicom_trial.try_dicom, "whole": dicom_trial.try_whole, "real": real}[suite]
    from benchmarks.abuse import nifti_files, nifti_trial

    make = {"header": nifti_files.damaged_header, "stream": nifti_files.damaged_stream}[suite]
    judge = {"header": nifti_trial.try_header, "stream": nifti_trial.try_stream}[suite]

    def trials(first: int, last: int, folder: Path) -> Iterator[dict]:
        for number in range(first, last):
            yield {"began": number}
            file = make(number)
            path = folder / file.name
            path.write_bytes(file.data)
            began = time.monotonic()
            verdict, words = judge(file, path, number)
            seconds = round(time.monotonic() - began, 3)
            path.unlink()
            source = "mask" if file.mask else "scan"
            yield {
                "number": number,
                "source": source,
                "kind": file.kind,
                "verdict": verdict,
                "words": words,
                "seconds": seconds,
            }

    return trials


def _peak_mib() -> dict[str, int]:
    """The highest memory so far of this process, and of the largest one that it started."""
    return {
        name: resource.getrusage(who).ru_maxrss >> 10
        for name, who in (("own", resource.RUSAGE_SELF), ("decoder", resource.RUSAGE_CHILDREN))
    }


if __name__ == "__main__":
    main()
