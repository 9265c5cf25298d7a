"""cleanlab's scores of slices, in an environment of its own: reads ``labels`` and ``probability`` of an .npz, writes quality scores.

RIVAL_PYTHON benchmarks/labels_rival.py IN.npz OUT.npz METHOD …
"""

from __future__ import annotations

import sys

import numpy as np

_SLICES = 200
"""It takes many times the memory of its input, so it gets so many slices at once."""


def main() -> None:
    """Score slices by each method, ``softmin`` or ``num_pixel_issues``; a low score where the label is doubted."""
    source, target, *methods = sys.argv[1:]
    with np.load(source) as given:
        labels, probability = given["labels"], given["probability"]
    scores: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    for first in range(0, len(labels), _SLICES):
        part = slice(first, first + _SLICES)
        for method in methods:
            scores[method].append(_quality(labels[part], probability[part], method))
    np.savez(target, **{method: np.concatenate(parts) for method, parts in scores.items()})


def _quality(labels: np.ndarray, probability: np.ndarray, method: str) -> np.ndarray:
    from cleanlab.segmentation.rank import get_label_quality_scores

    lesion = probability.astype(np.float32) / 255
    both = np.stack([1 - lesion, lesion], axis=1)
    scores, _ = get_label_quality_scores(
        labels.astype(np.int64), both, method=method, batch_size=1_000_000, n_jobs=1, verbose=False
    )
    return np.asarray(scores, dtype=np.float64)


if __name__ == "__main__":
    main()
