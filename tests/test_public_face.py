"""What a user may import, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import lungshift

LOAD = "import sys, lungshift; {more}; print(sorted({{name.partition('.')[0] for name in sys.modules}}))"


def loaded_by(more: str) -> str:
    """The packages that a fresh interpreter has loaded after ``import lungshift`` and one statement more."""
    command = [sys.executable, "-c", LOAD.format(more=more)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("name", lungshift.__all__)
def test_every_public_name_is_found_and_explained(name: str) -> None:
    found = getattr(lungshift, name)

    assert isinstance(found, str) or (found.__doc__ and getattr(found, "__name__", getattr(found, "name", "")) == name)


def test_the_data_model_is_public() -> None:
    assert {"Case", "Cohort", "Geometry", "Mask", "Volume", "__version__"} <= set(lungshift.__all__)


def test_what_the_main_commands_do_is_public() -> None:
    done = {
        "run",
        "train_cohort",
        "evaluate_cohort",
        "forecast",
        "audit_cohorts",
        "predict",
        "quantify",
        "follow_up",
        "write_scene",
    }

    assert done <= set(lungshift.__all__)


def test_public_names_are_sorted_and_listed() -> None:
    assert list(lungshift.__all__) == sorted(set(lungshift.__all__))
    assert dir(lungshift) == sorted(lungshift.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Hospital'"):
        lungshift.Hospital  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert lungshift.__version__ == version("lungshift")


@pytest.mark.parametrize("heavy", ["torch", "lightning", "monai", "SimpleITK", "matplotlib", "scipy"])
def test_importing_lungshift_loads_nothing_heavy(heavy: str) -> None:
    assert f"'{heavy}'" not in _PLAIN


@pytest.mark.parametrize("heavy", ["torch", "lightning", "monai"])
def test_the_data_model_needs_nothing_heavy_either(heavy: str) -> None:
    assert f"'{heavy}'" not in _MODEL


_PLAIN = loaded_by("pass")
_MODEL = loaded_by("lungshift.Cohort; lungshift.Mask")
