"""What a process may take of the machine."""

from __future__ import annotations

import pytest
import torch

from lungshift.errors import ProtocolError
from lungshift.learn.machine import use_threads


def test_a_process_takes_as_many_threads_as_it_is_told() -> None:
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            use_threads(count)
            assert torch.get_num_threads() == count
    finally:
        use_threads(before)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ProtocolError, match="got 0"):
        use_threads(0)
