"""The page of findings: every one with its picture, nothing that could run or reach out, and decisions by keyboard."""

from __future__ import annotations

import base64
import io
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
from lungshift.prepare.prepared import PreparedCase
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


def suspects(belief: float = 0.9) -> list[Judged]:
    case = PreparedCase("c<1>", "p", 10, SIZE, SIZE, (5.0, 2.0, 2.0), "reader")
    return [Judged("north & south", case, one, belief, SIZE) for one in find_suspects(opinion())]


OTHER = Finding(
    "lesion-outside-lung", "c<1>", "error", "9 voxels <script>alert(1)</script>", "Erase.", "north & south",
    slices=(4, 5), voxels=9, seat=(4, 15, 9),
)  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, ...]:
    return entries_of(suspects(), [OTHER], lambda *_: (opinion(), 0))


@pytest.fixture(scope="module")
def page(entries: tuple[Entry, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    worth = Worth(
        Estimate(0.78, 0.7, 0.8, 9, "lesion_slices", "dice"),
        {10: Estimate(0.83, 0.8, 0.9, 9, "lesion_slices", "dice")},
        "lesion_slices",
    )
    path = tmp_path_factory.mktemp("page") / "audit.html"
    return write_worklist(entries, path, names=["north & south"], worth={"north & south": worth})


def picture(uri: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), dtype=int)


def test_every_finding_has_its_slice_its_neighbours_and_the_whole_lungs(entries: tuple[Entry, ...]) -> None:
    assert [len(entry.pictures) for entry in entries] == [6, 6]
    assert [entry.finding.code for entry in entries] == ["missing-lesion", "lesion-outside-lung"]


def test_the_suspect_is_tinted_on_the_patients_left_which_is_right_in_the_picture(entries: tuple[Entry, ...]) -> None:
    plain, marked = picture(entries[0].pictures[0]), picture(entries[0].pictures[1])
    redder = (marked[..., 0] - marked[..., 2]) - (plain[..., 0] - plain[..., 2]) > 40

    assert redder[:, redder.shape[1] // 2 :].sum() > 10 * max(1, redder[:, : redder.shape[1] // 2].sum())


def test_head_is_up_in_the_view_from_the_front(entries: tuple[Entry, ...]) -> None:
    """The suspect is in slices 2 to 7 of 10, below the middle: nearer to the foot it must be lower."""
    view = picture(entries[0].pictures[4])
    red = np.argwhere(view[..., 0] - view[..., 2] > 90)

    assert red[:, 0].mean() > 0.45 * view.shape[0]


def test_words_of_a_finding_are_escaped_and_no_network_is_allowed(page: Path) -> None:
    text = page.read_text()

    assert "<script>alert" not in text
    assert "north &amp; south" in text
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"#]", text)
    assert "Research use only" in text


def test_the_answer_bounds_the_score(page: Path) -> None:
    text = page.read_text()

    assert (
        "is 0.78 if none of the first 10 findings is right, as the labels are now, and 0.83 if all of them are" in text
    )


def test_a_case_that_cannot_be_shown_is_listed_without_picture(tmp_path: Path) -> None:
    (entry,) = entries_of([], [OTHER], lambda *_: None)

    text = write_worklist([entry], tmp_path / "audit.html", names=["x"]).read_text()

    assert entry.pictures == ()
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
