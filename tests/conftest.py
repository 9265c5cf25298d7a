"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# No test has a time limit: on a busy machine a slow example is not a wrong one. Property tests try the same examples each time, so
# that whether a change lands is no matter of luck; `pytest --hypothesis-profile searching` looks for new ones.
settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("searching"), derandomize=True)
settings.load_profile("fixed")

# Shapes and dtypes that stand in signatures are checked at every call while the tests run, and never outside of them;
# not in ct, io and measure, which check for themselves and whose tests hand them what is wrong on purpose.
_PREPARE = ("grid", "histogram", "lungmask", "prepared", "slices", "splits", "windows")
install_import_hook(
    [
        *(f"lungshift.prepare.{room}" for room in _PREPARE),
        *(f"lungshift.learn.{room}" for room in ("adaptation", "data", "pictures", "prediction")),
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(autouse=True)
def _deaf_to_children() -> Iterator[None]:
    """Torch's data loader listens for children that end; with OpenVINO in the same process that signal has ended the tests (SI_KERNEL)."""
    yield
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real cohorts beside the project; a test that asks for it is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "medseg9").is_dir():
        pytest.skip("the real cohorts are not beside this checkout")
    return folder
