"""Why it dropped: the source model replayed on the target with one difference from the source removed at a time.

A replay predicts the target's pictures as they would look without the difference and scores the result on the target's own
references; what it gains is what the difference explains. Nothing is trained and no file is opened. Differences overlap and work
together, so their shares need not add up to the drop; what is left over is new patients by chance, or what is not measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

import numpy as np
from jaxtyping import Float64, Int64

from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.data import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.measure.conventions import Convention, level_of, resolve_convention, score
from lungshift.measure.interval import Spread, bounds, estimate_difference, patient_sums, spread_of
from lungshift.measure.overlap import CountTable, count_slices, dice, group_sums, sum_by
from lungshift.prepare.prepared import PreparedCohort
from lungshift.transfer.differences import REMOVERS, Back, Removal
from lungshift.transfer.looks import Scan, scans_of
from lungshift.transfer.outcome import Cause, CauseName, Explanation
from lungshift.transfer.references import Borders, Tolerance, borders_of, size_weights
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


@dataclass(frozen=True, eq=False)
class Played:
    """What the model predicted for some rows, and how it was counted against their references."""

    cohort: PreparedCohort
    rows: Int64[np.ndarray, " row"]
    counts: CountTable
    packed: np.ndarray

    @property
    def cases(self) -> list[str]:
        """Case of each row."""
        return [str(name) for name in self.cohort.case_ids[self.rows]]

    @property
    def patients(self) -> list[str]:
        """Patient of each row."""
        return [str(name) for name in self.cohort.patients[self.rows]]

    @property
    def pixel_mm(self) -> Float64[np.ndarray, " row"]:
        """Millimetres of a pixel of each row's picture."""
        size = [Scan(self.cohort, number, self.rows).pixel_mm for number in range(len(self.cohort.cases))]
        return np.array(size)[self.cohort.table["case"][self.rows]]

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reference and prediction of each row."""
        size = self.cohort.size
        for row, packed in zip(self.rows, self.packed, strict=True):
            yield self.cohort.lesion(row), np.unpackbits(packed, count=size * size).view(bool).reshape(size, size)


@dataclass(frozen=True, eq=False)
class Player:
    """A model that predicts a cohort as it is, or as it is seen without a difference."""

    predictor: Predictor
    watcher: Watcher

    def play(
        self,
        cohort: PreparedCohort,
        rows: Int64[np.ndarray, " row"],
        seen: PreparedCohort | None = None,
        backs: Sequence[Back] = (),
    ) -> Played:
        """Predict rows as they are seen, bring the masks back, and count on the cohort's own references."""
        counts, packed = [], []
        for chosen, probability in predict_slices(self.predictor, SliceSet.of(seen or cohort, rows)):
            masks = decide(probability, self.predictor.checkpoint.decision)
            for back in reversed(backs):
                masks = np.stack([back(int(rows[n]), mask) for n, mask in zip(chosen, masks, strict=True)])
            counts.append(count_slices(np.stack([cohort.lesion(rows[n]) for n in chosen]), masks))
            packed.append(np.packbits(masks.reshape(len(masks), -1), axis=1))
            self.watcher.slices(int(chosen[-1]) + 1, len(rows))
        return Played(cohort, rows, np.concatenate(counts), np.concatenate(packed))


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
        variance = one.error**2 + other.error**2
        freedom = variance**2 / (one.error**4 / one.freedom + other.error**4 / other.freedom)
        gain = Gain.of(Spread(one.value - other.value, np.sqrt(variance), freedom, is_difference=True))
        return Drop(float(one.value), float(other.value), gain)

    def try_cause(self, name: CauseName) -> Cause:
        """What the target scores without one difference."""
        self.player.watcher.stage(f"Replaying the source model without the difference in {name.replace('_', ' ')}")
        if name == "lesion_sizes":
            return self._cause(name, *self._with_sizes())
        if name == "annotation":
            return self._cause(name, *self._with_tolerance())
        removal = REMOVERS[name](self.reference, self._scans(self.away.cohort))
        return self._cause(name, removal.found, self._gain(removal), removal.note)

    def _cause(self, name: CauseName, found: str, gain: Gain, note: str) -> Cause:
        drop = self.drop.gain.value
        share = gain.value / drop if drop > 0 else math.nan
        return Cause(name, found, self.drop.abroad + gain.value, gain.value, gain.low, gain.high, share, note)

    def _gain(self, removal: Removal) -> Gain:
        if removal.seen is not None:
            return self._compare(
                self.player.play(self.away.cohort, self.away.rows, removal.seen, [removal.back]).counts
            )
        if removal.at_home is not None:
            return self._cost(self.player.play(removal.at_home, self.home.rows))
        return UNKNOWN if removal.note else NOTHING

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
        weights, apart = size_weights(home.sizes, away.sizes)
        what, unit = ("scan", "ml") if level_of(self.convention) == "case" else ("slice", "cm²")
        found = (
            f"the median {what} with lesion has {home.median:.1f} {unit} at home, {away.median:.1f} {unit} here; the mixes differ by "
            f"{100 * apart:.0f} %"
        )
        if apart < _SAME_MIX:
            return found, NOTHING, ""
        both = np.concatenate([away.fractions, weights[:, None] * away.fractions], axis=1)
        sums = group_sums(both, away.owners)[1].reshape(-1, 2, 2)
        note = "Found with the target's labels. Sizes that the target lacks cannot be weighted up."
        return found, Gain.of(spread_of(np.moveaxis(sums, 1, 0))), note

    def _with_tolerance(self) -> tuple[str, Gain, str]:
        """Predictions that are as near to the border as the difference in drawing is wide count as agreed."""
        home, here = (borders_of(list(played.pairs()), played.pixel_mm) for played in (self.home, self._cleaned()))
        least_mm = float(np.median(self.away.pixel_mm)) / 2
        tolerance = Tolerance.between(home, here, least_mm)
        found = f"lesions are drawn {_side(home)} than the model does at home, {_side(here)} here"
        if tolerance == Tolerance():
            return f"{found}; less apart than half a pixel ({least_mm:.1f} mm)", NOTHING, ""
        counts = [
            count_slices(reference[None], tolerance.forgive(reference, mask, mm)[None])
            for (reference, mask), mm in zip(self.away.pairs(), self.away.pixel_mm, strict=True)
        ]
        note = "Found with the target's labels, against the model's own borders once every other difference was removed that could be."
        return found, self._compare(np.concatenate(counts)), note

    def _cleaned(self) -> Played:
        """The target with every difference removed that shows without labels, one after another."""
        view, backs = self.away.cohort, []
        for remove in REMOVERS.values():
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
    return f"{abs(borders.outside_mm):.1f} mm {'wider' if borders.outside_mm >= 0 else 'narrower'} and {borders.apart_mm:.1f} mm apart"
