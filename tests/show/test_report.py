import csv
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lungshift.errors import ResourceError
from lungshift.show import report, tables, words
from lungshift.show.drawing import Drawing
from lungshift.show.report import flatten, plain, write_report
from lungshift.transfer.outcome import CohortSummary, Run

HOSTILE = "<script>alert(1)</script>\"'&"
GROUPS = ("curves", "forgetting", "cases", "drop", "examples", "training")


class Page(HTMLParser):
    """What a browser would see: tags, text, and tables as rows of cells with their exact values."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.text, self.open = [], [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "table":
            self.open = {"head": "", "rows": []}
            self.tables.append(self.open)
        elif self.open and tag == "tr":
            self.open["rows"].append([])
        elif self.open and tag in ("td", "th"):
            self.open["rows"][-1].append({"text": "", "values": []})
        elif self.open and tag == "data":
            self.open["rows"][-1][-1]["values"].append(attrs["value"])

    def handle_endtag(self, tag):
        if tag == "table":
            self.open = None

    def handle_data(self, data):
        self.text += data
        if self.open is None or not data.strip():
            return
        if not self.open["rows"]:
            self.open["head"] += data
        elif self.open["rows"][-1]:
            self.open["rows"][-1][-1]["text"] += data

    def table(self, *titles):
        """The first table whose header row holds all of these."""
        return next(t for t in self.tables if all(any(title in c["text"] for c in t["rows"][0]) for title in titles))


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


EMPTY = [Drawing(group, group, "caption", "alt", b"", b"") for group in GROUPS]
"""Real figures take most of the time."""


@pytest.fixture
def page_of(monkeypatch, tmp_path):
    """Writes a report with empty figures; reads its page."""
    monkeypatch.setattr(report, "draw_all", lambda outcome, table: EMPTY)
    return lambda outcome, folder=tmp_path: Page(write_report(outcome, folder).read_text())


@pytest.fixture(scope="module")
def rich_page(tmp_path_factory, rich):
    """The page of the rich study, and as ``folder`` where its files lie."""
    folder = tmp_path_factory.mktemp("rich")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_all", lambda outcome, table: EMPTY)
        page = Page(write_report(rich, folder).read_text())
    page.folder = folder
    return page


def paper_cohorts():
    return (
        CohortSummary("medseg9", 9, 9, 829, 713, 373, ("reader",)),
        CohortSummary("coronacases10", 10, 10, 2581, 2170, 1351, ("reader",)),
    )


def test_all_files_are_written(outcome_of, tmp_path):
    page = write_report(outcome_of(), tmp_path / "new")
    assert page == tmp_path / "new" / "report.html"
    names = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}
    figures = {"cases", "training-01-source", "example-01-bad"}
    figures |= {f"{group}-{name}" for group in ("curves", "matrix") for name in ("lesion-slices", "per-case")}
    numbers = {f"{name}.{kind}" for name in ("table", "matrix", "patients", "claims") for kind in ("csv", "json")}
    assert names == {"report.html", "counts.csv", "outcome.json"} | numbers | {
        f"figures/{name}.{kind}" for name in figures for kind in ("png", "svg")
    }


def test_everything_that_was_found_has_a_section_and_files(rich_page):
    found = {attrs["id"] for tag, attrs in rich_page.tags if tag == "section"}
    assert found == {
        "matrix", "curves", "cases", "leakage", "drop", "claims", "table", "examples", "conventions", "cohorts", "methods",
        "training", "manifest",
    }  # fmt: skip
    for name in ("table", "matrix", "patients", "claims", "leak", "drop", "twins"):
        assert lines(rich_page.folder / f"{name}.csv"), name
        assert json.loads((rich_page.folder / f"{name}.json").read_text()), name


def test_the_contents_lead_to_every_section_that_is_there_and_to_no_other(outcome_of, rich_page, page_of, tmp_path):
    for page in (rich_page, page_of(outcome_of(), tmp_path / "small"), page_of(outcome_of(runs=()), tmp_path / "none")):
        names = [tag for tag, _ in page.tags]
        contents = page.tags[names.index("nav") : names.index("main")]
        sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
        assert [attrs["href"] for tag, attrs in contents if tag == "a"] == [f"#{name}" for name in sections]
        assert {attrs["href"].removeprefix("#") for tag, attrs in page.tags if tag == "a"} <= set(sections)


def test_the_same_outcome_writes_the_same_bytes(outcome_of, page_of, tmp_path):
    for name in ("a", "b"):
        page_of(outcome_of(), tmp_path / name)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_hostile_ids_are_text(outcome_of, page_of, example_of, scores_of, tmp_path):
    run = Run("zero_shot", HOSTILE, "target", HOSTILE, 0, scores_of([(1, 1, 1, 61)] * 2, [HOSTILE] * 2))
    outcome = outcome_of(
        runs=(run,),
        examples=(example_of(HOSTILE),),
        cohorts=(CohortSummary(HOSTILE, 1, 1, 1, 1, 1, (HOSTILE,), HOSTILE), CohortSummary(HOSTILE, 1, 1, 1, 1, 1, ())),
        manifest={HOSTILE: [HOSTILE]},
    )
    page = page_of(outcome, tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(outcome_of, tmp_path):
    page = Page(write_report(outcome_of(cohorts=paper_cohorts()), tmp_path).read_text())
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 5
    assert all(len(source) > 1000 for source in pictures)
    targets = [
        attrs[name] for _, attrs in page.tags for name in ("src", "href", "srcset", "action", "data") if name in attrs
    ]
    assert all(target.startswith(("data:", "#")) for target in targets)
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script| on\w+=", html)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")


def test_the_page_of_a_rich_study_stays_small(rich_page):
    # Figures are not in it here; with them it is some 1.6 MB more.
    assert (rich_page.folder / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_number_names_its_convention(outcome_of, page_of, tmp_path, seeds):
    page = page_of(outcome_of(seeds=seeds, cohorts=paper_cohorts()), tmp_path)
    named = 0
    for table in page.tables:
        head = table["head"] + "".join(cell["text"] for cell in table["rows"][0])
        for row in table["rows"]:
            if any(cell["values"] for cell in row):
                named += 1
                assert any(name in head + row[0]["text"] + row[1]["text"] for name in tables.SHOWN)
    assert named >= 3 + 4 * 3 + 2 * 3


@pytest.mark.parametrize("leaky", [True, False])
def test_the_leak_is_named_wherever_numbers_are_if_and_only_if_there_is_one(outcome_of, page_of, tmp_path, leaky):
    page = page_of(outcome_of(leaky=leaky, cohorts=paper_cohorts()), tmp_path)
    banners, sections, section = {}, ("table", "matrix", "curves", "cases", "examples", "training", "cohorts"), ""
    for _, attrs in page.tags:
        section = attrs.get("id", section)
        banners[section] = banners.get(section, 0) + (attrs.get("class") == "leak")
    assert banners[""] == leaky
    assert all(bool(banners[name]) is leaky for name in sections)
    assert (words.LEAK_WARNING in page.text) is leaky
    assert (words.LEAK_INTERVALS in page.text) is leaky
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["leaky_split"] is leaky
    assert bool(stored["warning"]) is leaky


def test_f1_on_the_page_is_that_of_the_csv(rich_page):
    stored = {
        (line["arm"], line["role"], line["labels"], line["convention"]): line["f1"]
        for line in lines(rich_page.folder / "table.csv")
        if line["seed"] == "all" and line["region"] == "whole_slice"
    }
    shown = [
        row for row in rich_page.table("Model", "F1, lesion_slices")["rows"] if any(cell["values"] for cell in row)
    ]
    assert len(shown) == 1 + 4 + 15 + 15
    keys = list(dict.fromkeys(key[:3] for key in stored))
    for key, row in zip(keys, shown, strict=True):
        assert [cell["values"][0] for cell in row[2:]] == [stored[(*key, name)] for name in tables.SHOWN]
        assert row[1]["text"] == (key[2] if key[2] != "0" else "none")


def test_the_details_hold_every_ratio_of_the_csv(outcome_of, page_of, tmp_path):
    page = page_of(outcome_of())
    stored = [line for line in lines(tmp_path / "table.csv") if line["convention"] == "lesion_slices"]
    whole, lung = ([line for line in stored if line["region"] == region] for region in ("whole_slice", "in_lung"))
    rows = page.table("Convention", "Precision")["rows"][1:]
    for row, line, inside in zip(rows, whole, lung, strict=True):
        values = [value for cell in row for value in cell["values"]]
        expected = [line["accuracy"], line["background_accuracy"], inside["accuracy"], inside["background_accuracy"]]
        assert values == [*expected, line["precision"], line["recall"], line["f1"]]


def test_undefined_is_a_word_on_the_page_and_null_in_json(outcome_of, page_of, run_of, tmp_path):
    page = page_of(outcome_of(runs=(run_of("zero_shot", [(0, 0, 0, 64)] * 2),)))
    row = next(row for row in page.table("Convention", "Precision")["rows"] if "Target" in row[0]["text"])
    assert sum(cell["text"].count("undefined") for cell in row) == 7
    assert not any(cell["values"] for cell in row)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    stored = next(row for row in rows if row["convention"] == "lesion_slices")
    assert stored["f1"] is None
    assert stored["f1_n"] == 0


def test_the_answer_stands_before_the_claims_and_both_before_the_numbers(rich_page):
    text = rich_page.text
    places = [text.index(part) for part in ("Does a lesion model", "By F1", "What can be claimed", "F1, lesion_slices")]
    assert all(first < second for first, second in pairwise(places))
    assert text.count("over no retraining") >= 3 * 5 + 3


def test_long_tables_are_folded_away_and_print_unfolded(rich_page):
    names = [tag for tag, _ in rich_page.tags]
    first = names.index("details")
    assert names[:first].count("table") <= 4
    assert names.count("details") > 8
    printed = (rich_page.folder / "report.html").read_text().split("@media print")[1]
    assert "details::details-content { content-visibility: visible !important" in printed


def test_a_seed_by_seed_table_stands_only_where_there_are_several(outcome_of, rich_page, page_of):
    assert "Seed by seed" not in page_of(outcome_of()).text
    rows = rich_page.table("Seed 0", "Seed 2")["rows"][1:]
    assert len(rows) == 35
    assert all(len(row) == 5 for row in rows)


def test_the_price_of_leakage_is_a_table_with_its_sentence(rich_page, outcome_of, page_of):
    rows = rich_page.table("Split", "F1, lesion_slices")["rows"][1:]
    assert [row[0]["text"].split("5 patients")[0] for row in rows] == [
        "Split by slice leaky",
        "Split by case leaky",
        "Split by patient",
    ]
    assert "A split by slice changes F1" in rich_page.text
    assert "price of leakage" not in page_of(outcome_of()).text.lower()


def test_the_drop_is_told_cause_by_cause(rich_page):
    rows = {row[0]["text"]: row for row in rich_page.table("Difference", "Found")["rows"][1:]}
    assert [cell["text"] for cell in rows["CT values"][2:5]] == ["0.600", "+0.1000.040–0.160", "42 %"]
    assert rows["slice thickness"][2]["text"] == "not tried"
    assert "Of the drop of 0.240 (0.110–0.360), the largest part found is CT values" in " ".join(rich_page.text.split())
    assert lines(rich_page.folder / "drop.csv")[-1]["gained"] == ""


def test_twins_are_listed_or_said_not_to_be_there_if_they_were_looked_for(rich_page, outcome_of, page_of, tmp_path):
    assert "radiopaedia-10" in rich_page.table("One scan or patient")["rows"][1][1]["text"]
    clean = page_of(outcome_of(manifest={"looked_for_twins": True}), tmp_path / "clean")
    assert "none found among 7 cases" in clean.text
    assert "none found" not in page_of(outcome_of(), tmp_path / "unasked").text


def test_a_chain_has_its_matrix_and_what_it_forgot(chain, page_of, tmp_path):
    page = page_of(chain)
    rows = page.table("Trained on", "north")["rows"]
    assert [row[0]["text"] for row in rows[1:]] == ["north", "north → south", "north → south → west"]
    backward = page.table("Backward")["rows"][1:]
    assert backward[0][2]["text"].startswith("−")
    assert backward[2][2]["text"] == "none"
    stored = {
        (line["trained_on"], line["tested_on"], line["convention"]): float(line["f1"])
        for line in lines(tmp_path / "matrix.csv")
    }
    lost = stored["north → south → west", "north", "lesion_slices"] - stored["north", "north", "lesion_slices"]
    assert float(backward[0][2]["text"].replace("−", "-")) == pytest.approx(lost, abs=5e-4)


def test_leave_one_out_has_a_column_for_each_cohort(leave_one_out, page_of):
    page = page_of(leave_one_out)
    rows = page.table("Trained on", "west")["rows"]
    assert [row[0]["text"] for row in rows[1:]] == ["itself", "all others"]
    assert all(cell["values"] for row in rows[1:] for cell in row[1:])
    assert "Labelled" not in "".join(cell["text"] for table in page.tables for cell in table["rows"][0])


def test_the_paper_is_shown_beside_its_own_cohorts_only(outcome_of, page_of, tmp_path):
    ours = page_of(outcome_of(), tmp_path / "ours")
    paper = page_of(outcome_of(cohorts=paper_cohorts()), tmp_path / "paper")
    assert "2205.02152" not in ours.text
    assert "Beside the paper" not in ours.text
    assert "2205.02152" in paper.text
    assert "paper 0.614" in paper.text


def test_the_page_says_research_use_only_and_explains_each_convention(outcome_of, page_of, tmp_path):
    text = page_of(outcome_of(), tmp_path).text
    assert text.count(words.RESEARCH_ONLY) >= 2
    assert all(words.CONVENTION_WORDS[name] in text for name in tables.SHOWN)


def test_split_cohorts_and_manifest_are_on_the_page(outcome_of, page_of, tmp_path):
    text = page_of(outcome_of(), tmp_path).text
    for part in ("p1, p2", "threshold", "CC0", "versions.lungshift", "0.1.0", "training.learning_rate"):
        assert part in text


def test_outcome_json_holds_what_the_study_was_and_found(rich_page):
    stored = json.loads((rich_page.folder / "outcome.json").read_text())
    assert stored["protocol"]["name"] == "robust-folds"
    assert len(stored["histories"][0]["epochs"]) == 40
    assert len(stored["splits"][0]["patients"]["test"]) == 4
    assert {run["fold"] for run in stored["runs"]} == {0, 1}
    assert {run["labels"] for run in stored["runs"]} == {0, 1, 2, 4}
    assert stored["explanation"]["causes"][0]["name"] == "hu"
    assert {"averages", "manifest", "cohorts", "examples", "leak", "twins"} <= set(stored)


def test_an_outcome_of_nothing_still_makes_a_page(outcome_of, page_of, tmp_path):
    page = page_of(outcome_of(runs=(), histories=(), examples=(), splits=(), manifest={}), tmp_path)
    assert "Nothing was tested on beta." in page.text


def test_a_full_disk_leaves_the_old_page_as_it_was(outcome_of, page_of, tmp_path, monkeypatch):
    page_of(outcome_of())
    page = tmp_path / "report.html"
    before = page.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError):
        write_report(outcome_of(leaky=True), tmp_path)
    assert page.read_bytes() == before
    assert not list(tmp_path.rglob(".part-*"))


def test_plain_makes_json_of_what_manifests_hold():
    value = {"path": Path("a/b"), "n": np.int64(3), "list": np.array([1.5]), "inf": math.inf, 1: {2}}
    assert plain(value) == {"path": "a/b", "n": 3, "list": [1.5], "inf": "inf", "1": [2]}


def test_flatten_makes_lines_of_nested_values():
    value = {"a": {"b": [1, 2]}, "c": [{"d": None}], "e": {}}
    assert list(flatten(value)) == [("a.b", "1, 2"), ("c[0].d", "undefined"), ("e", "")]
