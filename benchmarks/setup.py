"""What every benchmark is told: where to work, on what, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.inputs import write_phantom


@dataclass(frozen=True, eq=False)
class Setup:
    """The choices of one run.

    Attributes:
        folder: An empty folder for everything that is written.
        data: Where real cohorts lie, if anywhere.
        keras: Python of an environment with Keras and TensorFlow, or None.
        skimage: Python of an environment with nibabel and scikit-image, or None.
        rounds: How often contestants take turns; the best turn counts.
        quick: Tiny sizes, only to see that everything runs.
    """

    folder: Path
    data: Path
    keras: str | None = None
    skimage: str | None = None
    rounds: int = 3
    quick: bool = False

    @property
    def size(self) -> int:
        """Rows and columns of a prepared picture."""
        return 64 if self.quick else 320

    @cached_property
    def phantom(self) -> Path:
        """A phantom scan of 120 slices of 512 x 512."""
        return self._phantom(8 if self.quick else 120)

    @cached_property
    def phantom_to_predict(self) -> Path:
        """A phantom scan of 300 slices of 512 x 512."""
        return self._phantom(8 if self.quick else 300)

    @cached_property
    def phantoms_short_and_long(self) -> dict[int, Path]:
        """Phantom scans of 40 and of 1000 slices."""
        return {n: self._phantom(n) for n in ((4, 40) if self.quick else (40, 1000))}

    @cached_property
    def prepared(self) -> Path:
        """A prepared phantom cohort, for benchmarks that need pictures; its slices come from one scan."""
        from lungshift.io.cohort import read_cohort
        from lungshift.prepare.prepared import prepare_cohort

        return prepare_cohort(read_cohort(self.phantom), self.folder / "prepared", size=self.size).folder

    def real(self) -> dict[str, Path]:
        """The real cohorts that are there, by name."""
        return {name: self.data / name for name in ("medseg9", "coronacases10") if (self.data / name).is_dir()}

    def _phantom(self, slices: int) -> Path:
        folder = self.folder / f"phantom-{slices}"
        if not folder.is_dir():
            write_phantom(folder, slices, size=128 if self.quick else 512)
        return folder
