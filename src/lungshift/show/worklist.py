"""The worklist of an audit: a page with a picture of every finding, on which a reader decides by keyboard.

It is one file that asks no network. Decisions stay in the browser until they are saved as ``decisions.json``, which
``lungshift audit --apply`` carries out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lungshift.audit.correct import FORMAT
from lungshift.audit.finding import Finding, rank, runs
from lungshift.audit.judged import ERROR_BELIEF, WARNING_BELIEF, Judged, identity_of, rank_judged, write_suspects
from lungshift.ct.case import Cohort
from lungshift.errors import InputError
from lungshift.files import digest, write_text
from lungshift.prepare.grid import SliceGrid
from lungshift.show.figures import PREDICTION, REFERENCE
from lungshift.show.report import page_environment
from lungshift.show.shots import SUSPECT, Seen, Shot, seen_without_networks, shots_of
from lungshift.show.words import CONVENTION_SHORT, RESEARCH_ONLY
from lungshift.transfer.auditing import JudgedCohort, Worth, opinion_of

Look = Callable[[str, str], Seen | None]
"""Gives what there is to see of a cohort's case; None where it cannot be shown."""


@dataclass(frozen=True)
class Entry:
    """A finding on the page.

    Attributes:
        identity: What a decision calls it.
        belief: Probability that it is an error; NaN where nobody said.
        expected_ml: Volume that is expected to be wrong; NaN likewise.
        networks: Whether networks made it.
        shots: Its pictures, see ``shots_of``; empty where there are none.
    """

    identity: str
    finding: Finding
    belief: float
    expected_ml: float
    networks: bool
    shots: tuple[Shot, ...]

    @property
    def slices(self) -> str:
        """Its slices as a person writes them."""
        return runs(self.finding.slices)


def entries_of(judged: Sequence[Judged], others: Sequence[Finding], look: Look) -> tuple[Entry, ...]:
    """The findings of a worklist with their pictures, in the order given, those of networks first; a case is looked at once."""
    found: dict[str, Entry] = {}
    every: list[tuple[str, Finding, Judged | None]] = [(one.identity, one.finding(), one) for one in judged]
    every += [(identity_of(one), one, None) for one in others]
    for key in dict.fromkeys((finding.cohort, finding.case) for _, finding, _ in every):
        seen = look(*key)
        for identity, finding, one in every:
            if (finding.cohort, finding.case) == key:
                shots = shots_of(seen, finding, one) if seen else ()
                belief, ml = (one.belief, one.expected_ml) if one else (float("nan"), float("nan"))
                found[identity] = Entry(identity, finding, belief, ml, one is not None, shots)
    return tuple(found[identity] for identity, _, _ in every)


def write_audit_page(
    cohorts: Sequence[Cohort],
    findings: Sequence[Finding],
    judged: Sequence[JudgedCohort],
    folder: Path,
    *,
    top: int = 60,
) -> Path:
    """Keep the suspects of an audit in its folder and write ``audit.html``.

    Args:
        cohorts: That were audited.
        findings: What was found without networks; those about labels that are no notes stand on the page.
        judged: What networks found.
        folder: Of the audit.
        top: So many findings of each kind of finder are shown, the first in their order.
    """
    every_suspect = rank_judged(one for cohort in judged for one in cohort.suspects)
    every_other = [
        one for one in rank(findings) if one.kind == "label" and one.severity != "note" and one.seat is not None
    ]
    suspects, others = every_suspect[:top], every_other[:top]
    left_out = len(every_suspect) + len(every_other) - len(suspects) - len(others)
    write_suspects(suspects, folder, others)
    names = [cohort.name for cohort in cohorts]
    entries = entries_of(suspects, others, _look(cohorts, judged))
    worth = {cohort.found.prepared.name: cohort.worth for cohort in judged}
    return write_worklist(entries, folder / "audit.html", names=names, worth=worth, left_out=left_out)


def _look(cohorts: Sequence[Cohort], judged: Sequence[JudgedCohort]) -> Look:
    """Pictures of the networks' own where there are some, else of the scan as it is."""
    by_name = {cohort.found.prepared.name: cohort.found for cohort in judged}
    records = {(cohort.name, case.case_id): case for cohort in cohorts for case in cohort.cases}

    def look(cohort: str, case: str) -> Seen | None:
        if cohort in by_name:
            prepared = by_name[cohort].prepared
            number = [one.case_id for one in prepared.cases].index(case)
            mine = prepared.cases[number]
            opinion, first = opinion_of(by_name[cohort], number)
            grid = SliceGrid(mine.rows, mine.columns, prepared.size)
            return Seen(opinion, first, grid, by_threshold=mine.lung_source == "threshold")
        try:
            return seen_without_networks(records[cohort, case].read())
        except InputError:
            return None

    return look


def _groups(entries: Sequence[Entry]) -> list[tuple[str, list[tuple[int, Entry]]]]:
    """Findings with their numbers, under what made them."""
    titles = {True: "Where networks that never saw the patient doubt the label", False: "Found without networks"}
    numbered = [(number, entry) for number, entry in enumerate(entries, 1)]
    groups = [(titles[who], [one for one in numbered if one[1].networks == who]) for who in (True, False)]
    return [(title, group) for title, group in groups if group]


def write_worklist(
    entries: Sequence[Entry],
    path: Path,
    *,
    names: Sequence[str],
    worth: Mapping[str, Worth] | None = None,
    left_out: int = 0,
) -> Path:
    """Write the page.

    Args:
        entries: From ``entries_of``.
        path: ``audit.html``.
        names: Of the cohorts.
        worth: What the F1 is and would be were the list right, by the name of each cohort that networks looked at.
        left_out: So many findings of these kinds are not on the page.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    script = (resources.files("lungshift.show") / "templates" / "worklist.js").read_text()
    page = (
        page_environment()
        .get_template("worklist.html.j2")
        .render(
            entries=entries,
            names=names,
            groups=_groups(entries),
            left_out=left_out,
            worth=list((worth or {}).items()),
            conventions=CONVENTION_SHORT,
            beliefs=[round(100 * one) for one in (ERROR_BELIEF, WARNING_BELIEF)],
            format=FORMAT,
            audit=digest([entry.identity for entry in entries])[:16],
            research_only=RESEARCH_ONLY,
            colours={"reference": REFERENCE, "prediction": PREDICTION, "suspect": SUSPECT},
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    write_text(path, page)
    return path
