"""Pictures without a screen: what they show and where, and what happens where nothing can be drawn."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grids import ball
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import MissingError, ResourceError
from lungshift.show import pictures
from lungshift.show.cameras import cameras_of
from lungshift.show.meshes import Look
from lungshift.show.surfaces import surface_of

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

GRID = Geometry.regular((40, 30, 60), (4.0, 4.0, 4.0), (-120, -60, -80))
RED, GREY = Look("lesion", (255, 0, 0)), Look("lung", (150, 170, 190), 0.25)


def needs_drawing() -> None:
    if not pictures.can_draw():
        pytest.skip("VTK finds neither EGL nor OSMesa here")


def shape(centre_mm: tuple[float, float, float], radius_mm: float, look: Look) -> pictures.Shape:
    return surface_of(Mask(ball(GRID, np.array(centre_mm), radius_mm), GRID)), look


@pytest.fixture(scope="module")
def chest() -> list[pictures.Shape]:
    """Two lungs, and a lesion in the patient's right one: in front and low."""
    needs_drawing()
    return [
        shape((-50, 0, 0), 40, GREY),
        shape((50, 0, 0), 40, Look("other lung", GREY.colour, 0.25)),
        shape((-55, -20, -15), 12, RED),
    ]


@pytest.fixture(scope="module")
def drawn(chest: list[pictures.Shape]) -> dict[str, Image.Image]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_SIZE", 300)
        named = pictures.draw_views(chest, {"lesion": "lesion, 7.2 ml"})
    return {name: Image.open(io.BytesIO(data)) for name, data in named.items()}


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was found out about drawing is found out again."""
    pictures.can_draw.cache_clear()
    yield
    pictures.can_draw.cache_clear()


def red(image: Image.Image | np.ndarray) -> tuple[float, float]:
    """Middle of what is red: right and down, as shares of the picture."""
    pixels = np.asarray(image).astype(int)
    found = np.argwhere((pixels[..., 0] > 90) & (pixels[..., 0] > 1.5 * pixels[..., 1:].max(axis=-1)))
    down, right = np.median(found, axis=0) / pixels.shape[:2]
    return float(right), float(down)


@pytest.mark.parametrize(
    ("view", "left", "upper"),
    [
        pytest.param("anterior", True, False, id="from the front it is on the left, and low"),
        pytest.param("left", True, False, id="from the left it is in front, which is left, and low"),
        pytest.param("superior", True, False, id="from above it is on the left, and in front, which is below"),
        pytest.param("inferior", True, True, id="from the feet it is on the left, and in front, which is above"),
    ],
)
def test_a_lesion_low_in_front_of_the_right_lung_is_where_it_belongs(
    view: str, left: bool, upper: bool, chest: list[pictures.Shape]
) -> None:
    frame = pictures.draw(chest, cameras_of([surface for surface, _ in chest])[view], 200)

    right, down = red(frame)

    assert (right < 0.5, down < 0.5) == (left, upper)


def test_pictures_are_square_labelled_and_say_nothing_of_their_own(drawn: dict[str, Image.Image]) -> None:
    assert set(drawn) == {"anterior", "left", "superior", "inferior", "views"}
    for name, image in drawn.items():
        assert image.size == ((600, 600) if name == "views" else (300, 300))
        assert not image.info
        ink = np.asarray(image.convert("RGB")).min(axis=-1) > 200
        assert ink[:, :20].any()  # the letter on the left and the legend
        assert ink[:20].any()


def test_a_gif_turns_round_once_and_goes_on(chest: list[pictures.Shape], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_FILM_SIZE", 120)
    frames = pictures.draw_turntable(chest, {})

    gif = Image.open(io.BytesIO(pictures.to_gif(frames)))

    assert gif.n_frames == 36
    assert gif.info["loop"] == 0
    assert "comment" not in gif.info
    front, behind = (red(frames[at])[0] for at in (0, 18))
    assert front < 0.5 < behind


def test_without_gl_the_probe_dies_and_we_do_not(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_PROBE", "import os; os.kill(os.getpid(), 11)")

    with pytest.raises(MissingError, match="neither EGL nor OSMesa") as refusal:
        pictures.require_drawing()
    assert refusal.value.exit_code == 5


def test_a_probe_that_hangs_counts_as_dead(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(pictures, "_PATIENCE_S", 0.2)

    assert not pictures.can_draw()


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (level, 0, 0)) for level in (0, 100, 200)]


def program(folder: Path, text: str) -> str:
    file = folder / "ffmpeg"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_a_film_is_what_ffmpeg_makes_of_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "find_ffmpeg", lambda: program(tmp_path, 'for last; do :; done; cat > "$last"'))

    pictures.write_mp4(frames(), tmp_path / "out" / "turn.mp4")

    assert (tmp_path / "out" / "turn.mp4").read_bytes() == 3 * b"".join(frame.tobytes() for frame in frames())


def test_a_film_that_ffmpeg_cannot_make_is_said_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pictures, "find_ffmpeg", lambda: program(tmp_path, "cat > /dev/null; echo no codec >&2; exit 1")
    )

    with pytest.raises(ResourceError, match="no codec"):
        pictures.write_mp4(frames(), tmp_path / "out" / "turn.mp4")
    assert not list((tmp_path / "out").iterdir())


def test_without_ffmpeg_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "find_ffmpeg", lambda: None)

    with pytest.raises(MissingError, match="MP4 needs ffmpeg"):
        pictures.write_mp4(frames(), tmp_path / "turn.mp4")


def test_a_real_ffmpeg_makes_a_film_that_plays(tmp_path: Path) -> None:
    if pictures.find_ffmpeg() is None:
        pytest.skip("ffmpeg is not installed")

    pictures.write_mp4(frames(), tmp_path / "turn.mp4")

    data = (tmp_path / "turn.mp4").read_bytes()
    assert data[4:8] == b"ftyp"
    assert os.fsencode(tmp_path) not in data
