"""How the numbers were made, as a paragraph to paste into a paper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lungshift.learn.settings import Adaptation, Augmentation, Trainable, TrainingSettings
from lungshift.show.pooled import shared_by_seeds
from lungshift.show.words import listed, plural, unit
from lungshift.transfer.arms import ARMS, Arm
from lungshift.transfer.outcome import Outcome

_LAYERS: Final[dict[Trainable, str]] = {
    "all": "all layers",
    "decoder": "the layers after the bottom of the U",
    "head": "the last 1 × 1 convolution",
}
_ADAPTED: Final[dict[Adaptation, str]] = {
    "batch_norm": "the statistics of its batch normalisation were taken from target slices that were not tested",
    "histogram": "the CT histogram of each tested scan was matched to that of the source's training slices",
    "tent": "the weights of its normalisation were fitted to each tested scan, starting anew for each, so that its predictions "
    "became surer (TENT)",
}


def methods(outcome: Outcome) -> str:
    """Pictures, network, arms, splits, counts and intervals, in this order."""
    return " ".join(
        (
            *_pictures(outcome),
            *_arms(outcome),
            *_splits(outcome),
            *_patients(outcome),
            *_scores(outcome),
            *_extras(outcome),
        )
    )


def _pictures(outcome: Outcome) -> Iterator[str]:
    prepare, network = outcome.protocol.prepare, outcome.protocol.network
    windows = " and ".join(str(window) for window in network.windows)
    rule = {"lung": "with lung", "lung_or_lesion": "with lung or lesion", "all": "of the scans"}[prepare.slices]
    yield (
        f"Slices {rule} were resized to {prepare.size} × {prepare.size} (CT {prepare.interpolation}, masks nearest "
        f"neighbour) and windowed to {windows}{_lung_words(outcome)}."
    )
    yield (
        f"A U-Net with {network.levels} levels, {network.width} filters at the first and "
        f"{'no' if network.norm == 'none' else network.norm} normalisation was trained {_where(outcome)}: "
        f"{_training(outcome.protocol.training)}."
    )


def _where(outcome: Outcome) -> str:
    names = [cohort.name for cohort in outcome.cohorts]
    if outcome.kind == "chain":
        return f"on {names[0]}"
    return (
        "on all cohorts but one, each left out in turn, and on each alone"
        if outcome.kind == "leave_one_out"
        else f"on {names[0]}"
    )


def _arms(outcome: Outcome) -> Iterator[str]:
    protocol, names = outcome.protocol, dict.fromkeys(run.arm for run in outcome.runs if run.arm in ARMS)
    arms = [ARMS[name] for name in names]
    if outcome.kind == "chain":
        others = ", then ".join(cohort.name for cohort in outcome.cohorts[1:])
        yield f"It was then trained on {others}: {_training(protocol.fine_tuning)}; after each it was tested on all."
    started = [arm for arm in arms if arm.labels and arm.from_source]
    if started:
        layers = listed([_LAYERS[arm.trainable] for arm in started])
        yield f"Retraining on {outcome.target.name} continued from there, changing {layers}: {_training(protocol.fine_tuning)}."
    for arm in arms:
        yield from _arm(arm)
    if budgets := sorted({run.labels for run in outcome.runs if run.labels}):
        held = protocol.split.validation_slices if unit(outcome) == "slice" else protocol.split.validation_patients
        yield (
            f"Budgets were {listed(budgets)} {unit(outcome)}{'' if budgets == [1] else 's'} of {outcome.target.name} to train on, "
            f"larger ones holding the smaller, and {held} more to stop the training."
        )


def _arm(arm: Arm) -> Iterator[str]:
    if arm.adaptation:
        yield f"Without labels ({arm.words}), {_ADAPTED[arm.adaptation]}."
    elif arm.labels and not arm.from_source:
        what = "its own budget together with the source's training slices" if arm.with_source else "its budget alone"
        yield f"One network with fresh weights was trained on {what}, by the settings of the source model."


def _splits(outcome: Outcome) -> Iterator[str]:
    split, decision = outcome.protocol.split, outcome.protocol.decision
    folds = len({run.fold for run in outcome.runs})
    if folds > 1:
        yield (
            f"The patients of {outcome.target.name} were divided into {folds} groups, and each group was tested by models that "
            "had not seen it: every patient with lesion is tested once for each seed, and patients without only ever train."
        )
    yield f"Cohorts were split by {split.kind}; every arm was scored on the same held-out slices."
    cut = "chosen on validation slices" if decision.choose_on_validation else f"{decision.threshold:g}"
    yield (
        f"Pixels with a probability from a threshold ({cut}) are lesion"
        f"{', averaged over mirrored slices' if decision.flips else ''}{', inside the lung mask only' if decision.inside_lung else ''}."
    )


def _patients(outcome: Outcome) -> Iterator[str]:
    for cohort in outcome.cohorts:
        if not cohort.patients_known:
            yield (
                f"{cohort.name} came without patient ids: scans that look like one patient's were grouped, every other was taken "
                "for a patient; one patient may still stand on both sides, and intervals may be too narrow."
            )


def _scores(outcome: Outcome) -> Iterator[str]:
    yield "True and false positives and negatives were counted per slice and divided last. F1 is Dice, 2PR / (P + R)."
    seeds = sorted({run.seed for run in outcome.runs})
    if len(seeds) > 1:
        yield f"Every training was repeated with {len(seeds)} seeds; the counts of all seeds and folds were put together, each scan once for each model."
    yield (
        "Intervals are 95 %, over patients, each with all its scans, seeds and folds: Student's t of the linearised ratio with a "
        "small-sample correction (CR2, Bell and McCaffrey 2002), on the logit scale for averages; below about five patients they are a "
        f"rough guide. {_covered(outcome)} Differences between arms are paired: of the same slices of the same patients."
    )
    if any(run.arm in ARMS and run.arm != "zero_shot" for run in outcome.runs) and outcome.kind == "transfer":
        yield (
            "Whether a difference may be chance was tested by swapping both arms' results of patients in all ways or 9999 drawn ones, "
            "corrected for the number of comparisons by stepping down over the largest of them (Westfall and Young 1993)."
        )


def _covered(outcome: Outcome) -> str:
    """Whom the intervals speak for: other trainings only where several seeds tested the same patients, who tell one from the other."""
    patients_alone = "They cover other patients of the same kind, not other cohorts or trainings."
    if len({run.seed for run in outcome.runs}) == 1:
        return patients_alone
    shared = shared_by_seeds(outcome)
    told = listed([cohort for cohort, patients in shared.items() if patients > 1])
    untold = listed([cohort for cohort, patients in shared.items() if patients < 2])
    few = (
        f"On {untold} fewer than two patients with lesion were tested by every seed, so what trainings differ in could not be told from what "
        "patients differ in."
    )
    if not told:
        return f"{few} {patients_alone}"
    added = (
        f"What seeds differ in{f' on {told}' if untold else ''} beyond what patients explain is added (two-way clustering, Cameron, Gelbach and "
        "Miller 2011, with Satterthwaite's degrees of freedom)."
    )
    if not untold:
        return f"{added} They cover other patients of the same kind and other trainings, not other cohorts."
    return f"{added} {few} They cover other patients of the same kind and, on {told} only, other trainings; not other cohorts."


def _extras(outcome: Outcome) -> Iterator[str]:
    if any(run.role == "source" and run.labels for run in outcome.runs):
        yield f"What retraining forgets is the score on the held-out slices of {outcome.source.name}, taken again after it."
    if outcome.leak:
        yield (
            f"The price of leakage compares one network trained on {outcome.source.name} under splits by slice, by case and by patient that share "
            "their tested slices."
        )
    if outcome.explanation:
        yield "The drop was explained by testing the source model of the first seed on the target with one difference removed at a time."


def _lung_words(outcome: Outcome) -> str:
    if not outcome.protocol.network.lung_channel:
        return ""
    sources = sorted({source for cohort in outcome.cohorts for source in cohort.lung_sources})
    return f", with the lung mask as a further channel (lung masks from: {', '.join(sources) or 'unknown'})"


def _training(settings: TrainingSettings) -> str:
    stop = (
        f", stopped after {settings.patience} without a better validation {settings.monitor}"
        if settings.patience
        else ""
    )
    drawn = f" of {settings.epoch_slices} drawn slices" if settings.epoch_slices else ""
    return (
        f"at most {plural(settings.epochs, 'epoch')}{drawn}{stop}, {settings.loss} loss, {settings.optimiser} with a learning rate of "
        f"{settings.learning_rate:g} ({settings.schedule.replace('_', ' ')}), batches of {settings.batch}{_balance(settings)}{_augmentation(settings.augmentation)}"
    )


def _balance(settings: TrainingSettings) -> str:
    return f", patients drawn evenly to the power {settings.balance:g}" if settings.balance else ""


def _augmentation(settings: Augmentation) -> str:
    """Which random changes were made, with their probability."""
    named = (
        ("mirror images", settings.flip),
        ("rotation, scale and shift", settings.affine),
        ("HU offset, gain and gamma", settings.intensity),
        ("sharpness", settings.kernel),
        ("noise", settings.noise),
    )
    told = [f"{name} ({probability:g})" for name, probability in named if probability]
    return f", random changes with their probability: {listed(told)}" if told else ""
