"""The viewer's page: what stands in it, and that it works in a browser without a network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grids import oblique
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, InputError
from lungshift.files import sha256
from lungshift.measure.lesions import find_lesions
from lungshift.show import viewer
from lungshift.show.coarse import coarse_geometry
from lungshift.show.figures import BOTH, PREDICTION, PREDICTION_ONLY, REFERENCE
from lungshift.show.viewer import VOXELS, ViewerDate, render_viewer, write_viewer
from lungshift.show.words import RESEARCH_ONLY

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

CHROMIUM = shutil.which("chromium")
SOFTWARE_GL = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
GRID = Geometry.regular((40, 44, 52), (6.0, 5.5, 5.0), (-130, -110, -700))
RIGHT, LEFT = (slice(6, 15), slice(12, 20), slice(9, 17)), (slice(24, 30), slice(26, 32), slice(36, 42))
PATIENT = "Zyxwvutson^Qponmlkia"


def chest(geometry: Geometry = GRID, *, grown: int = 0) -> Case:
    """A body with two lungs; a lesion low, in front, in the right lung, and a smaller one high, at the back, in the left."""
    hu, lung, lesion = np.full(geometry.shape, -1000, np.int16), *np.zeros((2, *geometry.shape), bool)
    hu[:, 3:41, 3:49] = 40
    lung[4:36, 8:36, 6:22] = lung[4:36, 8:36, 30:46] = True
    lesion[RIGHT] = lesion[LEFT] = True
    lesion[15 : 15 + grown, RIGHT[1], RIGHT[2]] = True
    hu[lung], hu[lesion] = -850, -450
    return Case(Volume(hu, geometry), Mask(lung, geometry), Mask(lesion, geometry), PATIENT, PATIENT)


def moved(case: Case, by: int) -> Mask:
    """The case's lesions as a model might see them: further to the left by some voxels."""
    assert case.lesion is not None
    return Mask(np.roll(case.lesion.voxels, by, axis=2), case.lesion.geometry)


@pytest.fixture(scope="module")
def text() -> str:
    return render_viewer([ViewerDate("day 0 <b>&", chest(), moved(chest(), 2), notes={1: "grown </script>"})])


def scene(text: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)[1])


def blob(text: str, name: str, kind: str) -> np.ndarray:
    packed = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', text, re.S)[1]
    return np.frombuffer(gzip.decompress(base64.b64decode(packed)), kind)


# ------------------------------------------------------------------------------------------------- the page as text


def test_the_page_may_load_nothing_and_run_only_its_own_scripts(text: str) -> None:
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]

    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert "script-src " + " ".join(f"'sha256-{one}'" for one in digests) + ";" in policy
    assert len(scripts) == 2


def test_the_page_names_no_address_to_fetch(text: str) -> None:
    without_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.S)

    assert not re.findall(r"""(?:src|href|action)=["'](?!data:,)[^"']*""", without_scripts)


def test_nobody_is_named_in_the_page(text: str) -> None:
    assert "Zyxwvutson" not in text
    assert "Qponmlkia" not in text


def test_labels_and_notes_cannot_become_markup(text: str) -> None:
    assert "<b>&" not in text
    assert "day 0 &lt;b&gt;&amp;" in text
    assert "grown &lt;/script&gt;" in text
    assert scene(text)["dates"][0]["label"] == "day 0 <b>&"


def test_the_page_says_what_it_is_for_and_whose_software_it_holds(text: str) -> None:
    assert RESEARCH_ONLY in text
    assert "Copyright (c) 2021, Niivue" in text
    assert "BSD 2-Clause License" in text


def test_the_library_is_the_published_one_unchanged() -> None:
    vendor = Path(viewer.__file__).parent / "vendor"

    assert sha256(vendor / "niivue-0.69.0.umd.js") in (vendor / "niivue-0.69.0.LICENSE.txt").read_text()


def test_without_scripts_the_lesions_can_still_be_read(text: str) -> None:
    case = chest()
    expected = find_lesions(case.lesion, case.volume)

    rows = re.findall(
        r'<tr data-date="0" data-mm="([^"]*)"><td><button type="button">(\d+)</button></td><td>(\w*)</td><td>([\d.]+)',
        text,
    )

    sizes = [f"{one.volume_ml:.2f}" for one in expected]
    assert [row[1:] for row in rows] == [("1", "right", sizes[0]), ("2", "left", sizes[1])]
    np.testing.assert_allclose(
        [[float(n) for n in mm.split()] for mm, *_ in rows], [GRID.world_mm(np.array(one.seat)) for one in expected]
    )


def test_voxels_of_the_page_are_the_scan_and_the_two_masks(text: str) -> None:
    case, prediction = chest(), moved(chest(), 2)
    date = scene(text)["dates"][0]

    hu = blob(text, date["hu"], "<i2").reshape(GRID.shape) * date["step"]
    classes = blob(text, date["classes"], "u1").reshape(GRID.shape)

    assert np.abs(hu - case.volume.hu).max() <= date["step"] / 2
    np.testing.assert_array_equal(classes, case.lesion.voxels + 2 * prediction.voxels)
    np.testing.assert_allclose(np.reshape(date["affine"], (3, 4)) @ (0, 0, 0, 1), (130, 110, -700))


def test_surfaces_lie_around_their_lesions(text: str) -> None:
    date = scene(text)["dates"][0]
    (surface,) = (one for one in date["surfaces"] if one["layer"] == "reference")

    points = surface["low"] + blob(text, surface["points"], "<u2").reshape(-1, 3) * surface["unit"]

    places = GRID.world_mm(np.argwhere(chest().lesion.voxels)) * (-1, -1, 1)
    half = np.array(GRID.spacing_mm[::-1]) / 2
    np.testing.assert_allclose(points.min(axis=0), places.min(axis=0) - half, atol=0.4 * half.max())
    np.testing.assert_allclose(points.max(axis=0), places.max(axis=0) + half, atol=0.4 * half.max())


def test_a_scan_without_lungs_and_lesions_is_still_shown() -> None:
    page = render_viewer([ViewerDate("day 0", Case(chest().volume))])

    assert scene(page)["dates"][0]["surfaces"] == []
    assert 'data-layer="lung"' not in page
    assert ">side</th>" not in page
    assert 'data-mode="agreement"' not in page


def test_lesions_beyond_the_list_are_counted() -> None:
    voxels = np.zeros(GRID.shape, bool)
    voxels[::4, ::4, ::4] = True

    page = render_viewer([ViewerDate("day 0", Case(chest().volume, lesion=Mask(voxels, GRID)))])

    assert page.count("data-mm=") == 200
    assert f"And {10 * 11 * 13 - 200} lesions more" in page


def test_an_empty_prediction_has_an_undefined_dice_with_an_empty_reference() -> None:
    nothing = Mask(np.zeros(GRID.shape, bool), GRID)

    assert "Dice undefined" in render_viewer([ViewerDate("day 0", Case(chest().volume, lesion=nothing), nothing)])


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = write_viewer(tmp_path / "viewer.html", [ViewerDate("day 0", chest())])

    assert path.read_text().endswith("</html>")
    assert [one.name for one in tmp_path.iterdir()] == ["viewer.html"]


def test_a_prediction_on_another_grid_is_refused() -> None:
    other = Geometry.regular(GRID.shape, (6.0, 5.5, 5.0), (0, 0, 0))

    with pytest.raises(GeometryError, match=r"day 0: scan and predicted lesions do not fit"):
        ViewerDate("day 0", chest(), Mask(np.zeros(GRID.shape, bool), other))


def test_a_date_without_a_label_is_refused() -> None:
    with pytest.raises(InputError, match="needs a label"):
        ViewerDate(" ", chest())


def test_dates_that_cannot_be_laid_over_each_other_are_refused() -> None:
    with pytest.raises(GeometryError, match="can be inverted"):
        ViewerDate("day 7", chest(), to_first=np.zeros((4, 4)))


def test_a_page_without_a_date_is_refused() -> None:
    with pytest.raises(InputError, match="needs a date"):
        render_viewer([])


def test_a_page_with_too_few_voxels_to_see_anything_is_refused() -> None:
    with pytest.raises(InputError, match="500000 voxels for each; got 2 dates, 999999 voxels"):
        render_viewer([ViewerDate("day 0", chest()), ViewerDate("day 7", chest())], voxels=999_999)


# ------------------------------------------------------------------------------------------------- the page in a browser


@dataclass(frozen=True)
class Tab:
    """An open viewer."""

    page: Any
    problems: list[str]

    def run(self, code: str) -> Any:
        """Run code that sees ``viewer``, wait until what it asked for is drawn, and return its value."""
        value = self.page.evaluate(
            f"async () => {{ const viewer = window.lungshiftViewer; const value = await ({code}); return value; }}"
        )
        self.page.evaluate(
            "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => {"
            " for (const pane of window.lungshiftViewer.panes) for (const nv of [pane.slices, pane.render])"
            " nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4)); go(); })))"
        )
        return value

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def set(self, selector: str, value: float) -> None:
        self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.value = {value};"
            " one.dispatchEvent(new Event('input')); })()"
        )

    def picture(self, selector: str) -> np.ndarray:
        """The pixels of an element, (row, column, RGB)."""
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.page.locator(selector).first.screenshot())).convert("RGB"), float)

    def cursor(self) -> np.ndarray:
        return np.array([float(one) for one in self.page.evaluate("document.documentElement.dataset.cursor").split()])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Tab]]:
    """Opens dates from ``file://`` in one browser that has no network."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("viewer")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        context = browser.new_context(offline=True, viewport={"width": 800, "height": 560})

        def open_dates(name: str, *dates: ViewerDate) -> Tab:
            path, problems = write_viewer(folder / f"{name}.html", dates), []
            page = context.new_page()
            page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "request",
                lambda asked: (
                    problems.append(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None
                ),
            )
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready], html[data-failed]", state="attached", timeout=120_000)
            page.add_style_tag(content=".tile { display: none !important; }")  # words and sliders over the canvases
            return Tab(page, problems)

        yield open_dates
        browser.close()


@pytest.fixture(scope="module")
def one(opened: Callable[..., Tab]) -> Tab:
    return opened("one", ViewerDate("day 0", chest(), moved(chest(), 2)))


_AS_OPENED = """(() => {
  for (const box of document.querySelectorAll("[data-layer]")) if (box.checked === (box.dataset.layer === "cursor")) box.click();
  for (const [name, value] of Object.entries({overlay: 100, lesion: 100, lung: 18})) {
    const slider = document.getElementById("opacity-" + name);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  }
  document.querySelector("[data-mode=readers]").click();
  document.getElementById("reset").click();
})()"""


@pytest.fixture
def tab(one: Tab) -> Tab:
    """The viewer of one date as it is when it opens, without cursor lines, overlay opaque."""
    one.run(_AS_OPENED)
    return one


def near(picture: np.ndarray, colour: str, within: float = 40) -> np.ndarray:
    """Where a picture has a colour, or a darker shade of its hue."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    brightness = picture.max(axis=2, keepdims=True)
    shade = picture / np.maximum(brightness, 1) * wanted.max()
    return (np.abs(shade - wanted).max(axis=2) < within) & (brightness[..., 0] > 60)


def centre(where: np.ndarray) -> np.ndarray:
    """Mean (row, column) as fractions of a picture."""
    assert where.any()
    return np.argwhere(where).mean(axis=0) / where.shape


def test_it_opens_offline_without_a_word_of_complaint(one: Tab) -> None:
    assert one.page.evaluate("document.documentElement.dataset.failed") is None
    assert one.problems == []


def test_lungs_and_lesions_are_on_the_surface_canvas(tab: Tab) -> None:
    tab.click("[data-view=render]")
    both = tab.picture(".hold.render")
    tab.click("[data-layer=reference]")
    tab.click("[data-layer=prediction]")
    lungs = tab.picture(".hold.render")
    tab.click("[data-layer=lung]")
    nothing = tab.picture(".hold.render")

    assert near(both, REFERENCE).sum() > 1000
    assert near(both, PREDICTION).sum() > 300
    assert near(lungs, REFERENCE, 15).sum() < 50
    assert (np.abs(lungs - nothing).max(axis=2) > 8).mean() > 0.08


@pytest.mark.parametrize(
    ("plane", "axes"),
    [("axial", (1, 2)), ("coronal", (0, 2)), ("sagittal", (0, 1))],
    ids=["axial", "coronal", "sagittal"],
)
def test_on_slices_the_lesion_is_where_the_scan_has_it(tab: Tab, plane: str, axes: tuple[int, int]) -> None:
    """Front up and the patient's right on the left in axial slices, head up in the others, front on the left in sagittal ones."""
    tab.click("[data-layer=prediction]")
    tab.click("tr[data-mm] button")
    tab.click(f"[data-view={plane}]")
    where = near(tab.picture(".hold.slices"), REFERENCE)

    box = np.array([one.stop - one.start for one in RIGHT])[list(axes)] * np.array(GRID.spacing_mm)[list(axes)]
    middle = np.array([(one.start + one.stop) / 2 for one in RIGHT])[list(axes)] / np.array(GRID.shape)[list(axes)]
    if axes[0] == 0:
        middle[0] = 1 - middle[0]
    extent = (np.array(GRID.shape) * GRID.spacing_mm)[list(axes)]
    size = np.array(where.shape)
    scale = (size * (1 - 2 * 0.004) / extent).min()
    expected = 0.5 + (middle - 0.5) * extent * scale / size
    np.testing.assert_allclose(centre(where), expected, atol=0.012)
    assert 0.75 < where.sum() / (np.prod(box) * scale**2) < 1.05  # the rim of an overlay is fainter


def test_the_letters_turn_with_the_view_from_the_front_back_and_head(tab: Tab) -> None:
    tab.click("[data-layer=prediction]")
    tab.click("[data-view=render]")
    found = {}
    for view in ("front", "back", "head", "right"):
        tab.click(f".turn [data-from={view}]")
        found[view] = centre(near(tab.picture(".hold.render"), REFERENCE))
    lesion_is_low, lesion_is_right, lesion_is_in_front = 0.5, 0.5, 0.5

    assert found["front"][1] < lesion_is_right < found["back"][1]
    assert found["front"][0] > lesion_is_low
    assert found["head"][1] < lesion_is_right
    assert found["right"][1] > lesion_is_in_front


def test_the_window_changes_the_slices(tab: Tab) -> None:
    tab.click("[data-view=axial]")
    lung = tab.picture(".hold.slices")
    tab.click("[data-level='40']")
    mediastinum = tab.picture(".hold.slices")
    tab.set("#level", -900)

    row, column = (int(n * f) for n, f in zip(lung.shape[:2], (0.5, 0.5), strict=True))
    assert lung[row, column, 0] == pytest.approx(237, abs=6)  # 40 HU in -1350 to 150
    assert mediastinum[row, column, 0] == pytest.approx(127, abs=8)
    assert tab.page.locator("#level").input_value() == "-900"
    assert tab.picture(".hold.slices")[row, column, 0] > 240


@pytest.mark.parametrize(
    ("slider", "view", "canvas"),
    [
        ("#opacity-overlay", "axial", ".hold.slices"),
        ("#opacity-lesion", "render", ".hold.render"),
        ("#opacity-lung", "render", ".hold.render"),
    ],
)
def test_each_opacity_slider_changes_what_it_names(tab: Tab, slider: str, view: str, canvas: str) -> None:
    tab.click("tr[data-mm] button")
    tab.click(f"[data-view={view}]")
    tab.set(slider, 90)
    dense = tab.picture(canvas)
    tab.set(slider, 10)

    assert (np.abs(dense - tab.picture(canvas)).max(axis=2) > 20).mean() > 0.005


def test_agreement_has_its_own_three_colours(tab: Tab) -> None:
    tab.click("tr[data-mm] button")
    tab.click("[data-view=axial]")
    tab.click("[data-mode=agreement]")
    shown = tab.picture(".hold.slices")
    tab.click("[data-layer=fp]")
    without = tab.picture(".hold.slices")

    assert near(shown, BOTH).sum() > 3 * near(shown, PREDICTION_ONLY).sum() > 300
    assert near(shown, PREDICTION).sum() < 50
    assert near(without, PREDICTION_ONLY, 15).sum() < 50
    assert near(without, BOTH).sum() == pytest.approx(near(shown, BOTH).sum(), rel=0.15)


def test_the_list_jumps_to_each_lesion(tab: Tab) -> None:
    lesions = find_lesions(chest().lesion, chest().volume)
    for index, lesion in enumerate(lesions):
        tab.run(f"document.querySelectorAll('tr[data-mm] button')[{index}].click()")

        np.testing.assert_allclose(tab.cursor(), GRID.world_mm(np.array(lesion.seat)), atol=0.01)
        assert np.abs(tab.cursor() - lesion.centre_mm).max() <= max(GRID.spacing_mm) / 2 + 0.01
        assert "reader" in tab.page.inner_text("#spot")
        assert "−450" in tab.page.inner_text("#spot") or "−448" in tab.page.inner_text("#spot")


def test_the_cursor_is_one_for_slices_and_surfaces(tab: Tab) -> None:
    tab.click("tr[data-mm] button")

    both = tab.run(
        "[viewer.panes[0].slices, viewer.panes[0].render].map((nv) => [...nv.frac2mm(nv.scene.crosshairPos)].slice(0, 3))"
    )

    np.testing.assert_allclose(both[0], both[1], atol=0.01)
    np.testing.assert_allclose(np.array(both[0]) * (-1, -1, 1), tab.cursor(), atol=0.01)


def test_a_click_on_a_slice_moves_the_cursor_there(tab: Tab) -> None:
    tab.click("[data-view=axial]")
    box = tab.page.locator(".hold.slices canvas").bounding_box()
    tab.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])

    extent = np.array(GRID.shape) * GRID.spacing_mm
    scale = min(box["width"] / extent[2], box["height"] / extent[1]) * (1 - 2 * 0.004)
    middle = GRID.world_mm((np.array(GRID.shape) - 1) / 2)
    assert tab.cursor()[0] == pytest.approx(middle[0] - 0.1 * box["width"] / scale, abs=3)
    assert tab.cursor()[1] == pytest.approx(middle[1] - 0.2 * box["height"] / scale, abs=3)


def test_keys_go_through_slices_lesions_and_views(tab: Tab) -> None:
    tab.run("document.querySelectorAll('tr[data-mm] button')[0].click()")
    before = tab.cursor()
    tab.page.keyboard.press("2")
    tab.page.keyboard.press(".")
    up = tab.cursor()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowUp")
    moved_to = tab.cursor()
    tab.page.keyboard.press("n")

    np.testing.assert_allclose(up - before, (0, 0, 6), atol=0.01)
    np.testing.assert_allclose(moved_to - up, (5, -5.5, 0), atol=0.01)
    second = find_lesions(chest().lesion)[1]
    np.testing.assert_allclose(tab.cursor(), GRID.world_mm(np.array(second.seat)), atol=0.01)
    assert tab.page.get_attribute("[data-view=axial]", "aria-pressed") == "true"
    tab.page.keyboard.press("?")
    assert tab.page.locator("#helps").is_visible()
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#helps").is_visible()


def test_the_picture_is_a_png_with_the_canvases_in_it(tab: Tab) -> None:
    from PIL import Image

    with tab.page.expect_download() as download:
        tab.page.click("#save")
    picture = np.asarray(Image.open(download.value.path()).convert("RGB"), float)

    assert download.value.suggested_filename == "lungshift-viewer.png"
    assert near(picture, REFERENCE).sum() > 200
    assert picture.shape[1] > 400


def test_two_dates_share_cursor_and_camera(opened: Callable[..., Tab]) -> None:
    shift = np.eye(4)
    shift[:3, 3] = (0, 0, -12)  # the second scan lies 12 mm higher
    higher = Geometry.regular(GRID.shape, GRID.spacing_mm, (-130, -110, -688))
    tab = opened("two", ViewerDate("day 0", chest()), ViewerDate("day 7", chest(higher, grown=2), to_first=shift))
    places = "viewer.panes.map((pane) => pane.mm)"
    cameras = "viewer.panes.map((pane) => [pane.render.scene.renderAzimuth, pane.render.scene.renderElevation, pane.render.volScaleMultiplier])"

    tab.click("tr[data-mm] button")
    first, second = tab.run(places)
    np.testing.assert_allclose(np.array(second) - first, (0, 0, 12), atol=0.01)

    box = tab.page.locator(".hold.render canvas").nth(0).bounding_box()
    tab.page.mouse.move(box["x"] + 40, box["y"] + 60)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 90, box["y"] + 75, steps=3)
    tab.page.mouse.up()
    first, second = tab.run(cameras)
    assert first == second
    assert first[0] != 200

    tab.click("[data-layer=linked]")
    tab.run("document.querySelectorAll('tr[data-date=\"1\"] button')[1].click()")
    first, second = tab.run(places)
    assert abs(second[2] - first[2]) > 30
    assert tab.problems == []


def test_an_oblique_scan_keeps_left_left_and_its_millimetres(opened: Callable[..., Tab]) -> None:
    grid = oblique(GRID.shape, GRID.spacing_mm, (0.25, -0.2, 0.15), (-150, -60, -650))
    case = chest(grid)
    tab = opened("oblique", ViewerDate("day 0", case))
    lesion = find_lesions(case.lesion)[0]

    tab.click("[data-layer=cursor]")
    tab.set("#opacity-overlay", 100)
    tab.click("tr[data-mm] button")
    tab.click("[data-view=coronal]")

    np.testing.assert_allclose(tab.cursor(), grid.world_mm(np.array(lesion.seat)), atol=0.01)
    page_grid = coarse_geometry(grid, VOXELS)
    where = near(tab.picture(".hold.slices"), REFERENCE)
    extent = (np.array(page_grid.shape) * page_grid.spacing_mm)[[0, 2]]
    scale = (np.array(where.shape) * (1 - 2 * 0.004) / extent).min()
    middle = page_grid.world_mm((np.array(page_grid.shape) - 1) / 2)
    off = (np.array(lesion.centre_mm) - middle)[[2, 0]] * (-1, 1) * scale / where.shape
    np.testing.assert_allclose(centre(where), 0.5 + off, atol=0.02)
    assert tab.problems == []


def test_on_a_phone_fingers_do_what_the_mouse_does(opened: Callable[..., Tab], one: Tab) -> None:
    context = one.page.context.browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, offline=True
    )
    page = context.new_page()
    page.goto(one.page.url)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
    tab, fingers = Tab(page, []), context.new_cdp_session(page)
    box = page.locator(".hold.slices canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 0.38 * box["height"] / 2

    def touch(*steps: tuple[tuple[float, float], ...]) -> None:
        for kind, at in (("touchStart", steps[0]), *(("touchMove", one) for one in steps[1:]), ("touchEnd", ())):
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in at]})
        tab.run("null")

    assert page.evaluate("[scrollY, document.documentElement.scrollWidth]") == [0, 390]
    before = tab.cursor()
    touch(((x, y),))
    middle = tab.cursor()
    touch(*(((x - 30, y + up), (x + 30, y + up)) for up in (0, -10, -20)))
    higher = tab.cursor()
    touch(*(((x - wide, y), (x + wide, y)) for wide in (30, 40, 50)))
    for points in (((x - 60, y),), ((x - 60, y), (x + 60, y)), ()):  # one finger lands before the other
        kind = "touchStart" if points else "touchEnd"
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})
        page.wait_for_timeout(60)
    late = tab.cursor()

    assert np.abs(before[:2] - middle[:2]).max() > 20
    np.testing.assert_allclose(middle[:2], GRID.world_mm((np.array(GRID.shape) - 1) / 2)[:2], atol=4)
    np.testing.assert_allclose(higher - middle, (0, 0, 12), atol=0.01)
    np.testing.assert_allclose(late, higher, atol=0.01)
    assert tab.run("viewer.panes[0].slices.scene.pan2Dxyzmm[3]") == pytest.approx(50 / 30, rel=0.01)
    context.close()


def test_a_double_click_in_3d_finds_the_lesion_behind_the_wall_of_the_lung(tab: Tab) -> None:
    tab.click("[data-view=render]")
    tab.click(".turn [data-from=front]")
    tab.click("[data-layer=prediction]")
    seen = near(tab.picture(".hold.render"), REFERENCE)
    seen[:, seen.shape[1] // 2 :] = False
    where = centre(seen)
    box = tab.page.locator(".hold.render canvas").bounding_box()
    tab.page.mouse.dblclick(box["x"] + where[1] * box["width"], box["y"] + where[0] * box["height"])
    tab.run("null")

    low, high = (GRID.world_mm(np.array([getattr(one, end) for one in RIGHT])) for end in ("start", "stop"))
    assert (tab.cursor() > low - 5).all()
    assert (tab.cursor() < high + 5).all()
    assert tab.run("viewer.panes[0].render.meshes.find((one) => one.name === 'lung').visible")


def test_without_webgl_the_page_says_so_and_keeps_the_list(opened: Callable[..., Tab], one: Tab) -> None:
    page = one.page.context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(one.page.url)
    page.wait_for_selector("html[data-failed]", state="attached")

    assert "WebGL2" in page.inner_text(".wait")
    assert page.locator("tr[data-mm]").count() == 4
    page.close()
