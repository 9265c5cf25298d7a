"""HU become what a network sees, by equation 1 of the source paper."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.errors import ProtocolError
from lungshift.prepare.windows import PAPER_WINDOW, Window, apply_windows


@pytest.mark.parametrize(
    ("hu", "seen"),
    [
        pytest.param(-970, 0.0, id="lower end"),
        pytest.param(-150, 1.0, id="upper end"),
        pytest.param(-560, 0.5, id="middle"),
        pytest.param(-1024, 0.0, id="air is clipped"),
        pytest.param(40, 1.0, id="consolidation saturates"),
    ],
)
def test_the_papers_window_goes_from_minus_970_to_minus_150(hu: int, seen: float) -> None:
    assert apply_windows(np.full((1, 1, 1), hu, np.int16), [PAPER_WINDOW])[0, 0, 0, 0] == pytest.approx(seen, abs=1e-6)


def test_each_window_is_a_channel() -> None:
    hu = np.array([[[-600.0, 0.0]]], dtype=np.float32)

    channels = apply_windows(hu, [Window(-1000, -200), Window(-100, 100)])

    assert channels.shape == (1, 2, 1, 2)
    np.testing.assert_allclose(channels[0, :, 0], [[0.5, 1.0], [0.0, 0.5]], atol=1e-6)


def test_all_821_levels_of_the_window_stay_apart_in_whole_hu() -> None:
    levels = np.arange(-970, -149, dtype=np.int16)[None, None]

    assert len(np.unique(apply_windows(levels, [PAPER_WINDOW]))) == 821


def test_a_window_that_is_upside_down_is_refused() -> None:
    with pytest.raises(ProtocolError, match="lower to a higher"):
        Window(-150, -970)
