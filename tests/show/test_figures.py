import io
import math
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from lungshift.learn.history import EpochRecord, History
from lungshift.show import curves, figures, viewer
from lungshift.show.drawing import contrast, rgb, slug
from lungshift.show.figures import crop, draw_all, group_histories, overlap_rgba
from lungshift.show.matrix import shade
from lungshift.show.tables import build_table

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
DEUTAN = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTAN = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
LINEAR_TO_XYZ = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])
EYES = {"all cones": np.eye(3), "no green cones": DEUTAN, "no red cones": PROTAN}


def seen(colour, eye):
    """CIELAB of a colour as an eye sees it."""
    linear = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]) ** 2.2
    x, y, z = np.cbrt(LINEAR_TO_XYZ @ np.clip(eye @ linear, 0, 1) / LINEAR_TO_XYZ.sum(axis=1))
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


def draw(outcome):
    return draw_all(outcome, build_table(outcome))


@pytest.mark.parametrize("eye", EYES.values(), ids=EYES)
def test_overlap_colours_differ_for_every_eye(eye):
    colours = (figures.BOTH, figures.PREDICTION_ONLY, figures.REFERENCE_ONLY)
    assert all(np.linalg.norm(seen(a, eye) - seen(b, eye)) > 50 for a, b in combinations(colours, 2))


@pytest.mark.parametrize("eye", EYES.values(), ids=EYES)
def test_reader_model_and_both_differ_for_every_eye_in_the_viewer(eye):
    colours = (figures.REFERENCE, figures.PREDICTION, viewer.SHARED)
    assert all(np.linalg.norm(seen(a, eye) - seen(b, eye)) > 40 for a, b in combinations(colours, 2))


@pytest.mark.parametrize("eye", EYES.values(), ids=EYES)
def test_lines_of_arms_differ_for_every_eye_and_in_more_than_colour(eye):
    colours = [line[0] for line in curves.LINES]
    assert min(np.linalg.norm(seen(a, eye) - seen(b, eye)) for a, b in combinations(colours, 2)) > 20
    assert len({line[1:] for line in curves.LINES}) == len(curves.LINES)


@pytest.mark.parametrize("eye", EYES.values(), ids=EYES)
def test_the_matrix_gets_darker_with_the_score_for_every_eye_and_stays_readable(eye):
    cells = [shade(value) for value in np.linspace(0, 1, 101)]
    lightness = [seen(back, eye)[0] for back, _ in cells]
    assert all(first > second for first, second in zip(lightness, lightness[5:], strict=False))
    assert min(contrast(back, ink) for back, ink in cells) >= 4.5
    assert shade(math.nan)[0] == "#ffffff"


def test_overlap_is_coloured_by_agreement_and_clear_elsewhere():
    reference, prediction = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    picture = overlap_rgba(reference, prediction)[0]
    assert picture[:3, :3] == pytest.approx(
        np.array([rgb(c) for c in (figures.BOTH, figures.REFERENCE_ONLY, figures.PREDICTION_ONLY)])
    )
    assert picture[3, 3] == 0


def test_the_same_outcome_draws_the_same_bytes(outcome_of):
    first, second = draw(outcome_of()), draw(outcome_of())
    assert [(d.name, d.png, d.svg) for d in first] == [(d.name, d.png, d.svg) for d in second]


def test_drawing_leaves_matplotlib_as_it_was(outcome_of):
    before = dict(mpl.rcParams)
    draw(outcome_of(runs=(), examples=()))
    assert dict(mpl.rcParams) == before


def test_ids_that_look_like_mathematics_or_markup_are_drawn_as_text(outcome_of, example_of, run_of):
    name = r"$\frac{<script>$--"
    run = run_of("zero_shot", [(1, 1, 1, 61)], [name])
    drawings = draw(outcome_of(runs=(run,), histories=(), examples=(example_of(name),)))
    assert all(b"<script" not in drawing.svg for drawing in drawings)
    assert all(set(drawing.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for drawing in drawings)


def test_patient_right_stays_on_the_left_and_front_up(outcome_of, example_of):
    example = example_of()
    example.hu[:4, :4] = 150  # front, patient's right
    drawing = draw(outcome_of(runs=(), histories=(), examples=(example,)))[0]
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
    drawing = draw(outcome_of(runs=(), histories=(), examples=(example,)))[-1]
    assert "undefined, no lesion in either" in drawing.alt


def test_crop_leaves_room_and_stays_inside(example_of):
    rows, columns = crop(example_of(), margin=0.25)
    assert (rows.start, rows.stop) == (0, 7)
    assert columns.start == 0


def make_history(name, best=2, score=math.nan):
    return History(name, tuple(EpochRecord(n, 1 / n, 1 / n, score, 1e-3, 1.0) for n in (1, 2, 3)), best)


def test_seeds_and_folds_of_one_training_share_a_figure_with_the_kept_epochs(outcome_of):
    histories = (
        make_history("source-seed0", 3),
        make_history("fine_tuned-2_patients-seed0-fold1", 1, 0.5),
        make_history("fine_tuned-2_patients-seed1-fold2", 2, 0.6),
        History("none", (), 0),
    )
    drawings = draw(outcome_of(runs=(), examples=(), histories=histories))
    assert [d.name for d in drawings] == ["training-01-source", "training-02-fine-tuned-2-patients"]
    assert "3 epochs, weights of epoch 3 kept" in drawings[0].caption
    assert "2 trainings (seeds and folds), 3 epochs, weights of epoch 1 to 2 kept" in drawings[1].caption


@pytest.mark.parametrize(
    ("name", "group"),
    [("source, seed 0", "source"), ("fine_tuned-4_patients-seed10-fold2", "fine_tuned-4_patients"), ("mine", "mine"),
     ("seed3", "seed3")],
)  # fmt: skip
def test_trainings_are_grouped_by_what_comes_before_their_seed(name, group):
    assert list(group_histories([make_history(name)])) == [group]


@pytest.mark.parametrize(("text", "name"), [("../../etc/passwd", "etc-passwd"), ("ß", "x"), ("A b", "a-b")])
def test_file_names_hold_nothing_but_letters_digits_and_dashes(text, name):
    assert slug(text) == name
