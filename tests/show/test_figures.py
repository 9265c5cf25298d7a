import io
import math
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from lungshift.show import figures
from lungshift.show.figures import case_scores, crop, draw_all, overlap_rgba, slug
from lungshift.transfer.outcome import EpochRecord, History, Run

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
DEUTAN = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTAN = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])


LINEAR_TO_XYZ = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])


def seen(colour, eye):
    """CIELAB of a colour as an eye sees it."""
    rgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]) ** 2.2
    x, y, z = np.cbrt(LINEAR_TO_XYZ @ np.clip(eye @ rgb, 0, 1) / LINEAR_TO_XYZ.sum(axis=1))
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", [np.eye(3), DEUTAN, PROTAN], ids=["all cones", "no green cones", "no red cones"])
def test_overlap_colours_differ_for_every_eye(eye):
    colours = (figures.BOTH, figures.PREDICTION_ONLY, figures.REFERENCE_ONLY)
    assert all(np.linalg.norm(seen(a, eye) - seen(b, eye)) > 50 for a, b in combinations(colours, 2))


def test_overlap_is_coloured_by_agreement_and_clear_elsewhere():
    reference, prediction = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    picture = overlap_rgba(reference, prediction)[0]
    assert picture[:3, :3] == pytest.approx(
        np.array([figures._rgb(c) for c in (figures.BOTH, figures.REFERENCE_ONLY, figures.PREDICTION_ONLY)])
    )
    assert picture[3, 3] == 0


def test_the_same_outcome_draws_the_same_bytes(outcome_of):
    first, second = draw_all(outcome_of()), draw_all(outcome_of())
    assert [(d.name, d.png, d.svg) for d in first] == [(d.name, d.png, d.svg) for d in second]


def test_drawing_leaves_matplotlib_as_it_was(outcome_of):
    before = dict(mpl.rcParams)
    draw_all(outcome_of(runs=(), examples=()))
    assert dict(mpl.rcParams) == before


def test_ids_that_look_like_mathematics_or_markup_are_drawn_as_text(outcome_of, example_of, scores_of):
    name = r"$\frac{<script>$--"
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(1, 1, 1, 61)], [name]))
    drawings = draw_all(outcome_of(runs=(run,), histories=(), examples=(example_of(name),)))
    assert all(b"<script" not in drawing.svg for drawing in drawings)
    assert all(set(drawing.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for drawing in drawings)


def test_patient_right_stays_on_the_left_and_front_up(outcome_of, example_of):
    example = example_of()
    example.hu[:4, :4] = 150  # front, patient's right
    drawing = draw_all(outcome_of(runs=(), histories=(), examples=(example,)))[0]
    panel = np.asarray(Image.open(io.BytesIO(drawing.png)).convert("L"))
    tile = panel[:, : panel.shape[1] // 5]
    used = np.flatnonzero((tile > 60).sum(axis=1) & (tile < 200).sum(axis=1))
    top, bottom = used[len(used) // 4], used[3 * len(used) // 4]
    assert tile[top, tile.shape[1] // 4] > tile[top, 3 * tile.shape[1] // 4]
    assert tile[top, tile.shape[1] // 4] > tile[bottom, tile.shape[1] // 4]


def test_empty_masks_are_drawn_whole(outcome_of, example_of):
    example = example_of(dice=math.nan)
    for mask in (example.lung, example.reference, example.prediction):
        mask[:] = False
    assert crop(example) == (slice(None), slice(None))
    drawing = draw_all(outcome_of(runs=(), histories=(), examples=(example,)))[-1]
    assert "undefined, no lesion in either" in drawing.alt


def test_crop_leaves_room_and_stays_inside(example_of):
    rows, columns = crop(example_of(), margin=0.25)
    assert (rows.start, rows.stop) == (0, 7)
    assert columns.start == 0


def test_a_case_undefined_in_one_seed_is_undefined(scores_of):
    runs = [
        Run("zero_shot", "beta", "target", "", seed, scores_of(rows, ["a", "b"]))
        for seed, rows in ((0, [(1, 1, 1, 61), (0, 0, 0, 64)]), (1, [(3, 1, 1, 59), (1, 0, 0, 63)]))
    ]
    scores = case_scores(runs)
    assert scores["a"] == pytest.approx((0.5 + 0.75) / 2)
    assert math.isnan(scores["b"])


def test_a_case_without_any_lesion_is_named_undefined(outcome_of, scores_of):
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(0, 0, 0, 64)], ["healthy"]))
    cases = draw_all(outcome_of(runs=(run,), histories=(), examples=()))[0]
    assert "healthy: undefined to undefined" in cases.alt


def test_every_training_gets_its_curves_with_the_kept_epoch(outcome_of):
    epochs = tuple(EpochRecord(n, 1 / n, 1 / n, n / 10, 1e-3, 1.0) for n in (1, 2, 3))
    histories = (History("source, seed 0", epochs, 3), History("fine_tuned, seed 0", epochs, 2), History("none", (), 0))
    drawings = draw_all(outcome_of(runs=(), examples=(), histories=histories))
    assert [d.name for d in drawings] == ["training-01-source-seed-0", "training-02-fine-tuned-seed-0"]
    assert "weights of epoch 2 kept" in drawings[1].caption


@pytest.mark.parametrize(("text", "name"), [("../../etc/passwd", "etc-passwd"), ("ß", "x"), ("A b", "a-b")])
def test_file_names_hold_nothing_but_letters_digits_and_dashes(text, name):
    assert slug(text) == name
