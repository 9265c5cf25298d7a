"""Scenes: what is written, where it is in space, what is said, and that nobody is named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError, InputError, MissingError, OutputError, ResourceError
from lungshift.files import sha256
from lungshift.show import pictures, scene
from lungshift.show.scene import FILES, FORMATS, PICTURES, Scene, build_scene, thinned, write_scene
from meshfiles import corners, read_glb
from scenes import GRID, SEEN, SICK, small_chest

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

CASE, PREDICTION = small_chest()
EMPTY = Mask(np.zeros(GRID.shape, bool), GRID)


@pytest.fixture(scope="module")
def chest() -> Scene:
    return build_scene(CASE, PREDICTION)


@pytest.fixture(scope="module")
def folder(chest: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene with everything but pictures."""
    return write_scene(chest, tmp_path_factory.mktemp("scene") / "all").folder


def rows(path: Path) -> np.ndarray:
    with path.open(newline="") as stream:
        return np.array([[float(word) for word in row] for row in list(csv.reader(stream))[1:]]).reshape(-1, 4)


def image_of(path: Path):  # type: ignore[no-untyped-def]
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader

    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_every_structure_is_written_in_every_format(folder: Path) -> None:
    parts = [
        f"{name}.{suffix}" for name in ("lung", "prediction", "reference") for suffix in ("csv", "vtp", "stl", "ply")
    ]

    found = {file.name for file in folder.iterdir()}

    assert found == {*parts, "scene.vti", "scene.glb", "open_in_paraview.py", "viewer.html", "README.txt", "scene.json"}


def test_a_table_holds_every_voxel_of_its_mask_where_it_is_and_its_hu(folder: Path) -> None:
    lung, lesion = rows(folder / "lung.csv"), rows(folder / "prediction.csv")

    assert CASE.lung is not None
    np.testing.assert_allclose(lung[:, :3], GRID.world_mm(np.argwhere(CASE.lung.voxels)), atol=0.0051)
    np.testing.assert_array_equal(lung[:, 3], CASE.volume.hu[CASE.lung.voxels])
    np.testing.assert_allclose(lesion[:, :3], GRID.world_mm(np.argwhere(PREDICTION.voxels)), atol=0.0051)
    assert (lesion[:, 3] == 1).all()


@pytest.mark.parametrize(("name", "seat"), [("prediction", SEEN), ("reference", SICK)])
def test_all_formats_have_a_lesion_in_one_place(name: str, seat: tuple[int, int, int], folder: Path) -> None:
    centre = GRID.world_mm(np.array(seat))
    half_voxel = max(GRID.spacing_mm) / 2

    np.testing.assert_allclose(rows(folder / f"{name}.csv")[:, :3].mean(axis=0), centre, atol=half_voxel)
    for suffix in ("vtp", "stl", "ply"):
        found = corners(folder / f"{name}.{suffix}").reshape(-1, 3)
        np.testing.assert_allclose((found.min(axis=0) + found.max(axis=0)) / 2, centre, atol=half_voxel)
        assert np.abs(np.linalg.norm(found - centre, axis=1) - 17).max() <= 0.65 * max(GRID.spacing_mm)
    described, _ = read_glb(folder / "scene.glb")
    number = [node["name"] for node in described["nodes"]].index(
        {"prediction": "lesion (predicted)"}.get(name, "lesion (reference)")
    )
    position = described["meshes"][number]["primitives"][0]["attributes"]["POSITION"]
    box = described["accessors"][position]
    np.testing.assert_allclose(np.add(box["min"], box["max"]) / 2, centre, atol=half_voxel)
    image = image_of(folder / "scene.vti")
    np.testing.assert_allclose(image.GetPoint(image.ComputePointId(seat[::-1])), centre, atol=1e-6)
    assert image.GetPointData().GetArray(name).GetTuple1(image.ComputePointId(seat[::-1])) == 1


def test_the_surface_encloses_what_the_mask_holds(chest: Scene) -> None:
    assert chest.lung.surface.volume_ml == pytest.approx(chest.lung.mask.volume_ml, rel=0.02)


def test_a_constant_step_changes_z_of_the_tables_and_nothing_else(chest: Scene, folder: Path, tmp_path: Path) -> None:
    write_scene(chest, tmp_path / "paper", ["csv", "stl"], z_step_mm=2.0)

    places = np.argwhere(PREDICTION.voxels)
    found = rows(tmp_path / "paper" / "prediction.csv")
    np.testing.assert_allclose(found[:, 2], 2.0 * places[:, 0])
    np.testing.assert_allclose(found[:, :2], GRID.world_mm(places)[:, :2], atol=0.0051)
    assert sha256(tmp_path / "paper" / "prediction.stl") == sha256(folder / "prediction.stl")
    assert "do not lie on the other files" in (tmp_path / "paper" / "README.txt").read_text().replace("\n", " ")


def test_a_downsampled_scan_stays_in_place_and_lesions_stay_in_full(chest: Scene, folder: Path, tmp_path: Path) -> None:
    write_scene(chest, tmp_path / "half", ["csv", "vti", "stl"], downsample=2)

    assert CASE.lung is not None
    places = 2 * np.argwhere(CASE.lung.voxels[::2, ::2, ::2])
    np.testing.assert_allclose(rows(tmp_path / "half" / "lung.csv")[:, :3], GRID.world_mm(places), atol=0.0051)
    image = image_of(tmp_path / "half" / "scene.vti")
    assert image.GetDimensions() == (24, 20, 15)
    np.testing.assert_allclose(
        image.GetPoint(image.ComputePointId((3, 2, 1))), GRID.world_mm(np.array([2, 4, 6])), atol=1e-6
    )
    for name in ("prediction.csv", "prediction.stl"):
        assert sha256(tmp_path / "half" / name) == sha256(folder / name)
    assert (tmp_path / "half" / "lung.stl").stat().st_size < (folder / "lung.stl").stat().st_size / 2


def test_every_nth_voxel_of_a_grid_is_where_it_was() -> None:
    thin = thinned(GRID, 2)

    assert thin.shape == (15, 20, 24)
    np.testing.assert_allclose(thin.world_mm(np.array([1, 2, 3])), GRID.world_mm(np.array([2, 4, 6])))


def test_the_manifest_lists_files_settings_and_volumes(folder: Path) -> None:
    manifest = json.loads((folder / "scene.json").read_text())

    assert manifest["space"] == "LPS"
    assert manifest["settings"] == {"formats": list(FILES), "z_step_mm": None, "downsample": 1}
    assert manifest["files"]["lung.csv"] == sha256(folder / "lung.csv")
    assert {part["name"]: part["voxels"] for part in manifest["parts"]}["prediction"] == np.count_nonzero(
        PREDICTION.voxels
    )


def test_the_readme_says_which_world_and_what_for(folder: Path) -> None:
    text = (folder / "README.txt").read_text()

    assert "LPS" in text
    assert "All files lie in one place." in text
    assert "Research use only" in text


def test_an_empty_lesion_is_written_and_said(tmp_path: Path) -> None:
    written = write_scene(build_scene(CASE, EMPTY), tmp_path / "scene")

    assert written.notes == ("The lesion (predicted) is empty: its files hold no point.",)
    assert (tmp_path / "scene" / "prediction.csv").read_bytes() == b"x,y,z,value\r\n"
    assert (tmp_path / "scene" / "prediction.stl").stat().st_size == 84
    assert "prediction.vtp" not in (tmp_path / "scene" / "open_in_paraview.py").read_text()
    assert written.notes[0] in (tmp_path / "scene" / "README.txt").read_text()


def test_a_prediction_on_another_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match="Scan and prediction mask do not fit"):
        build_scene(
            CASE, Mask(PREDICTION.voxels, thinned(GRID, 2).__class__(GRID.shape, np.diag([2.0, 2, 2, 1])[[2, 1, 0, 3]]))
        )


@pytest.mark.parametrize("lung", [None, EMPTY], ids=["none", "empty"])
def test_a_scene_without_lungs_is_refused(lung: Mask | None) -> None:
    with pytest.raises(InputError, match="needs the lungs") as refusal:
        build_scene(replace(CASE, lung=lung))
    assert refusal.value.code == "E_NO_LUNG"


@pytest.mark.parametrize(
    ("formats", "options"),
    [
        pytest.param(["csv", "obj"], {}, id="a format that does not exist"),
        pytest.param([], {}, id="no format"),
        pytest.param(["csv"], {"z_step_mm": 0.0}, id="a step of nothing"),
        pytest.param(["csv"], {"z_step_mm": float("nan")}, id="a step that is no number"),
        pytest.param(["csv"], {"downsample": 0}, id="every 0th voxel"),
        pytest.param(["csv"], {"downsample": 5}, id="every 5th voxel"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    formats: list[str], options: dict, chest: Scene, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="got"):
        write_scene(chest, tmp_path / "scene", formats, **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_told_otherwise(chest: Scene, tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "mine.txt").write_text("mine")

    with pytest.raises(OutputError, match="already exists"):
        write_scene(chest, tmp_path / "scene", ["csv"])
    assert (tmp_path / "scene" / "mine.txt").read_text() == "mine"
    write_scene(chest, tmp_path / "scene", ["csv"], overwrite=True)
    assert not (tmp_path / "scene" / "mine.txt").exists()


def test_a_full_disk_leaves_nothing(chest: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene.meshes, "write_stl", full)

    with pytest.raises(ResourceError, match="No space left"):
        write_scene(chest, tmp_path / "scene", ["csv", "stl"])
    assert not list(tmp_path.iterdir())


def test_without_gl_the_files_are_written_and_the_pictures_named(
    chest: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "can_draw", lambda: False)

    written = write_scene(chest, tmp_path / "scene", ["csv", *PICTURES])

    assert "Without png, gif and mp4: VTK cannot draw here" in written.notes[0]
    assert (tmp_path / "scene" / "lung.csv").exists()
    with pytest.raises(MissingError, match="neither EGL nor OSMesa"):
        write_scene(chest, tmp_path / "only", PICTURES)
    assert not (tmp_path / "only").exists()


def test_without_vtk_the_tables_are_written_and_the_rest_is_refused(
    chest: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vtkmodules.vtkCommonCore", None)

    write_scene(chest, tmp_path / "tables", ["csv"])
    with pytest.raises(MissingError, match=r"lungshift\[viz3d\]"):
        write_scene(chest, tmp_path / "scene", FORMATS)
    assert not (tmp_path / "scene").exists()


def test_without_ffmpeg_the_gif_is_there_and_the_film_is_named(
    chest: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pictures.can_draw():
        pytest.skip("VTK finds neither EGL nor OSMesa here")
    monkeypatch.setattr(pictures, "find_ffmpeg", lambda: None)
    monkeypatch.setattr(pictures, "_FRAMES", 3)
    monkeypatch.setattr(pictures, "_FILM_SIZE", 80)

    written = write_scene(chest, tmp_path / "scene", ["gif", "mp4"])

    assert written.notes == (
        "Without mp4: MP4 needs ffmpeg: install it, or pip install imageio-ffmpeg. The GIF needs neither.",
    )
    assert {"turntable.gif", "scene.json", "README.txt"} == set(written.files)
    with pytest.raises(MissingError, match="MP4 needs ffmpeg"):
        write_scene(chest, tmp_path / "only", ["mp4"])
