"""The tree of errors, its exit codes and its reasons."""

from __future__ import annotations

import inspect

import pytest

from lungshift import errors
from lungshift.errors import InputError, LungshiftError, MissingError, OutputError, ResourceError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LungshiftError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_carries_its_message_and_a_reason(kind: type[LungshiftError]) -> None:
    plain, precise = kind("what came"), kind("what came", code="E_PRECISE")

    assert str(plain) == "what came"
    assert plain.code == kind.default_code
    assert precise.code == "E_PRECISE"
    assert kind.default_code.startswith("E_")


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        pytest.param(InputError, 1, id="input refused"),
        pytest.param(OutputError, 1, id="output refused"),
        pytest.param(MissingError, 5, id="something is missing"),
        pytest.param(ResourceError, 6, id="disk or memory full"),
    ],
)
def test_exit_codes_are_those_that_are_promised(kind: type[LungshiftError], exit_code: int) -> None:
    assert kind.exit_code == exit_code


def test_every_refusal_of_input_exits_alike() -> None:
    assert {kind.exit_code for kind in TREE if issubclass(kind, InputError)} == {1}


def test_no_two_kinds_share_a_reason() -> None:
    reasons = [kind.default_code for kind in TREE]

    assert len(set(reasons)) == len(reasons)


def test_the_drawn_tree_names_every_kind() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in TREE if kind.__name__ not in errors.__doc__] == []
