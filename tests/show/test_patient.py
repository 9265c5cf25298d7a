"""The page of one patient and its files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from chests import chest, threshold_model
from lungshift.ct.volume import Mask
from lungshift.measure.repeats import Spread
from lungshift.patient.quantify import Patient, Quantities, quantify
from lungshift.show.patient import PAGE, answer, render_patient, summary, write_patient
from lungshift.show.words import RESEARCH_ONLY

NAMED = {"file": "miller^anna.nii.gz", "PatientID": "4711-0815"}


@pytest.fixture(scope="module")
def plain() -> Quantities:
    case = chest(slices=12)
    return quantify(case, case.lesion)


@pytest.fixture(scope="module")
def barred() -> Quantities:
    return quantify(chest(slices=12), None, [threshold_model()], retakes=3, device="cpu", flags=("Look <here>.",))


@pytest.fixture(scope="module")
def page(barred: Quantities) -> str:
    return render_patient(barred, Patient(barred.case))


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*?</style>", "", html))).replace(
        "\u00a0", " "
    )


def test_the_answer_says_percent_millilitres_place_and_score(plain: Quantities) -> None:
    told = answer(plain).replace("\u00a0", " ")

    assert re.match(
        r"Lesion takes up [\d.]+ % of the lungs: [\d.]+ ml, \d+ % of it in the (right|left) \w+ third\.", told
    )
    assert told.endswith("CT severity score 6 of 24.")


def test_the_answer_has_limits_where_there_are_any(barred: Quantities) -> None:
    assert "(95 % limits of repeats " in answer(barred)


def test_no_lesion_is_said_with_how_much_lung_was_looked_at() -> None:
    case = chest()
    found = quantify(case, Mask(np.zeros_like(case.lesion.voxels), case.lesion.geometry))

    assert answer(found) == "No lesion was found in 237\u00a0ml of lung."


def test_the_page_has_its_answer_flags_definitions_and_says_what_it_is_for(page: str, barred: Quantities) -> None:
    told = text_of(page)

    assert answer(barred).replace("\u00a0", " ") in told
    assert "Look &lt;here&gt;." in page
    assert told.count(RESEARCH_ONLY) == 2
    for words in ("equal in height", "−200 HU and more", "Ooi et al.", "not how right it is", "another breath"):
        assert words in told


def test_the_page_needs_no_network_and_runs_no_script(page: str) -> None:
    class Loads(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag != "script"
            self.found += [value or "" for name, value in attrs if name in ("src", "href")]

    parser = Loads()
    parser.feed(page)

    assert parser.found
    assert all(link.startswith("data:") for link in parser.found)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_without_a_model_there_are_no_limits_and_the_page_says_why(plain: Quantities) -> None:
    told = text_of(render_patient(plain, Patient(plain.case)))

    assert "95 % limits" not in told
    assert "No error bars: no model was given." in told


def test_nobody_is_named_unless_it_is_asked_for(page: str, barred: Quantities) -> None:
    named = render_patient(barred, Patient(barred.case, identity=NAMED))

    assert all(value in named for value in NAMED.values())
    assert not any(value in page for value in NAMED.values())


def test_a_zone_without_lung_is_undefined_in_words() -> None:
    case = chest(slices=12)
    right = Mask(case.lung.voxels & (np.arange(64) < 32), case.lung.geometry)
    found = quantify(replace(case, lung=right), case.lesion)
    told = text_of(render_patient(found, Patient(found.case)))

    assert "undefined: no lung there" in told
    assert "undefined: a zone has no lung" in told


def test_files_hold_every_number_with_its_limits(barred: Quantities, tmp_path: Path) -> None:
    text = write_patient(barred, Patient(barred.case, checksums={"scan": ("abc",)}), tmp_path)
    rows = {row["quantity"]: row for row in csv.DictReader((tmp_path / "quantities.csv").open())}
    told = json.loads((tmp_path / "quantities.json").read_text())

    assert set(rows) == set(barred.burden.quantities())
    assert float(rows["lesion_ml"]["value"]) == pytest.approx(barred.burden.whole.lesion_ml)
    assert float(rows["lesion_ml"]["low"]) == pytest.approx(barred.limits("lesion_ml")[0])
    assert (rows["right_lower_percent"]["region"], rows["right_lower_percent"]["unit"]) == ("right_lower", "%")
    assert rows["lung_ml"]["sd"] == ""
    assert told["input_sha256"] == {"scan": ["abc"]}
    assert (told["use"], told["repeatability"]["retakes"], told["lung_source"]) == (RESEARCH_ONLY, 3, "reader")
    assert len(told["lesions"]) == len((tmp_path / "lesions.csv").read_text().splitlines()) - 1
    assert str(tmp_path / PAGE) in text


def test_the_terminal_says_the_same_in_a_hundred_columns(barred: Quantities) -> None:
    told = summary(barred)

    assert RESEARCH_ONLY in told
    assert all(len(line) <= 100 for line in told.splitlines())


def test_the_same_numbers_give_the_same_page(plain: Quantities) -> None:
    assert render_patient(plain, Patient(plain.case)) == render_patient(plain, Patient(plain.case))


def test_limits_do_not_leave_what_a_quantity_can_be(plain: Quantities) -> None:
    wide = replace(plain, spreads={"percent": Spread(500.0, 5.0, 6), "severity_score": Spread(50.0, 5.0, 6)})

    assert wide.limits("percent") == (0.0, 100.0)
    assert wide.limits("severity_score") == (0.0, 24.0)


@pytest.mark.parametrize("flags", [0, 8], ids=["no flags", "eight flags"])
def test_in_print_it_is_one_sheet(flags: int, barred: Quantities, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    browser = Path("/usr/bin/chromium")
    if not browser.is_file():
        pytest.skip("there is no chromium here")
    long = tuple(
        "A rather long flag that says what is odd about this scan and what to do about it. " * 2 for _ in range(flags)
    )
    file = tmp_path / "page.html"
    file.write_text(render_patient(replace(barred, flags=long), Patient(barred.case, identity=NAMED)))
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=str(browser), args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(file.as_uri())
        pdf = tab.pdf(prefer_css_page_size=True)
        chromium.close()

    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == 1
