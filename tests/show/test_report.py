import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lungshift.errors import ResourceError
from lungshift.show import report, tables, words
from lungshift.show.figures import Drawing
from lungshift.show.report import flatten, plain, write_report
from lungshift.transfer.outcome import CohortSummary, Run

HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, table rows of the numbers tables, text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.rows, self.text, self.depth = [], [], "", 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "table":
            self.depth = attrs.get("class") == "numbers"
        if tag == "tr" and self.depth:
            self.rows.append({"text": "", "values": [], "group": attrs.get("class") == "group"})
        if tag == "data" and self.depth:
            self.rows[-1]["values"].append(attrs["value"])

    def handle_endtag(self, tag):
        self.depth = self.depth and tag != "table"

    def handle_data(self, data):
        self.text += data
        if self.depth and self.rows:
            self.rows[-1]["text"] += data

    def number_rows(self):
        return [row for row in self.rows if row["values"] and not row["group"]]


@pytest.fixture
def page_of(monkeypatch, tmp_path):
    """Writes a report with empty figures, as real ones take most of the time; reads its page."""
    drawings = [Drawing(group, group, "caption", "alt", b"", b"") for group in ("training", "cases", "examples")]
    monkeypatch.setattr(report, "draw_all", lambda outcome: drawings)
    return lambda outcome, folder=tmp_path: Page(write_report(outcome, folder).read_text())


def paper_cohorts():
    return {
        "source": CohortSummary("medseg9", 9, 9, 829, 713, 373, ("reader",)),
        "target": CohortSummary("coronacases10", 10, 10, 2581, 2170, 1351, ("reader",)),
    }


def test_all_files_are_written(outcome_of, tmp_path):
    page = write_report(outcome_of(), tmp_path / "new")
    assert page == tmp_path / "new" / "report.html"
    names = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}
    figures = {"cases", "training-01-source-seed-0", "example-01-bad"}
    assert names == {"report.html", "table.csv", "table.json", "counts.csv", "outcome.json"} | {
        f"figures/{name}.{kind}" for name in figures for kind in ("png", "svg")
    }


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
        source=CohortSummary(HOSTILE, 1, 1, 1, 1, 1, (HOSTILE,), HOSTILE),
        manifest={HOSTILE: [HOSTILE]},
    )
    page = page_of(outcome, tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_the_page_asks_nothing_of_the_network(outcome_of, tmp_path):
    page = Page(write_report(outcome_of(**paper_cohorts()), tmp_path).read_text())
    assert sum(tag == "img" for tag, _ in page.tags) == 3
    targets = [
        attrs[name] for _, attrs in page.tags for name in ("src", "href", "srcset", "action", "data") if name in attrs
    ]
    assert targets
    assert all(target.startswith("data:") for target in targets)
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", html)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_row_of_numbers_names_its_convention(outcome_of, page_of, tmp_path, seeds):
    rows = page_of(outcome_of(seeds=seeds, **paper_cohorts()), tmp_path).number_rows()
    assert len(rows) >= 4 * 3 + 2 * 3
    assert all(any(name in row["text"] for name in tables.SHOWN) for row in rows)


@pytest.mark.parametrize("leaky", [True, False])
def test_the_leak_is_named_wherever_numbers_are_if_and_only_if_there_is_one(outcome_of, page_of, tmp_path, leaky):
    page = page_of(outcome_of(leaky=leaky, **paper_cohorts()), tmp_path)
    banners = sum(attrs.get("class") == "leak" for _, attrs in page.tags)
    assert banners == (7 if leaky else 0)
    assert (words.LEAK_WARNING in page.text) is leaky
    assert (words.LEAK_INTERVALS in page.text) is leaky
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["leaky_split"] is leaky
    assert bool(stored["warning"]) is leaky


def test_numbers_on_the_page_are_those_of_the_csv(outcome_of, page_of, tmp_path):
    page = page_of(outcome_of(**paper_cohorts()), tmp_path)
    with open(tmp_path / "table.csv", newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if line["convention"] in tables.SHOWN]
    whole = [line for line in lines if line["region"] == "whole_slice"]
    lung = {(line["arm"], line["convention"]): line for line in lines if line["region"] == "in_lung"}
    shown = {(line["arm"], line["convention"]): line for line in whole}
    assert len(page.number_rows()) == 4 * 3 + 2 * 3
    arms = {"Source test": "source", "Target, without": "zero_shot", "Target, retrained": "fine_tuned"}
    for row in page.number_rows():
        arm = next(arm for words_, arm in arms.items() if words_ in row["text"])
        key = arm, next(name for name in tables.SHOWN if name in row["text"])
        ratios = [shown[key][name] for name in ("precision", "recall", "f1")]
        accuracies = [shown[key]["accuracy"], shown[key]["background_accuracy"]]
        accuracies += [lung[key]["accuracy"], lung[key]["background_accuracy"]]
        assert row["values"] in (accuracies + ratios, [accuracies[0], *ratios])


def test_undefined_is_a_word_on_the_page_and_null_in_json(outcome_of, page_of, scores_of, tmp_path):
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(0, 0, 0, 64)] * 2))
    page = page_of(outcome_of(runs=(run,)), tmp_path)
    row = next(row for row in page.rows if "lesion_slices" in row["text"] and "Target" in row["text"])
    assert row["text"].count("undefined") == 7
    assert row["values"] == []
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    stored = next(row for row in rows if row["convention"] == "lesion_slices")
    assert stored["f1"] is None
    assert stored["f1_n"] == 0


def test_the_paper_is_shown_beside_its_own_cohorts_only(outcome_of, page_of, tmp_path):
    ours = page_of(outcome_of(), tmp_path / "ours")
    paper = page_of(outcome_of(**paper_cohorts()), tmp_path / "paper")
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


def test_outcome_json_holds_what_the_study_was_and_found(outcome_of, page_of, tmp_path):
    page_of(outcome_of(), tmp_path)
    stored = json.loads((tmp_path / "outcome.json").read_text())
    assert stored["protocol"]["name"] == "tiny"
    assert stored["histories"][0]["epochs"][0]["score"] is None
    assert stored["splits"][0]["patients"]["test"] == ["p3", "p4"]
    assert {run["arm"] for run in stored["runs"]} == {"source", "zero_shot", "fine_tuned"}
    assert {"averages", "manifest", "source", "target", "examples"} <= set(stored)


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
