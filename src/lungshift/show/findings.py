"""What a page says beside its figures, computed once from an outcome: rows, claims, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lungshift.measure.conventions import Convention
from lungshift.show import claims as claimed
from lungshift.show import drop
from lungshift.show.answer import answer, on_all_slices, question, tuned_arm, worth_labelling
from lungshift.show.tables import Row, build_table, leak_table
from lungshift.transfer.chains import ChainTransfer, chain_transfer
from lungshift.transfer.claims import Claim, Claims, claims_of
from lungshift.transfer.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Findings:
    """An outcome in rows and words.

    Attributes:
        question, answer: One sentence each.
        on_all_slices: The answer where false alarms count; empty where nothing was retrained.
        table: A row per arm, budget, seed, region and convention.
        leak: The same for the price of leakage.
        claims: What can be claimed, by ``lesion_slices``.
        claim_records: The same by three conventions, as flat dictionaries.
        why: Why the score dropped, a sentence each.
        chain: Backward and forward transfer of a chain.
    """

    question: str
    answer: str
    on_all_slices: str
    table: tuple[Row, ...]
    leak: tuple[Row, ...]
    claims: Claims
    claim_records: tuple[dict[str, Any], ...]
    why: tuple[str, ...] = ()
    chain: ChainTransfer | None = None

    @classmethod
    @lru_cache(maxsize=1)
    def of(cls, outcome: Outcome) -> Findings:
        """Everything that page, terminal and files say; the page and the terminal share the last one."""
        table = build_table(outcome)
        names: tuple[Convention, ...] = ("lesion_slices", "empty_is_one", "per_case")
        by_slice, everywhere, by_case = (claims_of(outcome, name) for name in names)
        return cls(
            question=question(outcome),
            answer=answer(outcome, table, by_slice),
            on_all_slices=on_all_slices(outcome, table, everywhere),
            table=table,
            leak=leak_table(outcome),
            claims=by_slice,
            claim_records=tuple(
                record for claims in (by_slice, everywhere, by_case) for record in claimed.records(claims)
            ),
            why=_why(outcome, by_slice),
            chain=chain_transfer(outcome) if outcome.kind == "chain" and outcome.runs else None,
        )

    def first_claims(self, outcome: Outcome) -> list[str]:
        """What a reader asks first: retraining against none, in labels saved, what it forgot, and what limits all claims."""
        arm = tuned_arm(outcome)
        tuned = [claim for claim in self.claims.over_zero_shot if claim.arm == arm]
        forgot = [claim for claim in self.claims.forgetting if claim.arm == arm]
        first = replace(
            self.claims,
            over_zero_shot=tuple(tuned),
            between_arms=(),
            forgetting=tuple(forgot[-1:]),
            leak=(),
            left_out=(),
        )
        return claimed.sentences(first)

    def further_claims(self, outcome: Outcome) -> list[tuple[str, list[str]]]:
        """All other claims, under headings; none that is empty."""
        arm, found = tuned_arm(outcome), self.claims
        families = (
            ("Other ways of getting a model, against no retraining", [c for c in found.over_zero_shot if c.arm != arm]),
            ("Retraining against other uses of the same labels", found.between_arms),
            ("All other cohorts against the cohort's own", found.left_out),
            (f"What is left on {outcome.source.name} after training on more", found.forgetting),
        )
        return [(heading, self._sentences(claims)) for heading, claims in families if claims]

    def leak_claims(self) -> list[str]:
        """What the leak is worth."""
        return self._sentences(self.claims.leak)

    def _sentences(self, claims: Sequence[Claim]) -> list[str]:
        """The sentences of some claims alone."""
        alone = replace(
            self.claims,
            over_zero_shot=tuple(claims),
            between_arms=(),
            forgetting=(),
            leak=(),
            left_out=(),
            labels_saved=(),
            leaky=False,
            without_ids=(),
        )
        return claimed.sentences(alone)


def _why(outcome: Outcome, claims: Claims) -> tuple[str, ...]:
    """Why it dropped, with how many scans are worth labelling."""
    if outcome.explanation is None:
        return ()
    return tuple(drop.sentences(outcome.explanation, worth_labelling(outcome, claims)))
