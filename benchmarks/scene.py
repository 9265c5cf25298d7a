"""How fast scenes are written, and whether ParaView shows what we show.

``python -m benchmarks.scene --skimage PYTHON --output docs/benchmarks/scene.md`` writes the page, and the pictures beside it.
Tables and surfaces are ratios of contestants that took turns in one run. The pictures are of a phantom patient: ours, ParaView's of the
``.vtp`` files, and ParaView's of the CSV tables by Table To Points, from one camera; what is compared is silhouettes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any, cast

import numpy as np

from benchmarks.report import describe_machine, table
from benchmarks.result import Result
from benchmarks.turns import ONE_THREAD, Contestant, all_of, take_turns

_M = "benchmarks.contest_scene:"
_SHAPE = (300, 512, 512)
_TABLE_SLICES = 40
_TILT = 0.1
_PICTURE = 420
_AWAY = (3, 0, 5)
"""Slices, rows and columns from the reader's lesions to those called predicted, so that both colours show."""


def main() -> None:
    """Measure, print the page, and write it."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.scene", description=__doc__)
    words.add_argument("--skimage", metavar="PYTHON", help="python of an environment with scikit-image")
    words.add_argument("--rounds", type=int, default=5, help="turns of each contestant; the best counts")
    words.add_argument("--output", type=Path, help="page to write (.md)")
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    start = describe_machine()
    with tempfile.TemporaryDirectory(prefix="lungshift-scene-") as name:
        folder = Path(name)
        _write_input(folder)
        tables = _tables(folder, asked.rounds, straight=True) + _tables(folder, asked.rounds, straight=False)
        surfaces = _surfaces(folder, asked.skimage, asked.rounds)
        compared = _paraview(folder, asked.output and asked.output.with_suffix(""))
    page = _page(tables, surfaces, compared, start, pictures=asked.output is not None)
    print(page)
    if asked.output:
        asked.output.write_text(page)


def chest(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """HU and the mask of two lungs with vessels in them, about a fifth of the voxels."""
    rng = np.random.default_rng(0)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    lung = np.zeros(shape, bool)
    for side in (-1, 1):
        far = (z[:, None, None] / 0.95) ** 2 + (y[:, None] / 0.62) ** 2 + ((x - 0.42 * side) / 0.36) ** 2
        lung |= far + 0.02 * np.sin(40 * y)[:, None] * np.sin(30 * z)[:, None, None] < 1
    hu = np.where(lung, -820, 40).astype(np.int16)
    hu += rng.normal(0, 60, shape).astype(np.int16)
    return hu, lung & (hu < -500)


def _write_input(folder: Path) -> None:
    hu, mask = chest(_SHAPE)
    middle = slice(_SHAPE[0] // 2, _SHAPE[0] // 2 + _TABLE_SLICES)
    for name, part in (("few", middle), ("all", slice(None))):
        (folder / name).mkdir()
        np.save(folder / name / "hu.npy", hu[part])
        np.save(folder / name / "mask.npy", mask[part])


def _affine(straight: bool) -> np.ndarray:
    affine = np.array([[0, 0, 0.68, -174.0], [0, 0.68, 0, -160.0], [1.0, 0, 0, -310.0], [0, 0, 0, 1]])
    c, s = np.cos(_TILT), np.sin(_TILT)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine[:3, :3] = affine[:3, :3] if straight else turn @ affine[:3, :3]
    return affine


def _tables(folder: Path, rounds: int, *, straight: bool) -> list[Result]:
    name = "straight grid" if straight else "oblique grid"
    shared: dict[str, Any] = {"folder": str(folder / "few"), "affine": _affine(straight).tolist()}
    ours = Contestant(_M + "lungshift_csv", **shared)
    rows = ours.turn().answer
    contestants = {
        "ours": ours,
        "csv": Contestant(_M + "csv_module", decimals=2, **shared),
        "plain": Contestant(_M + "csv_module", decimals=None, **shared),
        "raw": Contestant(_M + "raw_write", folder=shared["folder"], file="ours.csv"),
    }
    with all_of(*contestants.values()):
        ns = {one: 1e9 * cpu / rows for one, cpu in take_turns(contestants, rounds).items()}
    same = (folder / "few" / "ours.csv").read_bytes() == (folder / "few" / "csv-2.csv").read_bytes()
    bytes_a_row = (folder / "few" / "ours.csv").stat().st_size / rows
    note = f"{ns['csv']:.0f} ns a row against {ns['ours']:.1f}; {rows:,} rows of {bytes_a_row:.1f} bytes; "
    note += "the same bytes" if same else "OTHER BYTES"
    return [
        Result(f"csv module / ours ({name})", ns["csv"] / ns["ours"], goal=25, sense="at least", note=note),
        Result(
            f"csv module with floats as they come / ours ({name})",
            ns["plain"] / ns["ours"],
            note=f"{ns['plain']:.0f} ns a row; other bytes, 12.5 for 12.50",
        ),
        Result(f"ours / raw write ({name})", ns["ours"] / ns["raw"], goal=6, note=f"{ns['raw']:.1f} ns a row to write"),
    ]


def _surfaces(folder: Path, skimage: str | None, rounds: int) -> list[Result]:
    what, settings = "marching cubes of scikit-image / ours", {"folder": str(folder / "all")}
    if skimage is None:
        return [Result(what, None, goal=5, sense="at least", note="no environment; name one with --skimage")]
    contestants = {
        "skimage": Contestant(_M + "skimage_surface", python=skimage, **settings),
        "ours": Contestant(_M + "lungshift_surface", smooth=False, **settings),
        "smooth": Contestant(_M + "lungshift_surface", smooth=True, **settings),
        "edges": Contestant(_M + "flying_edges", **settings),
    }
    with all_of(*contestants.values()):
        s = take_turns(contestants, rounds)
        triangles = {one: contestant.turn().answer for one, contestant in contestants.items()}
    note = f"{s['skimage']:.2f} s against {s['ours']:.2f}; {_SHAPE}, {triangles['skimage']:,} and {triangles['ours']:,} triangles"
    return [
        Result(what, s["skimage"] / s["ours"], goal=5, sense="at least", note=note),
        Result(
            f"{what}, smoothed", s["skimage"] / s["smooth"], note=f"{s['smooth']:.2f} s with smoothing, which it lacks"
        ),
        Result(
            "marching cubes of scikit-image / VTK's flying edges alone",
            s["skimage"] / s["edges"],
            note=f"{s['edges']:.2f} s on the cropped array, without millimetres",
        ),
    ]


def _paraview(folder: Path, pictures_to: Path | None) -> list[Result]:
    from lungshift.ct.volume import Mask
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import SITE_A
    from lungshift.show.cameras import cameras_of
    from lungshift.show.pictures import draw
    from lungshift.show.scene import build_scene, write_scene

    if which("pvbatch") is None or (which("xvfb-run") is None and not os.environ.get("DISPLAY")):
        return [Result("ParaView against us", None, note="no pvbatch, or no screen and no xvfb-run")]
    case = phantom_case(7, 3, replace(SITE_A, slice_mm=3.0, pixel_mm=2.2))
    lesion = cast(Mask, case.lesion)
    scene = build_scene(case, Mask(np.roll(lesion.voxels, _AWAY, axis=(0, 1, 2)), lesion.geometry))
    write_scene(scene, folder / "scene", ["csv", "vtp", "vti", "paraview"])
    shapes = [(part.surface, part.look) for part in scene.parts]
    ours = draw(shapes, cameras_of([surface for surface, _ in shapes])["anterior"], 900)
    shown, results = [ours], []
    for title, words in (("surfaces (.vtp)", ()), ("CSV, Table To Points", ("tables",))):
        theirs = _pvbatch(folder, *words)
        shown.append(theirs)
        for what, silhouette in (("whole", painted), ("lesions", coloured)):
            dice = _overlap(silhouette(ours), silhouette(theirs))
            results.append(
                Result(f"Dice of silhouettes, {what}: {title}", dice, unit="", note="900 x 900, from the front")
            )
    if pictures_to:
        _save(shown, pictures_to)
    return results


def _pvbatch(folder: Path, *words: str) -> np.ndarray:
    from PIL import Image

    screen = [] if os.environ.get("DISPLAY") else ["xvfb-run", "-a"]
    picture = folder / "theirs.png"
    script = str(folder / "scene" / "open_in_paraview.py")
    subprocess.run([*screen, "pvbatch", script, str(picture), "anterior", *words], check=True, capture_output=True)
    return np.asarray(Image.open(picture).convert("RGB"))


def painted(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not its background."""
    from lungshift.show.pictures import BACKGROUND

    return np.abs(picture.astype(int) - BACKGROUND).max(axis=-1) > 2


def coloured(picture: np.ndarray) -> np.ndarray:
    """What is within the outline of orange, blue and their mixture: the lungs are grey, the background a little blue."""
    from scipy import ndimage

    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return ndimage.binary_fill_holes(ndimage.binary_closing((red - blue > 12) | (blue - red > 22), iterations=12))


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def _save(shown: list[np.ndarray], folder: Path) -> None:
    """The three pictures side by side, small."""
    from PIL import Image

    small = [Image.fromarray(one).resize((_PICTURE, _PICTURE), Image.Resampling.LANCZOS) for one in shown]
    sheet = Image.new("RGB", (_PICTURE * len(small), _PICTURE))
    for number, image in enumerate(small):
        sheet.paste(image, (number * _PICTURE, 0))
    folder.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(folder / "paraview.png", optimize=True)


def _page(
    tables: list[Result], surfaces: list[Result], compared: list[Result], start: dict[str, Any], *, pictures: bool
) -> str:
    end = describe_machine()["load"]
    versions = ", ".join(f"{name} {start['versions'][name]}" for name in ("lungshift", "numpy"))
    machine = f"{start['date']}, {start['processor']}, {start['cores']} cores, load {start['load']} at the start and {end} at the end; "
    shown = compared[0].value is not None and pictures
    return "\n".join(
        [
            "# Scenes: speed, and ParaView against us",
            "",
            "`python -m benchmarks.scene --skimage PYTHON --output docs/benchmarks/scene.md` writes this page. Times are CPU seconds of one",
            "thread, the best of each contestant's turns; a ratio is of contestants that took turns in one run. Ours is timed with everything:",
            "made, written, flushed to the disk, read back and compared, renamed. The others check and flush nothing.",
            "",
            "## Tables of points",
            "",
            table(tables),
            "",
            "Nearly all scans lie straight in their scanner. On an oblique grid every coordinate of every voxel is another number. Of our time a third goes into",
            "taking out the padding of texts of fixed width, a quarter into writing, flushing and reading back; the raw write only writes.",
            "",
            "## Surfaces",
            "",
            table(surfaces),
            "",
            "The goal was set by a trial in which scikit-image took 1.24 s. It has become faster since, and VTK's filter alone, at one thread, is no longer",
            "five times as fast.",
            "",
            "## ParaView",
            "",
            "A phantom patient; the predicted lesions are the reader's, moved by 14 mm. The script of the scene ran under",
            "`pvbatch`; our picture has the same camera. Points are discs as wide as the voxels are apart, so they reach out of the surface.",
            "",
            table(compared),
            "",
            *(["![Ours, ParaView's surfaces, ParaView's tables to points](scene/paraview.png)", ""] if shown else []),
            "From the left: ours, ParaView with the surfaces, ParaView with the CSV tables through Table To Points."
            if shown
            else "",
            "",
            f"{machine}Python {start['python']}, {versions}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
