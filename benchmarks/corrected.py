"""What correcting labels is worth: spoil the source's labels, audit them, carry out decisions, and run the transfer again.

    .venv/bin/python -m benchmarks.corrected --output docs/benchmarks/audit/corrected.md

Two phantom hospitals, so that the right labels are known. Every second label of the source has one planted error. The cohort is written to files and audited with networks that never saw the case; its
worklist is decided in two ways: by a *reader who knows*, who accepts a finding if half of its voxels or more lie in what was planted, and *unread*, where everything that the audit calls an error
is accepted. `correct_labels` writes the new labels, and the same study is run with each. The target's labels are right all the time, and the same slices are tested.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.abuse.places import write_cohort
from benchmarks.audit import table
from benchmarks.labels import HIT, phantom_protocol
from benchmarks.noshift import protocol as study_protocol
from benchmarks.report import describe_machine
from lungshift.audit.belief import PLANTED
from lungshift.audit.cohort import audit_cohorts
from lungshift.audit.correct import Decision, correct_labels
from lungshift.audit.finding import Finding
from lungshift.audit.judged import ERROR_BELIEF, identity_of, read_suspects
from lungshift.ct.case import Cohort
from lungshift.io.cohort import read_cohort
from lungshift.measure.interval import Estimate, estimate
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_errors import LabelError
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import SITE_A
from lungshift.show.pooled import Pooled, arm_runs, gain
from lungshift.show.worklist import write_audit_page
from lungshift.transfer.auditing import judge_cohorts
from lungshift.transfer.outcome import Outcome, Run
from lungshift.transfer.protocol import Protocol
from lungshift.transfer.study import run

PATIENTS, SEED, TOP = 24, 41, 60
ARMS = (("zero_shot", 0), ("fine_tuned", 2))
_SMALL: dict[str, Any] = {"size": 112, "pixel_mm": 3.1, "slice_mm": 5.0}
_ILL = Lesions(mild=0.2, moderate=0.5, severe=0.3, effusion=0.1)
Voxels = Mapping[str, np.ndarray]


def main() -> None:
    """Spoil, audit, correct, transfer, and write the page."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--work", type=Path, help="where networks are kept")
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    load, began = os.getloadavg(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        text = "\n".join(_page(asked.work or Path(scratch), load, began))
    print(text)
    if asked.output:
        asked.output.write_text(text)


def _page(folder: Path, load: Sequence[float], began: float) -> list[str]:
    errors = tuple(LabelError(PLANTED[at // 2 % len(PLANTED)], at) for at in range(0, PATIENTS, 2))
    right, spoilt = _source(()), _source(errors)
    changed = {a.case_id: _lesion(a) ^ _lesion(b) for a, b in zip(right.cases, spoilt.cases, strict=True)}
    if not (folder / "hospital-a").exists():
        write_cohort(spoilt, folder / "hospital-a")
    home = read_cohort(folder / "hospital-a")
    decided = _decisions(home, folder / "audit", changed)
    versions = {"right": right, "spoilt": spoilt}
    told = []
    for name, (decisions, words) in decided.items():
        target = folder / f"corrected-{name.split()[0]}" / "hospital-a"
        if not target.exists():
            correct_labels(home, folder / "audit", decisions, target)
        versions[f"corrected, {name}"] = read_cohort(target)
        told.append((name, *words, *_left(versions[f"corrected, {name}"], right, changed)))
    away = phantom_cohort("hospital-b", patients=PATIENTS, site=replace(SITE_A, **_SMALL), seed=SEED + 1, lesions=_ILL)
    studies = {
        name: run(_protocol(), cohort, away, folder / f"study-{n}", device="cpu")
        for n, (name, cohort) in enumerate(versions.items())
    }
    machine = describe_machine()
    planted = sum(voxels.any() for voxels in changed.values())
    return [
        "# What correcting labels is worth",
        "",
        " ".join(str(__doc__).split("\n\n")[2].split()) + " Written by `python -m benchmarks.corrected`.",
        "",
        f"{PATIENTS} patients at each hospital, {planted} labels of the source with an error in {sum(int(v.sum()) for v in changed.values())} voxels; "
        f"{len(read_suspects(folder / 'audit'))} findings on the worklist, {TOP} of networks at most.",
        "",
        *table(("decided", "accepted", "right to accept", "planted voxels left", "right voxels spoilt"), told),
        "The study again, with each version of the source's labels (F1 by `lesion_slices`, two seeds, with 95 % intervals; differences are to the spoilt labels, on the same slices and patients):",
        "",
        *table(("source labels", "arm", "F1 on the target", "difference"), list(_scores(studies))),
        "And at home, tested against labels that are spoilt or corrected themselves:",
        "",
        *table(
            ("source labels", "F1 at home"),
            [(name, _span(_scored(arm_runs(found, "source", role="source")))) for name, found in studies.items()],
        ),
        f"{machine['processor']}, {machine['cores']} cores, load {load[0]:.0f} at the start; {time.process_time() - began:.0f} CPU-seconds.",
        "",
    ]


def _protocol() -> Protocol:
    """The study of ``noshift`` with the two arms that a source model matters to most."""
    full = study_protocol()
    prepare = replace(full.prepare, size=112)
    return replace(full, name="corrected", arms=tuple(arm for arm, _ in ARMS), budgets=(0, 2), prepare=prepare)


def _source(errors: tuple[LabelError, ...]) -> Cohort:
    site = replace(SITE_A, **_SMALL)
    return phantom_cohort("hospital-a", patients=PATIENTS, site=site, seed=SEED, label_errors=errors, lesions=_ILL)


def _lesion(record: Any) -> np.ndarray:
    return np.asarray(record.read().lesion.voxels)


def _decisions(cohort: Cohort, folder: Path, changed: Voxels) -> dict[str, tuple[dict[str, Decision], tuple[str, str]]]:
    """Both ways to decide the worklist, with how many were accepted and how many of them rightly."""
    folder.mkdir(exist_ok=True)
    findings = tuple(audit_cohorts([cohort], folder / "audited"))
    judged = judge_cohorts(phantom_protocol(), [cohort], folder, device="cpu")
    write_audit_page([cohort], findings, judged, folder, top=TOP)
    others = {identity_of(one): one for one in findings}
    hit: dict[str, bool] = {}
    sure: set[str] = set()
    for identity, kept in read_suspects(folder).items():
        if kept.has_voxels:
            slices = kept.slices()
            wrong = sum(int((inside & changed[kept.case[1]][at]).sum()) for at, inside in slices.items())
            hit[identity] = wrong >= HIT * sum(int(inside.sum()) for inside in slices.values())
            called = float(str(kept.entry["belief"])) >= ERROR_BELIEF
        else:
            hit[identity] = _points_at(others[identity], changed)
            called = others[identity].severity == "error"
        sure |= {identity} if called else set()
    ways = {"by a reader who knows": {one for one, true in hit.items() if true}, "unread": sure}
    return {
        name: (dict.fromkeys(chosen, "accept"), (str(len(chosen)), str(sum(hit[one] for one in chosen))))
        for name, chosen in ways.items()
    }


def _points_at(finding: Finding, changed: Voxels) -> bool:
    return finding.seat is not None and bool(changed[finding.case][finding.seat])


def _left(corrected: Cohort, right: Cohort, changed: Voxels) -> tuple[str, str]:
    """Of the voxels that were planted, those that are still wrong; and voxels that were right and are no more."""
    left = spoilt = 0
    for record, truth in zip(corrected.cases, right.cases, strict=True):
        wrong = _lesion(record) ^ _lesion(truth)
        left += int((wrong & changed[truth.case_id]).sum())
        spoilt += int((wrong & ~changed[truth.case_id]).sum())
    return f"{left:,}", f"{spoilt:,}"


def _scores(studies: Mapping[str, Outcome]) -> Iterator[tuple[str, ...]]:
    for arm, labels in ARMS:
        before = arm_runs(studies["spoilt"], arm, labels)
        for name, found in studies.items():
            after = arm_runs(found, arm, labels)
            moved = None if name == "spoilt" else gain(before, after)
            yield name, arm, _span(_scored(after)), _span(moved) if moved else ""


def _scored(runs: Sequence[Run]) -> Estimate:
    pooled = Pooled(tuple(runs))
    return estimate(pooled.counts, pooled.cases, pooled.patients, "lesion_slices", "dice", seeds=pooled.seeds)


def _span(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})".replace("-", "−")


if __name__ == "__main__":
    main()
