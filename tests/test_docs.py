"""What the documents say is what the code does: links, commands, settings, error codes, examples."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from lungshift.cli.main import app
from lungshift.errors import LungshiftError
from lungshift.transfer.arms import ARMS
from lungshift.transfer.protocol import Protocol, parse_protocol, read_protocol, shipped_protocols

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SOURCES = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def first_column(text: str, heading: str) -> list[str]:
    """The first column, where it is code, of the tables under a heading."""
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, flags=re.M)


def links(page: Path) -> Iterator[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text()))
    return (link for link in found if not link.startswith(("http://", "https://")))


def calls(text: str) -> list[list[str]]:
    """Every ``lungshift …`` of a page as words; ``…`` and upper-case stand-ins are kept."""
    code = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M) for line in block.splitlines()]
    code += re.findall(r"`([^`\n]+)`", text)
    found = (re.match(r"(?:\$ )?lungshift +(.*)", line.strip()) for line in code)
    return [match[1].split("#")[0].split() for match in found if match]


def script(name: str) -> dict:
    return runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page

        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    for command, *words in filter(None, calls(page.read_text())):
        if command in ("--help", "COMMAND"):
            continue
        assert command in COMMANDS, f"{page.name}: lungshift {command}"
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, f"{page.name}: {words}"


def test_the_readme_names_every_command() -> None:
    named = {words[0] for words in calls((ROOT / "README.md").read_text()) if words}

    assert named >= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_page_names_a_place_on_somebodys_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.:/<])/(?:home|root|work|tmp|usr|opt|mnt|Users)\b\S*", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_placeholder_is_left(page: Path) -> None:
    assert not re.findall(r"^@[A-Z]+@$|TODO|FIXME", page.read_text(), flags=re.M)


def test_no_example_shows_the_frame_of_a_usage_error_as_its_answer() -> None:
    assert [page.name for page in PAGES if "╰─" in page.read_text()] == []


def test_the_settings_page_is_what_the_code_says() -> None:
    settings = script("write_settings")

    assert settings["page"]() == settings["PAGE"].read_text(), "run .venv/bin/python scripts/write_settings.py"


def test_every_setting_is_named_and_explained() -> None:
    settings = script("write_settings")
    page = settings["PAGE"].read_text()

    for path, owner, field in settings["settings"]():
        assert f"| `{path}` |" in page
        assert settings["_sentences"](owner)[field.name]


def test_the_table_of_modules_is_what_the_code_says() -> None:
    reference = script("write_reference")

    assert reference["page"]() == reference["PAGE"].read_text(), "run .venv/bin/python scripts/write_reference.py"


def test_the_table_of_modules_has_every_room_and_module() -> None:
    reference = script("write_reference")
    package = ROOT / "src" / "lungshift"
    rooms = {file.parent.name for file in package.glob("*/__init__.py")}
    found = [file for file in package.rglob("*.py") if not file.name.startswith("_")]

    assert set(reference["ROOMS"]) == rooms
    assert reference["tables"]().count("\n| `") == len(found)


def test_a_module_is_told_by_its_first_sentence_and_what_it_defines_for_others() -> None:
    reference = script("write_reference")
    source = ast.parse(
        '"""Cats (after Tom et al. 1940), on\none page. Dogs are elsewhere."""\n'
        "from dogs import Dog\n"
        'LIVES = 9\n"""How often a cat may fall."""\n'
        "legs = 4\n"
        "class Cat: ...\n"
        "def _scratch(): ...\n"
        "def purr(): ...\n"
    )

    assert reference["first_sentence"](source) == "Cats (after Tom et al. 1940), on one page."
    assert reference["public_names"](source) == ["LIVES", "Cat", "purr"]


def test_the_table_of_arms_has_every_arm_and_no_other() -> None:
    arms = first_column((ROOT / "docs" / "studies.md").read_text(), "## Arms")

    assert arms == list(ARMS)


def test_every_public_name_stands_in_the_reference() -> None:
    import lungshift

    table = (ROOT / "docs" / "reference.md").read_text().partition("## From the top")[2].partition("\n## ")[0]

    assert set(re.findall(r"\b[A-Za-z_]\w*\b", table)) >= set(lungshift.__all__) - {"__version__"}


@pytest.mark.parametrize("name", shipped_protocols())
def test_every_shipped_protocol_is_read(name: str) -> None:
    protocol = read_protocol(name)

    assert isinstance(protocol, Protocol)
    assert (protocol.name, bool(protocol.description)) == (name, True)


def test_the_protocol_in_the_page_is_one() -> None:
    (text,) = blocks((ROOT / "docs" / "protocols.md").read_text(), "toml")

    assert parse_protocol(tomllib.loads(text)).budgets == (0, 1, 2, 4)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_example_is_python(page: Path) -> None:
    for block in blocks(page.read_text(), "python"):
        compile(block, page.name, "exec")


def test_every_public_name_of_an_example_exists() -> None:
    import lungshift

    used = {name for page in PAGES for block in blocks(page.read_text(), "python") for name in _used(block)}

    assert used <= set(lungshift.__all__)


def test_every_error_code_is_listed_and_every_listed_one_can_come() -> None:
    raised = set(re.findall(r"\"(E_[A-Z0-9_]+)[\":]", SOURCES))
    listed = set(re.findall(r"`(E_[A-Z0-9_]+)`", (ROOT / "docs" / "reference.md").read_text()))

    assert raised == listed


def test_the_exit_codes_are_those_of_the_readme() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), flags=re.M)}

    assert {0, 2, 130} | {error.exit_code for error in _tree(LungshiftError)} == codes


def test_the_worked_example_of_the_concepts_prints_what_stands_below_it(capsys: pytest.CaptureFixture) -> None:
    text = (ROOT / "docs" / "concepts.md").read_text()
    code, printed = re.findall(r"^```python\n(.*?)^```\n\n```\n(.*?)^```", text, flags=re.S | re.M)[0]

    exec(compile(code, "concepts.md", "exec"), {})

    assert capsys.readouterr().out == printed


def test_the_manifests_of_the_how_to_are_read(tmp_path: Path) -> None:
    import numpy as np

    from lungshift.ct.geometry import Geometry
    from lungshift.ct.volume import Volume
    from lungshift.files import sha256
    from lungshift.io.cohort import read_cohort
    from lungshift.io.writing import write_volume

    text = (ROOT / "docs" / "how-to.md").read_text()
    grid = Geometry.regular((2, 3, 4), (5, 1, 1))
    for part in ("volume", "lung", "lesion"):
        for name in ("001", "002"):
            voxels = np.arange(24, dtype=np.int16).reshape(grid.shape)
            write_volume(Volume(voxels, grid), tmp_path / part / f"{name}.nii.gz")
    (toml,) = (block for block in blocks(text, "toml") if "[[case]]" in block)
    digest = sha256(tmp_path / "volume" / "002.nii.gz")
    (tmp_path / "manifest.toml").write_text(re.sub(r'volume_sha256 = ".*"', f'volume_sha256 = "{digest}"', toml))
    (csv,) = blocks(text, "csv")
    (tmp_path / "other.csv").write_text(csv)

    for path in ("manifest.toml", "other.csv"):
        cohort = read_cohort(tmp_path / path)
        assert (cohort.name, cohort.patients, [case.case_id for case in cohort.cases]) == (
            "hospital-c",
            ("P7",),
            ["001", "002"],
        )


def _used(block: str) -> list[str]:
    return re.findall(
        r"\blungshift\.([A-Za-z_]\w*)\b(?=[.(\[,)])", re.sub(r"^(from|import) .*$", "", block, flags=re.M)
    )


def _tree(error: type[LungshiftError]) -> list[type[LungshiftError]]:
    return [error, *(one for child in error.__subclasses__() for one in _tree(child))]
