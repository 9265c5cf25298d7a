"""The arms of a study: what each does with the source model, the target's labels and the target's pictures.

An arm is one value here; a protocol names it, the plan reads it, tables and pages take its words. Adding one touches this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lungshift.learn.settings import Adaptation, Trainable


@dataclass(frozen=True)
class Arm:
    """What is done to get a model for the target.

    Attributes:
        words: The arm in words, for tables and sentences.
        from_source: Whether it starts from the model trained on the source.
        with_source: Whether the source's training slices are trained on too.
        labels: Whether it is trained on labelled target patients, once for each budget.
        trainable: Which layers that training changes.
        adaptation: What is done with the target's pictures without their labels.
    """

    words: str
    from_source: bool = True
    with_source: bool = False
    labels: bool = True
    trainable: Trainable = "all"
    adaptation: Adaptation | None = None


ARMS: Final[dict[str, Arm]] = {
    "zero_shot": Arm("without retraining", labels=False),
    "from_scratch": Arm("trained on the target alone", from_source=False),
    "fine_tuned": Arm("retrained"),
    "frozen_encoder": Arm("decoder retrained", trainable="decoder"),
    "head_only": Arm("last layer retrained", trainable="head"),
    "joint": Arm("trained on source and target together", from_source=False, with_source=True),
    "adapted_batch_norm": Arm("batch-norm statistics of the target", labels=False, adaptation="batch_norm"),
    "adapted_histogram": Arm("histogram matched to the source", labels=False, adaptation="histogram"),
    "adapted_tent": Arm("TENT, scan by scan", labels=False, adaptation="tent"),
}
"""Every arm by the name that protocols use."""
