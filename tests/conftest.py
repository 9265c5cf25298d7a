"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real cohorts beside the project; a test that asks for it is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "medseg9").is_dir():
        pytest.skip("the real cohorts are not beside this checkout")
    return folder
