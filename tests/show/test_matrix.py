import pytest

from lungshift.show.drawing import style
from lungshift.show.matrix import draw_matrices, matrices_of, matrix_of, matrix_records
from lungshift.show.tables import build_table


def test_a_transfer_has_a_row_for_each_set_of_cohorts_at_the_largest_budget(rich, rich_findings):
    matrix = matrix_of(rich, rich_findings.table, "lesion_slices")
    assert matrix.columns == ("medseg9-like", "corona-like")
    assert [name for name, _ in matrix.rows] == [
        "medseg9-like", "corona-like (4)", "medseg9-like → corona-like (4)", "medseg9-like + corona-like (4)",
    ]  # fmt: skip
    zero = next(r for r in rich_findings.table if (r.arm, r.convention) == ("zero_shot", "lesion_slices"))
    assert matrix.rows[0][1][1] == zero.cells["dice"]
    assert all(cell is not None for _, cells in matrix.rows for cell in cells)


def test_what_was_not_tested_is_told_and_has_no_record(outcome_of):
    outcome = outcome_of()
    matrices = matrices_of(outcome, build_table(outcome))
    assert matrices[0].rows[1][1][0] is None
    assert len(matrix_records(matrices)) == 2 * 3
    with style():
        drawing = draw_matrices(outcome, matrices)[0]
    assert drawing.alt.endswith("alpha on alpha: 0.929; alpha on beta: 0.583; alpha → beta (2) on beta: 0.929.")


def test_a_chain_is_a_square_that_is_best_where_it_was_trained_last(chain):
    matrix = matrix_of(chain, build_table(chain), "per_case")
    values = [[cell.value for cell in cells] for _, cells in matrix.rows]
    assert [max(column) for column in zip(*values, strict=True)] == pytest.approx([values[n][n] for n in range(3)])


def test_nothing_tested_is_no_matrix(outcome_of):
    assert matrices_of(outcome_of(runs=()), ()) == []
