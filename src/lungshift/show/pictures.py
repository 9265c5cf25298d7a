"""Pictures of a scene without a screen: labelled standard views, and a turntable as GIF or film.

VTK looks for EGL or OSMesa by itself and kills the process where it finds neither: a child process tries first.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import UInt8

from lungshift.errors import MissingError, ResourceError
from lungshift.files import write_file
from lungshift.show.cameras import VIEWS, Camera, View, cameras_of, turntable
from lungshift.show.meshes import Look, normals_of
from lungshift.show.surfaces import Surface, poly_data, require_vtk
from lungshift.show.words import RESEARCH_ONLY

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND: Final = (20, 27, 36)
_SIZE, _FILM_SIZE = 900, 480
_FRAMES, _FRAME_MS = 36, 90
_PEELS, _FILM_PEELS = 4, 2
"""Layers of what is translucent, from the front: without a graphics card each costs as much as the picture."""
_PATIENCE_S = 120
_PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
window = vtkRenderWindow()
window.SetOffScreenRendering(1)
window.AddRenderer(vtkRenderer())
window.Render()
raise SystemExit(0 if window.SupportsOpenGL() else 3)
"""
NO_FFMPEG: Final = "MP4 needs ffmpeg: install it, or pip install imageio-ffmpeg. The GIF needs neither."
_INK, _FAINT = (235, 240, 245), (150, 162, 175)

Shape = tuple[Surface, Look]
Frame = UInt8[np.ndarray, "row column 3"]


@cache
def can_draw() -> bool:
    """Whether VTK can draw without a screen here; a child process tries, as failing kills it."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def require_drawing() -> None:
    """Say what is missing where nothing can be drawn.

    Raises:
        MissingError: VTK is not installed, or it finds neither EGL nor OSMesa.
    """
    require_vtk()
    if not can_draw():
        raise MissingError(
            "VTK cannot draw here: it finds neither EGL nor OSMesa. Install one (Debian: libegl1 or libosmesa6), "
            "or leave the formats png, gif and mp4 out."
        )


def find_ffmpeg() -> str | None:
    """The program that writes MP4: ffmpeg of the system, or that of the package imageio-ffmpeg."""
    if found := which("ffmpeg"):
        return found
    if find_spec("imageio_ffmpeg") is None:
        return None
    try:
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:
        return None


def draw(shapes: Sequence[Shape], camera: Camera, size: int) -> Frame:
    """A square picture as it comes, without letters.

    Raises:
        MissingError: Nothing can be drawn here.
    """
    require_drawing()
    with _stage(shapes, size, _PEELS) as stage:
        return stage.shoot(camera)


def draw_views(shapes: Sequence[Shape], words: Mapping[str, str]) -> dict[str, bytes]:
    """The standard views as PNG by name, and ``views``, all of them on one sheet.

    Args:
        shapes: Surfaces and how they look; the first ones are drawn first.
        words: What the legend says of each, by the name of its look.

    Raises:
        MissingError: Nothing can be drawn here.
    """
    require_drawing()
    cameras = cameras_of([surface for surface, _ in shapes])
    with _stage(shapes, _SIZE, _PEELS) as stage:
        drawn = {view.name: _label(stage.shoot(cameras[view.name]), view, shapes, words) for view in VIEWS}
    return {name: _png(image) for name, image in drawn.items()} | {"views": _png(_sheet(list(drawn.values())))}


def draw_turntable(shapes: Sequence[Shape], words: Mapping[str, str]) -> list[Image]:
    """The frames of a turn around the patient's long axis.

    Raises:
        MissingError: Nothing can be drawn here.
    """
    require_drawing()
    with _stage(shapes, _FILM_SIZE, _FILM_PEELS) as stage:
        cameras = turntable([surface for surface, _ in shapes], _FRAMES)
        return [_label(stage.shoot(camera), None, shapes, words) for camera in cameras]


def to_gif(frames: Sequence[Image]) -> bytes:
    """Frames as a GIF that goes on and on, in the colours of the first."""
    from PIL.Image import Dither

    first = frames[0].quantize(128)
    rest = [frame.quantize(palette=first, dither=Dither.NONE) for frame in frames[1:]]
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0, optimize=True)
    return stream.getvalue()


def write_mp4(frames: Sequence[Image], path: Path) -> None:
    """Write frames as H.264 film that every slide program plays, three turns long.

    Raises:
        MissingError: There is no ffmpeg.
        ResourceError: ffmpeg could not write the film.
    """
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise MissingError(NO_FFMPEG)
    width, height = frames[0].size
    raw = b"".join(frame.tobytes() for frame in frames) * 3
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1000 / _FRAME_MS:.3f}"]
    made = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-map_metadata", "-1", "-fflags", "+bitexact"]

    def write(temporary: Path) -> None:
        command = [ffmpeg, "-loglevel", "error", "-y", *given, "-i", "-", *made, str(temporary)]
        done = subprocess.run(command, input=raw, capture_output=True, check=False)
        if done.returncode:
            raise ResourceError(f"ffmpeg could not write {path.name}: {done.stderr.decode(errors='replace').strip()}")

    write_file(path, write, lambda temporary: temporary.stat().st_size > 0)


@dataclass(frozen=True, eq=False)
class _Stage:
    """VTK's window off the screen, with everything in it."""

    window: Any
    renderer: Any

    def shoot(self, camera: Camera) -> Frame:
        """The picture that a camera has."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

        aim(self.renderer.GetActiveCamera(), camera)
        self.renderer.ResetCameraClippingRange()
        self.window.Render()
        grab = vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3].copy()


def aim(target: Any, camera: Camera) -> None:
    """Set VTK's camera."""
    target.ParallelProjectionOn()
    target.SetFocalPoint(*camera.target_mm)
    target.SetPosition(*camera.eye_mm)
    target.SetViewUp(*camera.up)
    target.SetParallelScale(camera.half_height_mm)


@contextmanager
def _stage(shapes: Sequence[Shape], size: int, peels: int) -> Iterator[_Stage]:
    import vtkmodules.vtkRenderingOpenGL2  # noqa: F401 — this is what makes the classes below draw
    from vtkmodules.vtkCommonCore import vtkLogger
    from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow

    said = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)  # it warns of every way to draw that it tries in vain
    renderer, window = vtkRenderer(), vtkRenderWindow()
    renderer.SetBackground(*(part / 255 for part in BACKGROUND))
    renderer.SetUseDepthPeeling(1)
    renderer.SetMaximumNumberOfPeels(peels)
    for surface, look in shapes:
        renderer.AddActor(_actor(surface, look))
    window.SetOffScreenRendering(1)
    window.SetAlphaBitPlanes(1)
    window.SetMultiSamples(0)
    window.SetSize(size, size)
    window.AddRenderer(renderer)
    try:
        yield _Stage(window, renderer)
    finally:
        window.Finalize()
        vtkLogger.SetStderrVerbosity(said)


def _actor(surface: Surface, look: Look) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    poly = poly_data(surface.points_mm, surface.triangles)
    poly.GetPointData().SetNormals(numpy_to_vtk(normals_of(surface), deep=True))
    mapper, actor = vtkPolyDataMapper(), vtkActor()
    mapper.SetInputData(poly)
    actor.SetMapper(mapper)
    paint = actor.GetProperty()
    paint.SetColor(*(part / 255 for part in look.colour))
    paint.SetOpacity(look.opacity)
    paint.SetAmbient(0.3)
    paint.SetDiffuse(0.75)
    paint.SetSpecular(0.15)
    return actor


def _label(frame: Frame, view: View | None, shapes: Sequence[Shape], words: Mapping[str, str]) -> Image:
    """A picture with the letters of its edges, its legend, and what it may be used for."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    draw, size = ImageDraw.Draw(image), image.width
    letters, small = ImageFont.load_default(size / 26), ImageFont.load_default(size / 44)
    gap = size / 60
    if view:
        places = (((gap, size / 2), "lm"), ((size - gap, size / 2), "rm"), ((size / 2, gap), "mt"))
        for (place, anchor), letter in zip((*places, ((size / 2, size - gap), "mb")), view.edges, strict=True):
            draw.text(place, letter, fill=_INK, font=letters, anchor=anchor)
        draw.text((size - gap, gap), view.words, fill=_FAINT, font=small, anchor="rt")
    for line, (_, look) in enumerate(shapes):
        top = gap + line * size / 28
        draw.rectangle((gap, top, gap + size / 50, top + size / 50), fill=look.colour)
        text = words.get(look.name, look.name)
        draw.text((gap + size / 36, top + size / 100), text, fill=_INK, font=small, anchor="lm")
    draw.text((gap, size - gap), RESEARCH_ONLY, fill=_FAINT, font=small, anchor="lb")
    return image


def _sheet(images: Sequence[Image]) -> Image:
    """Pictures two by two."""
    from PIL import Image

    size = images[0].width
    sheet = Image.new("RGB", (2 * size, -(-len(images) // 2) * size), BACKGROUND)
    for number, image in enumerate(images):
        sheet.paste(image, (number % 2 * size, number // 2 * size))
    return sheet


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
