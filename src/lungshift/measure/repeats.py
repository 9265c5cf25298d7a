"""How far a number would be off had the scan been taken again: standard deviation, 95 % limits and repeatability coefficient.

Each quantity is measured on every repeat, by every model if there are several. The variance within a model is the mean over models of the
variance over its repeats; between models it is the variance of the models' means; the two add up. With so few repeats 1.96 would be too
small, so Student's t stands in its place: ``limits`` hold 95 % of single results, and two results of one patient differ by more than
``coefficient`` in 5 % of cases if nothing has changed (Bland and Altman, Statistical Methods in Medical Research 8:135, 1999, with t for
1.96). Its degrees of freedom count repeats only: limits are of these models, and say nothing of others that might have been trained, of
which two or three models know next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 0.975


@dataclass(frozen=True)
class Spread:
    """How repeats of one quantity scatter.

    Attributes:
        sd: Standard deviation of one result; NaN if a repeat is undefined or there are fewer than two.
        freedom: Degrees of freedom of it.
        repeats: How many results it is from.
        models: By how many models.
    """

    sd: float
    freedom: float
    repeats: int
    models: int = 1

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % limits of one result."""
        return self._t * self.sd

    @property
    def coefficient(self) -> float:
        """The repeatability coefficient: two results differ by more than this in 5 % of cases if nothing has changed."""
        return float(np.sqrt(2)) * self.half_width

    @property
    def _t(self) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, _LEVEL)) if self.freedom > 0 else float("nan")

    def limits(self, value: float, *, lowest: float = -np.inf, highest: float = np.inf) -> tuple[float, float]:
        """95 % limits around a result, within what the quantity can be."""
        if np.isnan(value) or np.isnan(self.half_width):
            return float("nan"), float("nan")
        return max(lowest, value - self.half_width), min(highest, value + self.half_width)


UNKNOWN = Spread(float("nan"), 0.0, 0)
"""Of a quantity that nobody measured twice."""


def spreads_of(results: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Spread]:
    """The spread of every quantity.

    Args:
        results: For each model, the quantities of each of its repeats; as many repeats of each model.
    """
    names = results[0][0] if results and results[0] else {}
    return {name: _spread(np.array([[repeat[name] for repeat in model] for model in results])) for name in names}


def _spread(values: np.ndarray) -> Spread:
    models, repeats = values.shape
    if repeats < 2 or np.isnan(values).any():
        return Spread(float("nan"), 0.0, values.size, models)
    within = float(values.var(axis=1, ddof=1).mean())
    between = float(values.mean(axis=1).var(ddof=1)) if models > 1 else 0.0
    return Spread(float(np.sqrt(within + between)), float(models * (repeats - 1)), values.size, models)
