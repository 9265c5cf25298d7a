"""How large the viewer's page is, and how soon it is ready without a graphics card.

    .venv/bin/python -m benchmarks.viewer --output docs/benchmarks/viewer.md

A phantom scan of about 300 slices of 512 x 512 with the noise of thin slices, its lungs, a reader's lesions and a shifted copy as the
model's, as one date and as two. Chromium opens the page from a file, without a network, with WebGL in software. Ready is when
everything has been drawn and read back. The wall clock is the reader's time and depends on what else the machine does: the load
is written down, and beside it the CPU seconds of all of the browser's processes, which depend on it less.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from lungshift.ct.case import Case
from lungshift.ct.volume import Mask
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import Site
from lungshift.show.viewer import ViewerDate, write_viewer

_SITE = Site(name="thin", slice_mm=1.0, pixel_mm=0.7, size=512, noise_hu=60, noise_texture_mm=1.5, sharpness_mm=1.2)
_ILL = Lesions(mild=0, moderate=0, severe=1, effusion=0)
_GL = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def main() -> None:
    """Write the pages, open each a few times, print and write the table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    dates = [
        _date("day 0", phantom_case(3, 1, _SITE, lesions=_ILL)),
        _date("day 7", phantom_case(3, 1, _SITE, lesions=_ILL, visit=1)),
    ]
    rows = [_row(name, some, asked.rounds) for name, some in (("one date", dates[:1]), ("two dates", dates))]
    text = _page(dates[0].case, rows, asked.rounds)
    print(text)
    if asked.output:
        asked.output.write_text(text)


def _date(label: str, case: Case) -> ViewerDate:
    return ViewerDate(label, case, Mask(np.roll(case.lesion.voxels, (1, 3, 3), (0, 1, 2)), case.lesion.geometry))


def _row(name: str, dates: list[ViewerDate], rounds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = write_viewer(Path(folder) / "viewer.html", dates)
        writing = time.process_time() - start
        load = os.getloadavg()[0]
        opened = [_open(path) for _ in range(rounds)]
        best = min(opened)
        cpu = min(one[1] for one in opened)
        return f"| {name} | {path.stat().st_size / 1e6:.1f} MB | {writing:.1f} s | {best[0]:.1f} s | {cpu:.1f} s | {load:.1f} |"


def _open(path: Path) -> tuple[float, float]:
    """Seconds until the page is ready, by its own clock, and CPU seconds of the browser in that time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_GL)
        page = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
        page.goto("about:blank")
        before = _cpu()
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=180_000)
        ready = float(page.get_attribute("html", "data-ready") or "nan") / 1000
        spent = _cpu() - before
        browser.close()
    return ready, spent


def _cpu() -> float:
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            if "chrom" in child.name():
                times = child.cpu_times()
                total += times.user + times.system
        except psutil.Error:
            continue
    return total


def _page(case: Case, rows: list[str], rounds: int) -> str:
    slices, high, wide = case.volume.geometry.shape
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    return "\n".join(
        [
            "# The viewer: size, and time until it is ready",
            "",
            "```",
            "python -m benchmarks.viewer --output FILE",
            "```",
            "",
            about,
            "",
            f"The scan has {slices} slices of {high} x {wide}. Best of {rounds} times; {os.cpu_count()} cores. The goal is under 15 MB and 10 s.",
            "",
            "| page | size | writing it, CPU | ready, wall clock | ready, CPU | load before |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
