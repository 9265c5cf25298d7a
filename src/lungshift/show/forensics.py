"""What arithmetic says of a published row, on the terminal: what remains possible first, then the reasons. At most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from lungshift.measure.forensics import Verdict
from lungshift.show.words import CONVENTION_SHORT

CANDIDATE_SHORT: Final[dict[str, str]] = {
    **{str(name): words for name, words in CONVENTION_SHORT.items()},
    "empty_is_zero": "mean over all slices, no lesion counts as 0",
    "misprint": "F1 without its factor 2, PR/(P + R)",
}
"""Each way in a few words."""

_WIDTH: Final = 100
_INDENT: Final = 12
_CAVEAT: Final = "Arithmetic can exclude a way of averaging; it cannot prove one."


def describe(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as text: a headline, then each way and why, neighbours with one reason together; the misprint only where it shows.

    Args:
        verdicts: What ``examine`` said.
    """
    shown = [verdict for verdict in verdicts if verdict.convention != "misprint" or _is_misprint(verdict)]
    alike = groupby(shown, key=lambda verdict: (_standing(verdict), verdict.reason))
    blocks = [textwrap.fill(_headline(verdicts), _WIDTH), *(_block(list(group)) for _, group in alike), _CAVEAT]
    return "\n\n".join(blocks)


def _headline(verdicts: Sequence[Verdict]) -> str:
    groups: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.convention != "misprint":
            groups.setdefault(_standing(verdict), []).append(verdict.convention)
    told = [f"{words}: {', '.join(groups[key])}." for key, words in _HEADINGS.items() if key in groups]
    misprint = any(map(_is_misprint, verdicts))
    if set(groups) == {"impossible"}:
        told = ["No way of averaging known here gives this row" + ("." if misprint else "; look for a typing error.")]
    if groups.get("possible") == ["pooled"]:
        told.insert(0, "This looks pooled, or like an F1 computed from mean precision and recall.")
    if misprint:
        told.insert(0, "F1 looks like PR/(P + R), without its factor 2.")
    return " ".join(told)


_HEADINGS: Final = {
    "possible": "Possible",
    "only just": "Only just possible",
    "open": "Not settled, too little is given",
    "impossible": "Impossible",
}
"""The standings in the order of the headline."""


def _standing(verdict: Verdict) -> str:
    if not verdict.possible:
        return "impossible"
    if verdict.needs:
        return "open"
    return "only just" if verdict.barely else "possible"


def _is_misprint(verdict: Verdict) -> bool:
    return verdict.convention == "misprint" and _standing(verdict) == "possible"


def _block(alike: Sequence[Verdict]) -> str:
    titles = [f"{_standing(one):<{_INDENT}}{one.convention}: {CANDIDATE_SHORT[one.convention]}" for one in alike]
    indent = " " * _INDENT
    return "\n".join([*titles, textwrap.fill(alike[0].reason, _WIDTH, initial_indent=indent, subsequent_indent=indent)])
