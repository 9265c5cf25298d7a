"""Many studies, side by side: what fails is listed and the others go on; what is done stays done."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lungshift.errors import LungshiftError, MissingError, ResourceError
from lungshift.files import blame_machine, new_folder, run_folder, write_json, write_text
from lungshift.learn.machine import threads_here, use_threads
from lungshift.patient.predicting import (
    DESCRIPTION,
    RESEARCH,
    Options,
    is_done,
    predict_study,
    read_description,
    refusal_of,
    write_prediction,
)
from lungshift.patient.studies import Found, Study
from lungshift.workers import WorkerDied, Workers, result_of, start_executor

TRIES = 3
"""How often a study is given to a process that dies of it before it is listed."""
TABLE, LISTING = "predictions.csv", "predictions.json"
Status = Literal["done", "kept", "failed"]
_LOG = logging.getLogger("lungshift")


class Watcher(Protocol):
    """Is told how the work goes on."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def studies(self, done: int, total: int) -> None:
        """Studies that are done, whatever came of them."""


@dataclass(frozen=True)
class Ended:
    """What came of a study.

    Attributes:
        name: Of the study, and of its folder.
        status: ``done`` now, ``kept`` from an earlier run, or ``failed``.
        code, message: Why it failed.
    """

    name: str
    status: Status
    code: str = ""
    message: str = ""


def predict_one(found: Found, options: Options, folder: Path, *, overwrite: bool = False) -> Ended:
    """Predict a single scan into a folder; one that holds this very prediction is kept.

    Raises:
        LungshiftError: Whatever keeps it from being predicted; nothing is left in the folder.
        OutputError: The folder holds something else, or another process writes there.
    """
    (study,) = found.studies
    identity = _identity(found, options)
    with run_folder(folder, identity, overwrite=overwrite, results=DESCRIPTION, again=True):
        if is_done(study, folder, options):
            return Ended(study.name, "kept")
        write_prediction(predict_study(study, options), folder, options)
    return Ended(study.name, "done")


def predict_many(
    found: Found, options: Options, folder: Path, *, workers: Workers, watcher: Watcher, overwrite: bool = False
) -> list[Ended]:
    """Predict each study into a folder of its own below ``folder``, and list them all in ``predictions.csv`` and ``.json``.

    The work is done by other processes even where it is one at a time: a study that its process dies of takes no other with it.
    The same call again keeps what is done, and tries what has failed or is new.

    Returns:
        What came of each study, in their order; those that failed too.

    Raises:
        OutputError: The folder holds something else, or another process writes there.
        ResourceError: The disk is full or the folder cannot be written; what is done is kept.
        MissingError: The device is not there, or the scheduler does not answer.
    """
    ended: dict[str, Ended] = {}

    def tell(one: Ended) -> None:
        ended[one.name] = one
        watcher.studies(len(ended), len(found.studies))

    identity = _identity(found, options)
    with run_folder(folder, identity, overwrite=overwrite, results=f"*/{DESCRIPTION}", again=True):
        watcher.stage(f"Predicting {len(found.studies)} studies")
        _side_by_side(found.studies, options, folder.resolve(), workers, tell)
        in_order = [ended[study.name] for study in found.studies]
        _write_lists(in_order, folder, options)
    return in_order


def _identity(found: Found, options: Options) -> dict[str, Any]:
    """What makes two commands the same: what they were given, the models and the options; what lies in a folder may change."""
    given = sorted(str(path.resolve()) for path in found.given)
    lungs = [str(study.lung.resolve()) for study in found.studies if study.lung]
    return {"predict": options.identity(), "given": given, "lung": lungs}


def _do(study: Study, options: Options, folder: Path) -> Ended:
    """What a worker does: one study, from its files to its folder. Only what no other study would survive is raised."""
    target = folder / study.name
    try:
        if is_done(study, target, options):
            return Ended(study.name, "kept")
        prediction = predict_study(study, options)
        with new_folder(target, overwrite=True) as part:
            write_prediction(prediction, part, options)
        return Ended(study.name, "done")
    except (MissingError, ResourceError) as error:
        if error.code not in ("E_MEMORY", "E_DECODER"):
            raise
        return Ended(study.name, "failed", *refusal_of(error, study, options))
    except Exception as error:
        if isinstance(error, OSError):
            blame_machine(error)
        if not isinstance(error, (LungshiftError, MemoryError)):
            _LOG.debug("%s", study.name, exc_info=True)
        return Ended(study.name, "failed", *refusal_of(error, study, options))


def _side_by_side(
    studies: Sequence[Study], options: Options, folder: Path, workers: Workers, tell: Callable[[Ended], None]
) -> None:
    """Give out all studies at once; those that were under way when a process died are then tried again one at a time."""
    left = list(studies)
    while left:
        killed = _together(left, options, folder, workers, tell)
        suspects = killed if workers.scheduler else killed[: workers.jobs]  # a pool starts studies in their order
        for study in suspects:
            tell(_alone(study, options, folder, workers))
        left = [study for study in killed if study not in suspects]


def _together(
    studies: Sequence[Study], options: Options, folder: Path, workers: Workers, tell: Callable[[Ended], None]
) -> list[Study]:
    """Predict side by side; the studies, in their order, that have not ended because a process died."""
    killed = []
    with start_executor(workers, _begin) as executor:
        running = {executor.submit(_do, study, options, folder): study for study in studies}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    study = running.pop(future)
                    if (ended := _result(future)) is None:
                        killed.append(study)
                    else:
                        tell(ended)
        finally:
            for future in running:
                future.cancel()
    return [study for study in studies if study in killed]


def _alone(study: Study, options: Options, folder: Path, workers: Workers) -> Ended:
    """Predict with nobody else at work, more than once, so that a death is this study's doing and not the machine's."""
    for _ in range(TRIES - 1):
        with start_executor(Workers(1, workers.scheduler), _begin) as executor:
            if (ended := _result(executor.submit(_do, study, options, folder))) is not None:
                return ended
    return Ended(
        study.name,
        "failed",
        "E_WORKER",
        "the process that predicted it died, each time it was tried; mostly for want of memory. Predict it alone, on a larger machine.",
    )


def _result(future: Future[Ended]) -> Ended | None:
    """What came of a study; None if the process that predicted it died."""
    try:
        return result_of(future)
    except WorkerDied:
        return None


def _begin(threads: int) -> None:
    """A new process takes its share of the cores, but no more threads than this one may have."""
    use_threads(min(threads, threads_here()))


def _write_lists(ended: Sequence[Ended], folder: Path, options: Options) -> None:
    rows = [_row(one, folder) for one in ended]
    stream = io.StringIO()
    table = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_text(folder / TABLE, stream.getvalue())
    counts = {status: sum(one.status == status for one in ended) for status in ("done", "kept", "failed")}
    write_json(folder / LISTING, {"use": RESEARCH, "options": options.identity(), "counts": counts, "studies": rows})


def _row(one: Ended, folder: Path) -> dict[str, Any]:
    """A study's line in the lists; numbers are missing where it failed."""
    told = {} if one.status == "failed" else read_description(folder / one.name)
    lesion, lung, geometry = (told.get(part, {}) for part in ("lesion", "lung", "geometry"))
    return {
        "study": one.name,
        "status": one.status,
        "code": one.code,
        "message": one.message or told.get("said", ""),
        "lesion_ml": lesion.get("ml"),
        "percent_of_lung": lesion.get("percent_of_lung"),
        "ground_glass_ml": lesion.get("ground_glass_ml"),
        "consolidation_ml": lesion.get("consolidation_ml"),
        "lesion_slices": lesion.get("slices"),
        "lung_ml": lung.get("ml"),
        "lung_slices": lung.get("slices"),
        "lung_source": lung.get("source"),
        "flags": list(dict.fromkeys(flag["code"] for flag in told.get("flags", []))),
        "shape": geometry.get("shape"),
        "spacing_mm": geometry.get("spacing_mm"),
    }


def _cell(value: Any) -> Any:
    """A value as a table has it: lists by spaces, numbers with what digits mean something."""
    if isinstance(value, list):
        return " ".join(str(_cell(one)) for one in value)
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value
