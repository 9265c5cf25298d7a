"""Are errors that were planted into labels found by networks that never saw the case, and is a belief worth its name?

    .venv/bin/python -m benchmarks.labels --cleanlab PYTHON --real AUDIT/models/COHORT … --output docs/benchmarks/audit/labels.md

One error is planted into the labels of a random half of the cases, several times over (draws); the spoilt cohort is then judged as ``lungshift
audit --models`` judges one: beliefs are learned from further errors planted into the spoilt labels, of each case from other patients. The networks are
those of the unspoilt labels. What a belief is read from was
chosen on these phantoms, on no real cohort. Of real labels nobody knows which are right, so a suspect that
was there before planting counts as wrong there, though it may be a true error. ``--cleanlab`` names a Python that has cleanlab.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.audit import KINDS, table
from lungshift.audit.belief import PLANTED, beliefs_without, examples_of, plant_errors
from lungshift.audit.judged import ERROR_BELIEF, place_in_list
from lungshift.audit.labels import label_findings
from lungshift.audit.suspects import Opinion, Suspect, find_suspects
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_errors import LabelErrorKind
from lungshift.prepare.phantom_site import SITE_A
from lungshift.prepare.prepared import open_prepared
from lungshift.transfer.auditing import judge_labels, opinion_of, worth_of
from lungshift.transfer.out_of_fold import OutOfFold, predict_out_of_fold
from lungshift.transfer.protocol import Protocol, read_protocol

PATIENTS, SEED, FIRST = 16, 931, 20
SITE = replace(SITE_A, slice_mm=5.0)
LEAST_ML, BELIEVED, HIT = 0.1, 0.5, 0.5
_BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_METHODS = ("softmin", "num_pixel_issues")


@dataclass(frozen=True)
class Planted:
    """An error in one label of one draw, and whether it was found."""

    kind: LabelErrorKind
    ml: float
    found: bool
    believed: bool
    named: bool


@dataclass(frozen=True)
class Listed:
    """A suspect of one draw, and whether it is the error that was planted there."""

    where: tuple[int, int]
    kind: str
    belief: float
    expected_ml: float
    hit: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """All draws of one cohort.

    Attributes:
        planted: The errors.
        listed: The suspects, in no order.
        slices: By scorer, the scores of all slices, a high one where the label is doubted; ``wrong`` is the truth.
        seconds: CPU time of the judging.
    """

    planted: list[Planted]
    listed: list[Listed]
    slices: dict[str, np.ndarray]
    seconds: float


def main() -> None:
    """Judge phantoms, and real cohorts that were predicted out of fold, and write the page."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--real", type=Path, nargs="*", default=[], help="folders with prepared/ and out_of_fold/")
    words.add_argument("--no-phantoms", action="store_true")
    words.add_argument("--draws", type=int, default=5)
    words.add_argument("--first-draw", type=int, default=0, help="another number plants other errors")
    words.add_argument("--cleanlab", type=Path, help="a Python with cleanlab; without it there is no rival")
    words.add_argument("--work", type=Path, help="where phantom networks are kept")
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    parts = _parts_of(asked.output)
    if not asked.no_phantoms:
        parts["phantoms"] = _phantoms(asked)
    parts |= {folder.name: _real(folder, asked) for folder in asked.real}
    text = "\n".join([_about(), *(f"<!-- {name} -->\n\n{part.strip()}\n" for name, part in parts.items())])
    print(text)
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(text)


def _parts_of(page: Path | None) -> dict[str, str]:
    """The parts of an earlier page: what is not run again is kept."""
    text = page.read_text() if page and page.exists() else ""
    pieces = [one.split(" -->\n", 1) for one in text.split("<!-- ")[1:]]
    return dict(pieces)


def _about() -> str:
    words = " ".join(str(__doc__).split("\n\n")[2].split()).replace("``", "`").partition(" `--cleanlab`")[0]
    return f"# Labels judged by networks that never saw the case\n\n{words} Written by `python -m benchmarks.labels`. The audit is described in [audit](../../audit.md).\n"


def phantom_protocol() -> Protocol:
    """The shipped protocol ``audit``, shrunk to a size that costs a few CPU-minutes."""
    full = read_protocol("audit")
    return replace(
        full,
        name="audit-small",
        prepare=replace(full.prepare, size=112),
        network=replace(full.network, width=8),
        training=replace(full.training, epochs=4, epoch_slices=480),
    )


def _phantoms(asked: argparse.Namespace) -> str:
    cohort = phantom_cohort("phantoms", patients=PATIENTS, site=SITE, seed=SEED)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.work or Path(scratch)
        began = time.process_time()
        found = predict_out_of_fold(phantom_protocol(), cohort, folder, device="cpu")
        trained = time.process_time() - began
        outcome = judged_draws(found, asked.draws, asked.cleanlab, asked.first_draw)
        clean = judge_labels(found)
        alarms = {level: sum(one.belief >= level for one in clean) for level in (BELIEVED, ERROR_BELIEF)}
    lines = [
        f"## {PATIENTS} phantoms",
        "",
        f"Known to be right but for what was planted. Networks: protocol `audit` at size 112, width 8, {480 * 4} slices, two seeds, four folds "
        f"({trained:.0f} CPU-seconds, few if they were kept from an earlier run). Dice of the networks with the labels: {_dice(found):.2f}.",
        "",
        f"Clean labels: {len(clean)} suspects in {PATIENTS} cases. False alarms (goal: at most 1 in ten cases): "
        + "; ".join(
            f"{n} believed at {level:g} or more, {10 * n / PATIENTS:.1f} in ten cases" for level, n in alarms.items()
        )
        + f". {ERROR_BELIEF:g} is where the audit calls a suspect an error.",
        "",
        *report(outcome, PATIENTS, asked.draws),
    ]
    return "\n".join(lines)


def _real(folder: Path, asked: argparse.Namespace) -> str:
    found = open_audit(folder)
    numbers = found.numbers
    outcome = judged_draws(found, asked.draws, asked.cleanlab, asked.first_draw)
    judged = judge_labels(found)
    worth = worth_of(found, judged)
    kinds = ", ".join(
        f"{sum(one.suspect.kind == kind for one in judged)} {kind}"
        for kind in dict.fromkeys(one.suspect.kind for one in judged)
    )
    bounds = [(k, f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}") for k, score in worth.top.items()]
    lines = [
        f"## {folder.name}, {len(numbers)} of {len(found.prepared.cases)} cases",
        "",
        f"Networks: {len(found.seeds)} a case, none of which saw the patient. Dice of the networks with the labels: {_dice(found):.2f}.",
        "",
        *report(outcome, len(numbers), asked.draws),
        f"The labels as they are: {len(judged)} suspects ({kinds}), {sum(one.belief >= BELIEVED for one in judged)} believed at {BELIEVED:g} or more. The networks' F1, "
        f"and what it would be were the first so many of the list right (an upper bound: labels are turned towards the networks):",
        "",
        *table(
            ("turned over", "F1", "95 %"),
            [("none", f"{worth.now.value:.3f}", f"{worth.now.low:.3f} to {worth.now.high:.3f}"), *bounds],
        ),
    ]
    return "\n".join(lines)


def open_audit(folder: Path) -> OutOfFold:
    """What was predicted out of fold so far: all seeds that asked about as many cases as the first."""
    prepared = open_prepared(next(path for path in sorted((folder / "prepared").iterdir()) if path.is_dir()))
    asked = {
        int(path.name[4:]): {file.name for file in path.glob("case*.npz")}
        for path in (folder / "out_of_fold").glob("seed*")
    }
    first = max(sorted(asked), key=lambda seed: len(asked[seed]))
    return OutOfFold(
        prepared, folder / "out_of_fold", tuple(seed for seed in sorted(asked) if asked[seed] >= asked[first]), {}
    )


def judged_draws(found: OutOfFold, draws: int, rival: Path | None, first: int = 0) -> Outcome:
    """Spoil and judge the cohort so many times."""
    numbers = found.numbers
    planted: list[Planted] = []
    listed: list[Listed] = []
    slices: dict[str, list[np.ndarray]] = {}
    began = time.process_time()
    for draw in range(first, first + draws):
        spoilt = _spoilt(found, numbers, draw)
        beliefs = _suspects(found, spoilt)
        labels, probability = [], []
        for number in numbers:
            kind, opinion, changed = spoilt(number)
            mine = [(one, how) for case, one, how in beliefs if case == number]
            hits = [kind is not None and one.overlap(changed) >= HIT for one, _ in mine]
            listed += [
                Listed((draw, number), one.kind, how, how * one.ml, hit)
                for (one, how), hit in zip(mine, hits, strict=True)
            ]
            if kind is not None:
                named = _named(kind, opinion, changed)
                sure = any(hit and how >= BELIEVED for (_, how), hit in zip(mine, hits, strict=True))
                planted.append(Planted(kind, float(changed.sum()) * opinion.voxel_ml, any(hits), sure, named))
            labels.append(opinion.reference)
            probability.append(np.rint(opinion.probability * 255).astype(np.uint8))
            for name, scores in _scores(opinion, changed, mine).items():
                slices.setdefault(name, []).append(scores)
        for name, scores in _rival(rival, labels, probability).items() if rival else ():
            slices.setdefault(name, []).append(scores)
    return Outcome(planted, listed, {k: np.concatenate(v) for k, v in slices.items()}, time.process_time() - began)


Spoilt = Callable[[int], tuple[LabelErrorKind | None, Opinion, np.ndarray]]


def _spoilt(found: OutOfFold, numbers: Sequence[int], draw: int) -> Spoilt:
    """By case: which error it has in this draw, the spoilt case, and what was changed; made anew each time it is asked for."""
    order = np.random.default_rng([SEED, draw]).permutation(len(numbers))
    wanted = {
        numbers[at]: PLANTED[(draw + place) % len(PLANTED)]
        for place, at in enumerate(order[: (len(numbers) + draw % 2) // 2])
    }

    def read(number: int) -> tuple[LabelErrorKind | None, Opinion, np.ndarray]:
        opinion, _ = opinion_of(found, number)
        if number in wanted:
            for kind, spoilt, changed in plant_errors(opinion, np.random.default_rng([SEED, draw, number])):
                if kind == wanted[number]:
                    return kind, spoilt, changed
        return None, opinion, np.zeros(opinion.reference.shape, bool)

    return read


def _suspects(found: OutOfFold, spoilt: Spoilt) -> list[tuple[int, Suspect, float]]:
    """As ``judge_labels`` does it, on spoilt labels."""
    numbers = found.numbers
    patients = {number: found.prepared.cases[number].patient_id for number in numbers}
    examples, suspects = [], []
    for number in numbers:
        _, opinion, _ = spoilt(number)
        examples += examples_of(patients[number], opinion, np.random.default_rng(number))
        suspects += [(number, one) for one in find_suspects(opinion)]
    beliefs = beliefs_without(examples, list(patients.values()))
    known = {number: beliefs.get(who) for number, who in patients.items()}
    return [(n, one, belief.of(one) if (belief := known[n]) else float("nan")) for n, one in suspects]


def _named(kind: LabelErrorKind, opinion: Opinion, changed: np.ndarray) -> bool:
    """Whether a finding without a model names the error, one that was not there before."""
    before = {
        (one.code, one.slices) for one in label_findings(_case(replace(opinion, reference=opinion.reference ^ changed)))
    }
    slices = set(np.flatnonzero(changed.any(axis=(1, 2))).tolist())
    fresh = [one for one in label_findings(_case(opinion)) if (one.code, one.slices) not in before]
    return any(one.code in KINDS[kind] and slices & set(one.slices) for one in fresh)


def _case(opinion: Opinion) -> Case:
    grid = Geometry.regular(opinion.reference.shape, opinion.spacing_mm)
    return Case(Volume(opinion.hu, grid), Mask(opinion.lung, grid), Mask(opinion.reference, grid), "case")


def _scores(opinion: Opinion, changed: np.ndarray, mine: Sequence[tuple[Suspect, float]]) -> dict[str, np.ndarray]:
    """Scores of the case's slices."""
    ours = np.zeros(len(changed))
    for one, how in mine:
        at = list(one.slices)
        ours[at] = np.maximum(ours[at], how * one.ml)
    found: dict[str, np.ndarray] = {
        "wrong": changed.any(axis=(1, 2)),
        "lungshift: belief times millilitres of the suspect": ours,
    }
    found["plain: sum of abs(label - probability)"] = opinion.doubt.sum(axis=(1, 2), dtype=np.float64)
    return found


def _rival(python: Path, labels: Sequence[np.ndarray], probability: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Cleanlab's scores of all slices of a draw, a high one where the label is doubted."""
    with tempfile.TemporaryDirectory() as scratch:
        given, told = Path(scratch) / "in.npz", Path(scratch) / "out.npz"
        np.savez(given, labels=np.concatenate(labels), probability=np.concatenate(probability))
        script = Path(__file__).with_name("labels_rival.py")
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([python, script, given, told, *_METHODS], check=True, env=clean)
        with np.load(told) as scores:
            return {f"cleanlab, {method}": -scores[method] for method in _METHODS}


def average_precision(scores: np.ndarray, wrong: np.ndarray) -> float:
    """The mean of the precisions at each true one, ties counted as one step."""
    order = np.argsort(-scores, kind="stable")
    scores, wrong = scores[order], wrong[order].astype(float)
    last = np.append(scores[1:] != scores[:-1], True)
    hits, seen = np.cumsum(wrong)[last], np.flatnonzero(last) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / seen) / max(hits[-1], 1))


def report(outcome: Outcome, cases: int, draws: int) -> Iterator[str]:
    """The tables of one cohort."""
    ranked = sorted(outcome.listed, key=lambda one: place_in_list(one.belief, one.expected_ml))
    top = ranked[:FIRST]
    hits = np.array([one.hit for one in ranked])
    yield f"{draws} draws (from {min(one.where[0] for one in ranked)} on) of {cases} labels, {len(outcome.planted)} errors planted; {len(ranked)} suspects, {int(hits.sum())} of them planted errors. {outcome.seconds:.0f} CPU-seconds for all draws, load {os.getloadavg()[0]:.0f}."
    yield ""
    right = sum(one.hit for one in top)
    labels = len({one.where for one in top if one.hit})
    each = [np.mean([one.hit for one in ranked if one.where[0] == d][:FIRST]) for d in {one.where[0] for one in ranked}]
    called = [one.hit for one in ranked if one.belief >= ERROR_BELIEF]
    by_ml = sorted(outcome.listed, key=lambda one: -one.expected_ml)
    rows: list[tuple[object, ...]] = [
        (
            f"precision among the first {FIRST} of all draws",
            f"{right / max(len(top), 1):.2f} ({right} of {len(top)}, in {labels} labels)",
            "at least 0.9",
        ),
        (
            f"the same, the mean of single draws ({len(outcome.planted) / draws:.1f} errors each)",
            f"{np.mean(each):.2f}",
            "",
        ),
        (
            "the same, had the list been in the order of expected error alone",
            f"{np.mean([one.hit for one in by_ml[:FIRST]]):.2f}",
            "",
        ),
        (
            f"called an error (believed at {ERROR_BELIEF:g} or more)",
            f"{len(called)}, of them planted {sum(called)}",
            "",
        ),
        *_recalls(outcome.planted),
        (
            "average precision, suspects by expected error",
            f"{average_precision(np.array([one.expected_ml for one in ranked]), hits):.3f}",
            "",
        ),
        (
            "average precision, suspects by belief",
            f"{average_precision(np.array([one.belief for one in ranked]), hits):.3f}",
            "",
        ),
    ]
    yield from table(("what", "measured", "goal"), rows)
    yield "By kind, over 0.1 ml:"
    yield ""
    kinds = [(kind, [one for one in outcome.planted if one.kind == kind and one.ml > LEAST_ML]) for kind in PLANTED]
    yield from table(
        ("planted", "n", "suspect", f"suspect believed at {BELIEVED:g}", "named without a model", "either"),
        [(k, len(s), *(sum(map(test, s)) for test in (_found, _believed, _named_one, _either))) for k, s in kinds],
    )
    yield "Calibration: suspects by belief, and the share that was planted. Errors are in every copy that beliefs are learned from and in half of these labels, so shares are expected to be lower than beliefs."
    yield ""
    yield from table(("belief", "n", "mean belief", "planted"), list(_calibration(outcome.listed)))
    wrong = outcome.slices["wrong"].astype(bool)
    yield f"Slices ({len(wrong)}, {int(wrong.sum())} of them changed), the unit that cleanlab scores; same labels, same probabilities. Average precision:"
    yield ""
    yield from table(
        ("scorer", "average precision"),
        [(name, f"{average_precision(score, wrong):.3f}") for name, score in outcome.slices.items() if name != "wrong"],
    )


def _found(one: Planted) -> bool:
    return one.found


def _believed(one: Planted) -> bool:
    return one.believed


def _named_one(one: Planted) -> bool:
    return one.named


def _either(one: Planted) -> bool:
    return one.found or one.named


def _recalls(planted: Sequence[Planted]) -> Iterator[tuple[object, ...]]:
    large = [one for one in planted if one.ml > LEAST_ML]
    for words, test, goal in (
        ("recall over 0.1 ml, networks alone", _found, "at least 0.8"),
        (f"recall over 0.1 ml, believed at {BELIEVED:g} or more", _believed, ""),
        ("recall over 0.1 ml, networks or findings without a model", _either, ""),
    ):
        right = sum(map(test, large))
        yield words, f"{right / max(len(large), 1):.2f} ({right} of {len(large)})", goal


def _calibration(listed: Sequence[Listed]) -> Iterator[tuple[object, ...]]:
    for low, high in pairwise(_BINS):
        mine = [one for one in listed if low <= one.belief < high or one.belief == high == 1]
        if mine:
            yield (
                f"{low:g} to {high:g}",
                len(mine),
                f"{np.mean([one.belief for one in mine]):.2f}",
                f"{np.mean([one.hit for one in mine]):.2f}",
            )


def _dice(found: OutOfFold) -> float:
    shared = total = 0
    for number in found.numbers:
        opinion, _ = opinion_of(found, number)
        shared += int(np.count_nonzero(opinion.reference & opinion.predicted))
        total += int(np.count_nonzero(opinion.reference)) + int(np.count_nonzero(opinion.predicted))
    return 2 * shared / max(total, 1)


if __name__ == "__main__":
    main()
