"""The page of findings: every one with its picture, nothing that could run or reach out, and decisions by keyboard."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lungshift.audit.finding import Finding
from lungshift.audit.judged import Judged
from lungshift.audit.suspects import Opinion, find_suspects
from lungshift.measure.interval import Estimate
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.prepared import PreparedCase
from lungshift.show.shots import Seen
from lungshift.show.worklist import Entry, entries_of, write_worklist
from lungshift.transfer.auditing import Worth

SIZE = 48


def opinion() -> Opinion:
    """A chest of two lungs; the reader marked the patient's right lesion only, networks see both."""
    lung = np.zeros((10, SIZE, SIZE), bool)
    lung[:, 8:40, 4:20] = lung[:, 8:40, 28:44] = True
    marked, seen = np.zeros(lung.shape, bool), np.zeros(lung.shape, bool)
    marked[3:7, 14:22, 8:16] = True
    seen[3:7, 14:22, 8:16] = seen[2:8, 20:30, 32:42] = True
    hu = np.where(lung, np.where(seen, -300, -850), 30).astype(np.int16)
    sure = np.where(seen, 0.9, 0.0).astype(np.float32)
    return Opinion(marked, sure, seen.astype(np.float32), sure * 0, hu, lung, (5.0, 2.0, 2.0))


def look(*_: str) -> Seen:
    return Seen(opinion(), 0, SliceGrid(SIZE, SIZE, SIZE))


def suspects(belief: float = 0.9) -> list[Judged]:
    case = PreparedCase("c<1>", "p", 10, SIZE, SIZE, (5.0, 2.0, 2.0), "reader")
    return [Judged("north & south", case, one, belief, SIZE) for one in find_suspects(opinion())]


OTHER = Finding(
    "lesion-outside-lung", "c<1>", "error", "9 voxels <script>alert(1)</script>", "Erase.", "north & south",
    slices=(4, 5), voxels=9, seat=(4, 15, 9),
)  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, ...]:
    return entries_of(suspects(), [OTHER], look)


@pytest.fixture(scope="module")
def page(entries: tuple[Entry, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    worth = Worth(
        Estimate(0.78, 0.7, 0.8, 9, "lesion_slices", "dice"),
        {
            10: Estimate(0.83, 0.8, 0.9, 9, "lesion_slices", "dice"),
            20: Estimate(0.85, 0.8, 0.9, 9, "lesion_slices", "dice"),
        },
        "lesion_slices",
    )
    path = tmp_path_factory.mktemp("page") / "audit.html"
    return write_worklist(entries, path, names=["north & south"], worth={"north & south": worth})


def test_words_of_a_finding_are_escaped_and_no_network_is_allowed(page: Path) -> None:
    text = page.read_text()

    assert "<script>alert" not in text
    assert "north &amp; south" in text
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"#]", text)
    assert "Research use only" in text


def test_the_answer_bounds_the_score_by_the_longest_list_alone(page: Path) -> None:
    (answer,) = re.findall(r'<p class="answer">(.*?)</p>', page.read_text(), re.DOTALL)

    assert "0.78 against the labels as they are, and would be 0.85 were all of the first 20 findings right" in answer
    assert "0.83" not in answer


def test_every_bound_is_explained_with_its_interval_and_its_way_of_averaging(page: Path) -> None:
    text = page.read_text()

    assert "0.83 [0.80, 0.90] with the first 10" in text
    assert "mean over slices with lesion" in text


def test_no_score_is_given_where_nothing_is_left_to_average(tmp_path: Path) -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0, "lesion_slices", "dice")
    worth = {"x": Worth(nothing, {10: nothing}, "lesion_slices")}

    text = write_worklist([], tmp_path / "audit.html", names=["x"], worth=worth).read_text()

    assert "would be" not in text
    assert "Nothing was found" in text


def test_what_networks_doubt_comes_under_one_heading_and_the_rest_under_another(page: Path) -> None:
    text = page.read_text()
    marks = ["networks that never saw the patient doubt", "belief 90 %", "Found without networks", "Lesion where there is no lung"]  # fmt: skip

    assert [text.index(one) for one in marks] == sorted(text.index(one) for one in marks)


def test_findings_that_are_not_on_the_page_are_counted(entries: tuple[Entry, ...], tmp_path: Path) -> None:
    text = write_worklist(entries, tmp_path / "audit.html", names=["x"], left_out=5).read_text()

    assert "2 places where a label may be wrong, the first of 7" in text


def test_a_case_that_cannot_be_shown_is_listed_without_picture(tmp_path: Path) -> None:
    (entry,) = entries_of([], [OTHER], lambda *_: None)

    text = write_worklist([entry], tmp_path / "audit.html", names=["x"]).read_text()

    assert entry.shots == ()
    assert "No picture" in text


def test_decisions_are_made_by_keyboard_and_saved_as_a_file(page: Path, entries: tuple[Entry, ...]) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(accept_downloads=True)
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.as_uri())
        tab.keyboard.press("a")
        tab.keyboard.press("r")
        assert tab.inner_text("#progress") == "2 of 2 decided"
        tab.keyboard.press("z")
        assert tab.inner_text("#progress") == "1 of 2 decided"
        tab.click(f"#f{entries[1].identity} button[data-decide=unsure]")
        with tab.expect_download() as waiting:
            tab.click("#save")
        saved = json.loads(Path(waiting.value.path()).read_text())
        browser.close()

    assert saved["format"] == 1
    assert saved["decisions"] == {entries[0].identity: "accept", entries[1].identity: "unsure"}
    assert said == []
