"""How much of a change is the model's own noise: each date predicted again as if it had been taken again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lungshift.ct.case import Case
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError
from lungshift.learn.checkpoint import load_checkpoint, require_target
from lungshift.learn.prediction import Predictor, predict
from lungshift.learn.repeatability import RETAKES, draw_retakes, spread_numbers
from lungshift.measure.burden import Burden
from lungshift.measure.regions import find_regions
from lungshift.patient.dates import DatedScan
from lungshift.patient.followup import Noise


@dataclass(eq=False)
class Models:
    """The models that drew the lesions of a patient's dates, each loaded when it is first needed.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``.
        retakes: How often each date is predicted again.
        progress: Told what is being done.
    """

    device: str = "auto"
    retakes: int = RETAKES
    progress: Callable[[str], None] = lambda _: None
    _loaded: dict[Path, Predictor] = field(default_factory=dict)
    _found: dict[str, Mask] = field(default_factory=dict)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the models that were used."""
        return tuple(dict.fromkeys(one.checkpoint.fingerprint for one in self._loaded.values()))

    def complete(self, dated: DatedScan, case: Case) -> Case:
        """The case with its lesion, predicted where it has none."""
        if case.lesion is not None or dated.checkpoint is None:
            return case
        if dated.label not in self._found:
            self.progress(f"{dated.label}: predicting the lesion")
            self._found[dated.label] = predict(self._predictor(dated.checkpoint), case)
        return replace(case, lesion=self._found[dated.label])

    def noise_of(self, dated: DatedScan, case: Case, burden: Burden) -> Noise | None:
        """Half the widths of the 95 % limits of a date's numbers; None where no model is named or nothing scatters from nothing."""
        if dated.checkpoint is None or not burden.whole.lesion_ml:
            return None
        if case.lung is None:
            raise AnnotationError(f"{dated.label} has no lung mask.", code="E_NO_LUNG")
        self.progress(f"{dated.label}: predicting it {self.retakes} times more, as if it had been taken again")
        predictor, regions = self._predictor(dated.checkpoint), find_regions(case.lung, case.volume)
        spreads = spread_numbers([predictor], case, regions, draw_retakes(self.retakes))
        ml, percent = (spreads[name].half_width for name in ("lesion_ml", "percent"))
        return None if math.isnan(ml) or math.isnan(percent) else Noise(ml, percent, "model")

    def _predictor(self, path: Path) -> Predictor:
        if path not in self._loaded:
            checkpoint = load_checkpoint(path)
            require_target(checkpoint, "lesion")
            self._loaded[path] = Predictor.of(checkpoint, self.device)
        return self._loaded[path]
