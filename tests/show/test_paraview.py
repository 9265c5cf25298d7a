"""The scene under the real ParaView: its picture against ours, from the surfaces and by the source paper's own route."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lungshift.show import pictures
from lungshift.show.cameras import VIEWS, cameras_of
from lungshift.show.scene import Scene, build_scene, write_scene
from scenes import small_chest

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

CASE, PREDICTION = small_chest()
SIZE = 300


def pvbatch() -> list[str]:
    """How ParaView is started here; Debian's needs a screen, or one that nobody sees."""
    if which("pvbatch") is None:
        pytest.skip("ParaView (pvbatch) is not installed")
    if os.environ.get("DISPLAY"):
        return ["pvbatch"]
    if which("xvfb-run") is None:
        pytest.skip("there is no screen for ParaView, and no xvfb-run")
    return ["xvfb-run", "-a", "pvbatch"]


def painted(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not its background."""
    return np.abs(picture.astype(int) - pictures.BACKGROUND).max(axis=-1) > 2


def coloured(picture: np.ndarray) -> np.ndarray:
    """What is within the outline of orange, blue and their mixture: the lungs are grey, the background a little blue."""
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return ndimage.binary_fill_holes(ndimage.binary_closing((red - blue > 12) | (blue - red > 22), iterations=12))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two silhouettes."""
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.fixture(scope="module")
def chest() -> Scene:
    return build_scene(CASE, PREDICTION)


@pytest.fixture(scope="module")
def folder(chest: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(chest, tmp_path_factory.mktemp("paraview") / "scene", ["csv", "vtp", "vti", "paraview"]).folder


def by_paraview(folder: Path, picture: Path, *words: str) -> np.ndarray:
    """The picture that the scene's own script makes under ParaView."""
    command = [*pvbatch(), str(folder / "open_in_paraview.py"), str(picture), *words]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if "bad X server connection" not in done.stderr:  # two xvfb-run that start at once may take each other's screen
            break
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(picture).convert("RGB"))


def by_us(chest: Scene, view: str, size: int) -> np.ndarray:
    shapes = [(part.surface, part.look) for part in chest.parts]
    return pictures.draw(shapes, cameras_of([surface for surface, _ in shapes])[view], size)


@pytest.mark.parametrize(
    ("words", "whole", "lesions"),
    [pytest.param((), 0.99, 0.98, id="surfaces"), pytest.param(("tables",), 0.97, 0.94, id="tables to points")],
)
def test_paraview_shows_what_we_show(
    words: tuple[str, ...], whole: float, lesions: float, chest: Scene, folder: Path, tmp_path: Path
) -> None:
    if not pictures.can_draw():
        pytest.skip("VTK finds neither EGL nor OSMesa here")

    theirs = by_paraview(folder, tmp_path / "theirs.png", "anterior", *words)

    ours = by_us(chest, "anterior", len(theirs))
    assert overlap(painted(ours), painted(theirs)) >= whole
    assert overlap(coloured(ours), coloured(theirs)) >= lesions


def test_the_script_names_every_view_and_no_place_on_this_machine(folder: Path) -> None:
    text = (folder / "open_in_paraview.py").read_text()

    compile(text, "open_in_paraview.py", "exec")
    assert all(f"'{view.name}':" in text for view in VIEWS)
    assert str(folder.parent) not in text
    assert "@" not in text
