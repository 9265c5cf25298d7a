from lungshift.learn.settings import Augmentation, TrainingSettings
from lungshift.show.methods import methods
from lungshift.show.words import over_whom
from lungshift.transfer.protocol import DecisionSettings, Protocol, SplitSettings


def test_methods_tell_what_the_protocol_set(outcome_of):
    protocol = Protocol("tiny", split=SplitSettings("slice"), decision=DecisionSettings(0.3, flips=True))
    text = methods(outcome_of(protocol=protocol))
    for part in (
        "-970 to -150 HU",
        "320 × 320",
        "split by slice",
        "0.3",
        "mirrored",
        "reader, threshold",
        "Retraining on beta",
        "CR2",
    ):
        assert part in text
    assert "Retraining" not in methods(outcome_of(runs=outcome_of().runs[:2]))


def test_methods_name_every_arm_budget_fold_seed_and_extra_of_a_rich_study(rich):
    text = methods(rich)
    for part in (
        "changing all layers, the layers after the bottom of the U and the last 1 × 1 convolution",
        "fresh weights was trained on its budget alone",
        "together with the source's training slices",
        "statistics of its batch normalisation",
        "CT histogram",
        "TENT",
        "Budgets were 1, 2 and 4 patients of corona-like to train on, larger ones holding the smaller, and 1 more",
        "divided into 2 groups",
        "repeated with 3 seeds",
        "corrected for the number of comparisons",
        "What retraining forgets",
        "price of leakage",
        "one difference removed at a time",
        "corona-like came without patient ids",
    ):
        assert part in text


def test_methods_name_nothing_that_was_not_done(outcome_of):
    text = methods(outcome_of())
    for part in ("TENT", "fresh weights", "groups", "seeds;", "forgets", "leakage", "removed", "without patient ids"):
        assert part not in text


def test_methods_of_chains_and_of_cohorts_left_out_tell_the_order(chain, leave_one_out):
    assert "was trained on north:" in methods(chain)
    assert "then trained on south, then west" in methods(chain)
    assert "on all cohorts but one, each left out in turn, and on each alone" in methods(leave_one_out)


def test_methods_tell_how_slices_were_drawn_and_changed(outcome_of):
    changes = Augmentation(affine=0, kernel=0, noise=0)
    training = TrainingSettings(epochs=4, epoch_slices=800, balance=0.5, augmentation=changes)

    text = methods(outcome_of(protocol=Protocol("tiny", training=training)))

    assert "at most 4 epochs of 800 drawn slices" in text
    assert "patients drawn evenly to the power 0.5" in text
    assert "mirror images (0.5) and HU offset, gain and gamma (0.8)" in text
    assert "noise" not in text


def test_methods_tell_of_no_random_changes_where_there_were_none(outcome_of):
    assert "random changes" not in methods(outcome_of(protocol=Protocol("tiny")))


LESION, NO_LESION = (2, 2, 2, 58), (0, 1, 0, 63)


def test_intervals_cover_other_trainings_only_where_every_seed_tested_the_same_patients(outcome_of, run_of):
    def of_seeds(*patients, **where):
        return [run_of("zero_shot", [LESION] * len(ids), list(ids), seed=n, **where) for n, ids in enumerate(patients)]

    both = methods(outcome_of(runs=of_seeds("abc", "bcd")))
    neither = methods(outcome_of(runs=of_seeds("ab", "bc")))
    one = methods(outcome_of(runs=[*of_seeds("abc", "bcd"), *of_seeds("ab", "bc", tested_on="alpha", role="source")]))

    assert over_whom(outcome_of(runs=of_seeds("abc", "bcd"))) == "patients and trainings"
    assert over_whom(outcome_of(runs=of_seeds("ab", "bc"))) == "patients"
    assert "They cover other patients of the same kind and other trainings, not other cohorts." in both
    assert "fewer than two" not in both
    assert "fewer than two patients with lesion were tested by every seed" in neither
    assert "They cover other patients of the same kind, not other cohorts or trainings." in neither
    assert "is added" not in neither
    assert "What seeds differ in on beta beyond what patients explain is added" in one
    assert "On alpha fewer than two patients with lesion were tested by every seed" in one
    assert "and, on beta only, other trainings; not other cohorts." in one


def test_a_patient_without_lesion_does_not_tell_what_trainings_differ_in(outcome_of, run_of):
    runs = [run_of("zero_shot", [LESION, NO_LESION], ["a", "b"], seed=seed) for seed in (0, 1)]

    assert "fewer than two patients with lesion" in methods(outcome_of(runs=runs))
