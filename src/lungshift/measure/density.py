"""Ground glass and consolidation told apart by HU inside a lesion: one cut-off for masks, numbers and DICOM segments.

Ground glass lets vessels show, consolidation hides them (Fleischner Society glossary: Hansell et al., Radiology 246:697, 2008). A
cut-off in HU stands in for what a reader sees. The one here is that of Chaganti et al. (Radiology: Artificial Intelligence 2:e200048,
2020), who call lesion of -200 HU and more "high opacity". Others take -300 HU and more (for example BMC Infectious Diseases 21:836,
2021, who compare eight): the split of one lesion moves with the cut-off, with kernel and slice thickness, and vessels inside a ground
glass count as dense.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Bool, Shaped

CONSOLIDATION_HU: Final = -200.0
"""A lesion voxel of this or more is consolidation, of less is ground glass."""


def is_dense(hu: Shaped[np.ndarray, "*any"]) -> Bool[np.ndarray, "*any"]:
    """Which HU are consolidation, where they belong to a lesion."""
    return np.asarray(hu >= CONSOLIDATION_HU)
