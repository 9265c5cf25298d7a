"""Why it dropped: the source model replayed on the target with one difference from the source removed at a time.

A replay predicts the target's pictures as they would look without the difference and scores the result on the target's own
references; what it gains is what the difference explains. Nothing is trained and no file is opened. Differences overlap and work
together, so their shares need not add up to the drop; what is left over is new patients by chance, or what is not measured here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

import numpy as np
from jaxtyping import Float64, Int64

from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.prediction import Predictor
from lungshift.measure.conventions import Convention, level_of, resolve_convention, score
from lungshift.measure.interval import Spread, bounds, estimate_difference, patient_sums, spread_of
from lungshift.measure.overlap import CountTable, count_slices, dice, group_sums, sum_by
from lungshift.prepare.prepared import PreparedCohort
from lungshift.transfer.differences import REMOVERS
from lungshift.transfer.looks import Scan, scans_of
from lungshift.transfer.outcome import Cause, CauseName, Explanation
from lungshift.transfer.references import LEAST_WEIGHTED, Borders, Style, borders_of, size_weights
from lungshift.transfer.removal import Removal
from lungshift.transfer.replay import Played, Player
from lungshift.transfer.watcher import Silent, Watcher

CAUSES: Final[tuple[CauseName, ...]] = get_args(CauseName)
"""Every difference that can be tried."""

_SAME_MIX = 0.1


def explain_drop(  # noqa: PLR0913
    model: Checkpoint,
    source: PreparedCohort,
    source_test: Int64[np.ndarray, " row"],
    target: PreparedCohort,
    target_test: Int64[np.ndarray, " row"],
    *,
    source_train: Int64[np.ndarray, " row"],
    convention: str = "lesion_slices",
    device: str = "auto",
    watcher: Watcher | None = None,
    causes: Sequence[CauseName] = CAUSES,
) -> Explanation:
    """Replay a source model on the target without one difference at a time.

    Differences in the pictures and lung masks are found and removed without the target's lesion labels; ``lesion_sizes`` and
    ``annotation`` need them.

    Args:
        model: Trained on the source.
        source: Where it comes from.
        source_test: Rows that it was not trained on: what it scores at home.
        target: Where it scores less.
        target_test: Rows that it is scored on.
        source_train: Rows that say how the source's scans look.
        convention: How scores are averaged.
        device: ``auto``, ``cpu``, ``cuda``.
        watcher: Is told how it goes on.
        causes: Which differences are tried.

    Raises:
        ProtocolError: No convention has this name.
        CheckpointError: The cohorts were prepared at another size than the model's.
    """
    player = Player(Predictor.of(model, device), watcher or Silent())
    home, away = player.play(source, source_test), player.play(target, target_test)
    replay = Replay(player, resolve_convention(convention), scans_of(source, source_train), home, away)
    found = [replay.try_cause(name) for name in causes]
    found.sort(key=lambda cause: -math.inf if math.isnan(cause.gained) else cause.gained, reverse=True)
    drop = replay.drop
    return Explanation(
        replay.convention, drop.home, drop.abroad, drop.gain.value, drop.gain.low, drop.gain.high, tuple(found)
    )


@dataclass(frozen=True)
class Gain:
    """A difference of two scores, with its 95 % interval over patients."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, spread: Spread) -> Gain:
        """As ``measure.interval`` has it."""
        low, high = bounds(spread)
        return cls(float(spread.value), float(low), float(high))


NOTHING: Final = Gain(0.0, 0.0, 0.0)
UNKNOWN: Final = Gain(math.nan, math.nan, math.nan)


def _apart(one: Spread, other: Spread) -> Spread:
    """The difference of two averages of different patients, with Welch's degrees of freedom."""
    variance = one.error**2 + other.error**2
    freedom = one.freedom + other.freedom
    if variance > 0:
        freedom = variance**2 / (one.error**4 / one.freedom + other.error**4 / other.freedom)
    return Spread(one.value - other.value, np.sqrt(variance), freedom, is_difference=True)


@dataclass(frozen=True)
class Drop:
    """Scores at home and abroad, and how much lower the latter is."""

    home: float
    abroad: float
    gain: Gain


@dataclass(frozen=True, eq=False)
class Replay:
    """A model at home and abroad, and what it gains abroad without a difference.

    Attributes:
        reference: The source's training scans, which say how the source looks.
        home, away: The model's predictions on held-out rows of both.
    """

    player: Player
    convention: Convention
    reference: list[Scan]
    home: Played
    away: Played

    @cached_property
    def drop(self) -> Drop:
        """How much lower the model scores on the target; patients of both are drawn on their own."""
        one, other = (spread_of(self._sums(played)[1][None]) for played in (self.home, self.away))
        return Drop(float(one.value), float(other.value), Gain.of(_apart(one, other)))

    def try_cause(self, name: CauseName) -> Cause:
        """What the target scores without one difference."""
        self.player.watcher.stage(f"Replaying the source model without the difference in {name.replace('_', ' ')}")
        if name == "lesion_sizes":
            return self._cause(name, *self._with_sizes())
        if name == "annotation":
            return self._cause(name, *self._with_style())
        scans = self._scans(self.away.cohort)
        if not (scans and self.reference):
            return self._cause(name, "not measured", UNKNOWN, "No slice with lung at home or in the target.")
        removal = REMOVERS[name](self.reference, scans)
        return self._cause(name, removal.found, *self._gain(removal))

    def _cause(self, name: CauseName, found: str, gain: Gain, note: str) -> Cause:
        drop = self.drop.gain
        share = gain.value / drop.value if drop.low > 0 else math.nan  # no part of what may be chance
        return Cause(name, found, self.drop.abroad + gain.value, gain.value, gain.low, gain.high, share, note)

    def _gain(self, removal: Removal) -> tuple[Gain, str]:
        """What the target gains without the difference, or the source loses by it, whichever explains more; and the other."""
        gains = {}
        if removal.seen is not None:
            played = self.player.play(self.away.cohort, self.away.rows, removal.seen, [removal.back])
            gains["taken away here"] = self._compare(played.counts)
        if removal.at_home is not None:
            gains["put in at home"] = self._cost(self.player.play(removal.at_home, self.home.rows))
        if not gains:
            return (UNKNOWN if removal.note else NOTHING), removal.note
        told = "; ".join(f"{how}, {gain.value:+.3f}" for how, gain in gains.items())
        note = f"{removal.note} ({told})" if len(gains) > 1 else removal.note
        return max(gains.values(), key=lambda gain: gain.value), note

    def _compare(self, counts: CountTable) -> Gain:
        """What other counts of the same slices gain."""
        away = self.away
        found = estimate_difference(away.counts, counts, away.cases, away.patients, self.convention, "dice")
        return Gain(found.value, found.low, found.high)

    def _cost(self, worse: Played) -> Gain:
        """How much less the source scores with a difference put into it."""
        pairs = [dict(zip(*self._sums(played), strict=True)) for played in (worse, self.home)]
        nothing = np.zeros(2)
        sums = [[pair.get(name, nothing) for name in sorted(pairs[0] | pairs[1])] for pair in pairs]
        return Gain.of(spread_of(np.array(sums)))

    def _sums(self, played: Played) -> tuple[list[str], Float64[np.ndarray, "patient 2"]]:
        names, sums = patient_sums([played.counts], played.cases, played.patients, self.convention, "dice")
        return names, sums[0]

    def _with_sizes(self) -> tuple[str, Gain, str]:
        """The target's slices (or cases) weighted to the source's mix of lesion sizes."""
        home, away = (_units(played, self.convention) for played in (self.home, self.away))
        what, unit = ("scan", "ml") if level_of(self.convention) == "case" else ("slice", "cm²")
        found = f"the median {what} with lesion has {home.median:.1f} {unit} at home, {away.median:.1f} {unit} here"
        if np.count_nonzero(away.sizes) < LEAST_WEIGHTED or not home.sizes.any():
            return found, UNKNOWN, f"Fewer than {LEAST_WEIGHTED} {what}s with lesion in the target, or none at home."
        weights, apart = size_weights(home.sizes, away.sizes)
        found = f"{found}; the mixes differ by {100 * apart:.0f} %"
        if apart < _SAME_MIX:
            return found, NOTHING, ""
        both = np.concatenate([away.fractions, weights[:, None] * away.fractions], axis=1)
        sums = group_sums(both, away.owners)[1].reshape(-1, 2, 2)
        note = "Found with the target's labels. Sizes that the target lacks cannot be weighted up."
        return found, Gain.of(spread_of(np.moveaxis(sums, 1, 0))), note

    def _with_style(self) -> tuple[str, Gain, str]:
        """Predictions drawn as the target's readers draw: their borders moved, or agreed where they are near enough."""
        home, here = (borders_of(played.pairs()) for played in (self.home, self._cleaned()))
        if math.isnan(home.outside_mm + here.outside_mm):
            return "no border to compare", UNKNOWN, "The model found no lesion that the reference has, at home or here."
        least_mm = float(np.median(self.away.pixel_mm)) / 2
        style = Style.between(home, here, least_mm)
        found = f"the reference's border lies {_side(home)} the model's at home, {_side(here)} it here"
        if style == Style():
            return f"{found}; that is less than half a pixel ({least_mm:.1f} mm) apart", NOTHING, ""
        counts = [
            count_slices(reference[None], style.drawn(reference, mask, pixel_mm)[None])
            for reference, mask, pixel_mm in self.away.pairs()
        ]
        note = "Found with the target's labels, against the model's own borders, once every other difference that could be was removed."
        return f"{found}: {style.words}", self._compare(np.concatenate(counts)), note

    def _cleaned(self) -> Played:
        """The target with every difference removed that shows without labels, one after another."""
        view, backs = self.away.cohort, []
        for remove in REMOVERS.values() if self._scans(view) and self.reference else ():
            removal = remove(self.reference, self._scans(view))
            if removal.seen is not None:
                view = removal.seen
                backs.append(removal.back)
        if not backs:
            return self.away
        return self.player.play(self.away.cohort, self.away.rows, view, backs)

    def _scans(self, cohort: PreparedCohort) -> list[Scan]:
        return scans_of(cohort, self.away.rows)


@dataclass(frozen=True, eq=False)
class _Units:
    """Slices or cases that a convention averages: lesion size in cm² or ml, what each adds above and below the line, patient."""

    sizes: Float64[np.ndarray, " unit"]
    fractions: Float64[np.ndarray, "unit 2"]
    owners: list[str]

    @property
    def median(self) -> float:
        lesion = self.sizes[self.sizes > 0]
        return float(np.median(lesion)) if len(lesion) else math.nan


def _units(played: Played, convention: Convention) -> _Units:
    counts, owners = played.counts, played.patients
    spacing = np.array([case.spacing_mm[0] for case in played.cohort.cases])[played.cohort.table["case"][played.rows]]
    sizes = counts[:, [0, 2]].sum(axis=1) * played.pixel_mm**2 / 100
    if level_of(convention) == "case":
        owner = dict(zip(played.cases, owners, strict=True))
        names, sums = group_sums((sizes * spacing / 10)[:, None], played.cases)
        sizes, counts, owners = sums[:, 0], sum_by(counts, played.cases)[1], [owner[name] for name in names]
    if level_of(convention) == "pooled":
        fractions = np.stack([counts @ np.array(dice.top), counts @ np.array(dice.bottom)], axis=1).astype(np.float64)
        return _Units(sizes, fractions, owners)
    values = score(counts, convention, "dice")
    used = ~np.isnan(values)
    fractions = np.stack([values[used], np.ones(int(used.sum()))], axis=1)
    return _Units(sizes[used], fractions, [name for name, one in zip(owners, used, strict=True) if one])


def _side(borders: Borders) -> str:
    way = "outside" if borders.outside_mm >= 0 else "inside"
    return f"{abs(borders.outside_mm):.1f} mm {way} (and {borders.apart_mm:.1f} mm away from)"
