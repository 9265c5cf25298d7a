"""What a process may take of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from lungshift.errors import ProtocolError
from lungshift.learn.machine import threads_here, use_threads


def test_a_process_takes_as_many_threads_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # and put back in the end
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            use_threads(count)
            assert (torch.get_num_threads(), threads_here()) == (count, count)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("said", [None, "", "0", "many"])
def test_without_a_word_about_threads_every_core_computes(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)

    assert threads_here() == len(os.sched_getaffinity(0))


def test_torch_that_is_loaded_later_takes_as_many_threads_too() -> None:
    told = (
        "from lungshift.learn.machine import use_threads; use_threads(1); import torch; print(torch.get_num_threads())"
    )
    alone = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

    ran = subprocess.run(
        [sys.executable, "-c", told], env=alone, check=True, capture_output=True, text=True, timeout=60
    )

    assert ran.stdout == "1\n"


def test_no_threads_are_refused() -> None:
    with pytest.raises(ProtocolError, match="got 0"):
        use_threads(0)
