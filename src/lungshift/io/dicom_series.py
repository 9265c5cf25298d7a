"""Which DICOM files of a folder make one CT series, and how its slices stack up.

Slices are ordered by their position along the normal of the plane, never by file name or instance number; the rules of the
patient coordinate system are those of DICOM PS3.3 C.7.6.2. Messages name files by their base name, the folder once, and
nothing that identifies a person.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from lungshift.errors import FileFormatError, GeometryError, InputError, IntensityError, SeriesError
from lungshift.files import blame_machine
from lungshift.io.dicom_decode import PLUGINS
from lungshift.io.dicom_header import Frame, name_of, read_frames
from lungshift.io.orientation import ON_REQUEST

MAX_FILES = 20_000
MAX_VOXELS = 2**30
_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image Storage",
}
_DRAWINGS = {"SEG": "a DICOM segmentation (SEG)", "RTSTRUCT": "a set of contours (RTSTRUCT)"}
_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")
_LEAST_HU = 500.0
_SAME_MM = 0.01
_ROUNDED_MM = 0.1


@dataclass(frozen=True)
class Choices:
    """What may be decided about a series that is not plainly regular.

    Attributes:
        series_uid: The series to read where a folder holds several.
        oblique: A grid turned or sheared (gantry tilt) against the patient: ``refuse`` it, or ``resample`` it linearly.
        uneven: Missing or unequally spaced slices: ``refuse`` them, or ``interpolate`` linearly to a regular grid.
        allow_derived: Read images that a workstation made from others (reformats, averages).
        min_slices: Fewer positions than this are no chest CT.
    """

    series_uid: str | None = None
    oblique: Literal["refuse", "resample"] = "refuse"
    uneven: Literal["refuse", "interpolate"] = "refuse"
    allow_derived: bool = False
    min_slices: int = 10


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a folder, in words that identify nobody.

    Attributes:
        uid: Its UID, to choose it by.
        number: Its number in the study, where known.
        modality: ``CT`` or another.
        slices: Images that can be read as CT.
        thickness_mm: Slice thickness, where known.
        kernel: Convolution kernel, where known.
        problems: Why images of it cannot be read, with how many.
    """

    uid: str
    number: int | None
    modality: str
    slices: int
    thickness_mm: float | None
    kernel: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        thickness = "" if self.thickness_mm is None else f" of {self.thickness_mm:g} mm"
        kernel = f", kernel {self.kernel}" if self.kernel else ""
        number = "without a number" if self.number is None else str(self.number)
        return f"series {number}: {self.slices} slices{thickness}{kernel}, UID {self.uid or '(none)'}"


@dataclass(frozen=True)
class Problem:
    """Why an image cannot be read as a CT slice; ``skip`` if the rest of its series can be read without it."""

    code: str
    words: str
    skip: bool = False


@dataclass(frozen=True, eq=False)
class Stack:
    """The slices of one series, ordered along the normal.

    Attributes:
        frames: Every image, doubled ones included.
        slots: For each image, which slice it is; doubled ones share a slice.
        affine: (slice, row, column, 1) of the stored images to LPS mm.
        between: If slices must be interpolated: the place of each wanted slice among the stored ones; else None.
        notes: What was taken with a warning.
    """

    frames: tuple[Frame, ...]
    slots: tuple[int, ...]
    affine: Float64[np.ndarray, "4 4"]
    between: Float64[np.ndarray, " slice"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns in the files."""
        return self.slots[-1] + 1, self.frames[0].rows, self.frames[0].columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns once missing ones are interpolated."""
        slices, rows, columns = self.stored_shape
        return slices if self.between is None else len(self.between), rows, columns


@dataclass(frozen=True)
class Inventory:
    """What a folder holds: image planes by series, and for every other file why it was passed over."""

    folder: Path
    series: dict[str, list[Frame]]
    passed_over: dict[str, list[str]] = field(default_factory=dict)


def scan_folder(folder: Path, *, deep: bool = True) -> Inventory:
    """Read the headers of every file below ``folder`` (or of the one file that it is); of the folder alone unless ``deep``.

    Raises:
        SeriesError: No such folder, or more files than a study has.
    """
    series: dict[str, list[Frame]] = defaultdict(list)
    passed_over: dict[str, list[str]] = defaultdict(list)
    for path in _files(folder, deep=deep):
        try:
            _require_inside(path, folder)
            for frame in read_frames(path):
                series[frame.series_uid].append(frame)
        except FileFormatError as error:
            passed_over[str(error)].append(path.name)
        except OSError as error:
            blame_machine(error)
            if error.errno == errno.EIO:
                raise FileFormatError(
                    f"{path.name} cannot be read ({error.strerror}): the disk it is on fails.", code="E_READ"
                ) from error
            passed_over[f"cannot be opened ({error.strerror})"].append(path.name)
    return Inventory(folder, dict(series), dict(passed_over))


def describe_series(inventory: Inventory, choices: Choices) -> list[SeriesInfo]:
    """Every series found, by number, then by UID."""
    infos = [_describe(uid, frames, choices) for uid, frames in inventory.series.items()]
    return sorted(infos, key=lambda info: (info.number is None, info.number or 0, info.uid))


def find_stack(inventory: Inventory, choices: Choices) -> Stack:
    """Choose the series and order its slices.

    Raises:
        SeriesError: No or several CT series (``E_SERIES``), too few slices (``E_FEW``), or slices that are missing
            (``E_GAP``), unequally spaced (``E_SPACING``) or turned against each other (``E_ORIENTATION``).
        IntensityError: Values that are not HU (``E_NOT_HU``).
        GeometryError: A gantry tilt (``E_TILT``) that may not be resampled.
    """
    chosen = _choose(inventory, choices)
    frames, problems = _usable(inventory.series[chosen], choices)
    notes = _words_of(inventory.passed_over) + _words_of(_by_reason(problems))
    others = [frame for uid, others in inventory.series.items() if uid != chosen for frame in others]
    notes += (f"{_names(others)}: of another series",) if others else ()
    fatal = [(frame, problem) for frame, problem in problems if not problem.skip]
    if fatal or not frames:
        raise _refusal(inventory, fatal or problems)
    frames, odd = _one_plane(inventory, frames, choices)
    if odd:
        notes += (f"{_names(odd)}: another orientation, size or frame of reference than the other slices",)
    notes += _words_of(_by_oddity(frames))
    if any(frame.lossy for frame in frames):
        notes += ("the series was compressed with loss; its HU are not exact",)
    return _stack(inventory.folder, frames, choices, notes)


def _files(folder: Path, *, deep: bool) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise SeriesError(f"{folder} does not exist. Give the folder of a DICOM series.", code="E_NO_FOLDER")
    found = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(folders) if deep else []
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted(names) + linked:
            found += 1
            if found > MAX_FILES:
                raise SeriesError(f"{folder} holds more than {MAX_FILES} files. Point at the folder of one study.")
            yield Path(place) / name


def without_file_names(text: str, folder: Path) -> str:
    """A message about a series without the names of its files, which may name its patient."""
    files = {file.name for file in folder.rglob("*")} if folder.is_dir() else set()
    for name in sorted((name for name in files if len(name) > 3 and name in text), key=len, reverse=True):
        text = re.sub(rf"(?<![\w/]){re.escape(name)}(?!\w)", "(a file)", text)
    return text


def without_uids(text: str) -> str:
    """A message without UIDs."""
    return _UID.sub("(a UID)", text)


def _require_inside(path: Path, folder: Path) -> None:
    """Let only regular files through, and links only to what lies in the folder itself."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()) and path != folder:
        raise FileFormatError("a link that leads out of the folder")
    if not path.is_file():
        raise FileFormatError("not a regular file")


def _problems(frame: Frame, choices: Choices) -> Iterator[Problem]:
    if drawing := _DRAWINGS.get(frame.modality):
        yield Problem("E_MODALITY", f"Modality is {frame.modality}, not CT; {drawing} is drawn on a CT", skip=True)
        return
    yield from _not_a_ct_slice(frame, choices)
    yield from _without_place(frame)
    yield from _not_hu(frame)
    if frame.compressed and frame.transfer_syntax not in PLUGINS:
        yield Problem(
            "E_SYNTAX",
            f"compressed in a way ({name_of(frame.transfer_syntax) or 'unknown'}) for which there is no decoder",
        )


def _not_a_ct_slice(frame: Frame, choices: Choices) -> Iterator[Problem]:
    if frame.modality != "CT":
        yield Problem("E_MODALITY", f"Modality is {_code(frame.modality) or 'missing'}, not CT", skip=True)
    elif frame.sop_class and frame.sop_class not in _CT_CLASSES:
        yield Problem("E_MODALITY", f"SOP class is {name_of(frame.sop_class) or 'unknown'}, not a CT image", skip=True)
    if "LOCALIZER" in frame.image_type:
        yield Problem("E_LOCALIZER", "a localizer (scout view)", skip=True)
    if frame.burned_in:
        yield Problem("E_BURNED_IN", "text is burned into the pixels (BurnedInAnnotation is YES)", skip=True)
    # an image compressed with loss must call itself derived (PS3.3 C.7.6.1.1.2)
    if frame.image_type[:1] == ("DERIVED",) and not frame.lossy and not choices.allow_derived:
        yield Problem(
            "E_DERIVED", "ImageType is DERIVED (read it with allow_derived=True if it is a CT scan)", skip=True
        )
    if frame.rows < 1 or frame.columns < 1:
        yield Problem("E_NO_IMAGE", "no Rows and Columns: not an image, or a header that is cut off", skip=True)


def _code(text: str) -> str:
    """A coded word as it may be shown; a damaged header could hold anything in its place."""
    return text if re.fullmatch(r"[A-Z0-9_ ]{0,16}", text) else "unreadable"


def _without_place(frame: Frame) -> Iterator[Problem]:
    if frame.position_mm is None:
        yield Problem("E_POSITION", "no position (ImagePositionPatient)")
    if frame.orientation is None:
        yield Problem("E_POSITION", "no orientation (ImageOrientationPatient)")
    elif not _orthonormal(frame.orientation):
        values = "\\".join(f"{x:g}" for x in frame.orientation)
        yield Problem("E_POSITION", f"an impossible orientation ({values})")
    if frame.spacing_mm is None or min(frame.spacing_mm) <= 0:
        yield Problem("E_POSITION", "no pixel spacing")


def _orthonormal(orientation: Sequence[float]) -> bool:
    axes = np.reshape(orientation, (2, 3))
    return bool(np.allclose(axes @ axes.T, np.eye(2), atol=1e-2))


def _not_hu(frame: Frame) -> Iterator[Problem]:
    if frame.samples != 1 or frame.photometric not in ("", "MONOCHROME2"):
        yield Problem("E_NOT_HU", f"{frame.samples} samples a pixel, {_code(frame.photometric)}: a picture, not HU")
    if frame.slope is None or frame.intercept is None or frame.slope == 0:
        yield Problem("E_NOT_HU", "no RescaleSlope and RescaleIntercept, so stored values cannot be turned into HU")
    elif not frame.signed and frame.intercept >= 0 and frame.slope > 0:
        top = 2**frame.bits_stored - 1
        yield Problem(
            "E_NOT_HU", f"stored values 0 to {top} with intercept {frame.intercept:g}: air would not be below 0 HU"
        )
    elif abs(frame.slope) * 2**frame.bits_stored < _LEAST_HU:
        yield Problem("E_NOT_HU", f"a slope of {frame.slope:g} leaves no room between air and tissue")
    if 0 < frame.bits_stored <= 8:
        yield Problem("E_NOT_HU", f"{frame.bits_stored} bits a pixel cannot hold HU")
    # US is "unspecified", which gdcm and tools built on it write for every CT
    if frame.rescale_type not in ("", "HU", "US"):
        yield Problem("E_NOT_HU", "RescaleType is another than HU")


def _usable(frames: Iterable[Frame], choices: Choices) -> tuple[list[Frame], list[tuple[Frame, Problem]]]:
    """Frames without a problem; and every problem of those to report, unless the frame is left out anyway."""
    good, bad = [], []
    for frame in frames:
        problems = list(_problems(frame, choices))
        if not problems:
            good.append(frame)
        skipped = any(problem.skip for problem in problems)
        bad += [(frame, Problem(p.code, p.words, skip=skipped)) for p in problems]
    return good, bad


def _describe(uid: str, frames: list[Frame], choices: Choices) -> SeriesInfo:
    good, bad = _usable(frames, choices)
    first = (good or frames)[0]
    counts = Counter(problem.words for _, problem in bad)
    return SeriesInfo(
        uid,
        first.series_number,
        first.modality,
        len(good),
        first.thickness_mm,
        first.kernel,
        tuple(f"{words} ({n} images)" for words, n in counts.items()),
    )


def _choose(inventory: Inventory, choices: Choices) -> str:
    infos = describe_series(inventory, choices)
    if not infos:
        passed = "; ".join(_words_of(inventory.passed_over)) or "it is empty"
        raise SeriesError(f"{inventory.folder} holds no DICOM image: {passed}.", code="E_NO_DICOM")
    if choices.series_uid is not None:
        if choices.series_uid not in inventory.series:
            raise SeriesError(f"{inventory.folder} has no series of the UID asked for. It holds:\n{_table(infos)}")
        return choices.series_uid
    fit = [info for info in infos if info.slices >= choices.min_slices]
    if len(fit) > 1:
        raise SeriesError(
            f"{inventory.folder} holds {len(fit)} CT series. Choose one by its UID (--series, or series_uid=...):\n{_table(fit)}"
        )
    if fit:
        return fit[0].uid
    if len(infos) > 1 and not any(info.slices for info in infos):
        raise _refusal(inventory, [bad for frames in inventory.series.values() for bad in _usable(frames, choices)[1]])
    return max(infos, key=lambda info: info.slices).uid


def _table(infos: Iterable[SeriesInfo]) -> str:
    return "\n".join(f"  {info}" for info in infos)


def _refusal(inventory: Inventory, problems: Sequence[tuple[Frame, Problem]]) -> InputError:
    """The error that lists every reason; its code is that of the gravest."""
    codes = {problem.code for _, problem in problems}
    reasons = "; ".join(_words_of(_by_reason(problems)))
    drawn = any(frame.modality in _DRAWINGS for frame, _ in problems)
    advice = (
        "Give the folder of the CT series that it was drawn on." if drawn else "Export the original CT images again."
    )
    message = f"{inventory.folder} cannot be read as a CT series in HU. {reasons}. {advice}"
    if "E_NOT_HU" in codes:
        return IntensityError(message)
    return SeriesError(message, code=codes.pop() if len(codes) == 1 else "E_SERIES")


def _by_reason(problems: Iterable[tuple[Frame, Problem]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for frame, problem in problems:
        reasons[problem.words].append(frame.path.name)
    return reasons


def _by_oddity(frames: Iterable[Frame]) -> dict[str, list[str]]:
    oddities: dict[str, list[str]] = defaultdict(list)
    for frame in frames:
        if frame.oddity:
            oddities[frame.oddity].append(frame.path.name)
    return oddities


def _words_of(reasons: dict[str, list[str]]) -> tuple[str, ...]:
    """One entry for each set of files, with everything that is said of them."""
    said: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for words, names in reasons.items():
        said[tuple(dict.fromkeys(names))].append(words)
    return tuple(f"{_shorten(names)}: {', '.join(all_words)}" for names, all_words in said.items())


def _names(frames: Iterable[Frame]) -> str:
    return _shorten([frame.path.name for frame in frames])


def _shorten(names: Iterable[str], most: int = 4) -> str:
    different = list(dict.fromkeys(names))
    rest = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + rest


def _one_plane(inventory: Inventory, frames: list[Frame], choices: Choices) -> tuple[list[Frame], list[Frame]]:
    """The largest set of frames with one orientation, size and pixel spacing; the others, if they are few."""
    planes: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in frames:
        numbers = (*(frame.orientation or ()), *(frame.spacing_mm or ()))
        planes[(frame.rows, frame.columns, frame.frame_of_reference, *np.round(numbers, 3).tolist())].append(frame)
    largest, *others = sorted(planes.values(), key=len, reverse=True)
    if any(len(other) >= choices.min_slices for other in others):
        raise SeriesError(
            f"{inventory.folder}: one series mixes stacks of several orientations, sizes or frames of reference: "
            + "; ".join(f"{len(plane)} images ({_names(plane)})" for plane in (largest, *others))
            + ". Put the files of one stack in a folder of their own.",
            code="E_ORIENTATION",
        )
    return largest, [frame for other in others for frame in other]


def _stack(folder: Path, frames: list[Frame], choices: Choices, notes: tuple[str, ...]) -> Stack:
    row_axis, column_axis = np.reshape(frames[0].orientation or (), (2, 3))
    normal = np.cross(row_axis, column_axis)
    places = np.array([frame.position_mm for frame in frames])
    order = np.argsort(places @ normal, kind="stable")
    ordered, places = tuple(frames[i] for i in order), places[order]
    along = places @ normal
    new = np.diff(along, prepend=-np.inf) > _SAME_MM
    slots = tuple((np.cumsum(new) - 1).tolist())
    _require_enough(folder, ordered, int(new.sum()), choices, notes)
    _require_straight(folder, ordered, places, along)
    step, between = _spacing(folder, places[new], along[new], choices, ordered[0])
    step = _without_rounding(step, normal, along[-1] - along[0])
    _require_no_tilt(folder, ordered[0], step, normal, choices)
    row_mm, column_mm = ordered[0].spacing_mm or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, column_axis * row_mm, row_axis * column_mm, places[0]])
    return Stack(ordered, slots, affine, between, notes)


def _require_enough(
    folder: Path, frames: Sequence[Frame], slices: int, choices: Choices, notes: tuple[str, ...]
) -> None:
    if slices < max(2, choices.min_slices):
        why = f" Passed over: {'; '.join(notes)}." if notes else ""
        raise SeriesError(
            f"{folder} holds {slices} slices at different positions; a chest CT has at least {choices.min_slices}.{why}",
            code="E_FEW",
        )
    _require_small(folder, slices, frames[0])


def _require_small(folder: Path, slices: float, frame: Frame) -> None:
    if slices * frame.rows * frame.columns > MAX_VOXELS:
        raise SeriesError(f"{folder} claims more than {MAX_VOXELS} voxels; no chest CT has so many.", code="E_SIZE")


def _require_straight(folder: Path, frames: Sequence[Frame], places: np.ndarray, along: np.ndarray) -> None:
    """First voxels must lie on one line, or the slices are shifted against each other."""
    share = (along - along[0]) / (along[-1] - along[0])
    off_mm = np.linalg.norm(places - places[0] - share[:, None] * (places[-1] - places[0]), axis=1)
    if off_mm.max() > 2 * _ROUNDED_MM:
        away = [frame for frame, off in zip(frames, off_mm, strict=True) if off > 2 * _ROUNDED_MM]
        raise SeriesError(
            f"{folder}: slices are shifted within their plane, by up to {off_mm.max():.3g} mm: {_names(away)}. "
            "They are not one acquisition; put the files of one in a folder of their own.",
            code="E_POSITION",
        )


def _spacing(
    folder: Path, places: np.ndarray, along: np.ndarray, choices: Choices, frame: Frame
) -> tuple[np.ndarray, np.ndarray | None]:
    """The step from slice to slice in mm; and, to interpolate, where the wanted slices lie among the stored ones."""
    n = len(along)
    step_mm = (along[-1] - along[0]) / (n - 1)
    off_mm = np.abs(along - along[0] - step_mm * np.arange(n)).max()
    if off_mm <= min(_ROUNDED_MM + 0.01 * step_mm, 0.2 * step_mm):
        return (places[-1] - places[0]) / (n - 1), None
    if choices.uneven == "refuse":
        raise _uneven(folder, places, np.diff(along))
    usual = float(np.median(np.diff(along)))
    _require_small(folder, (along[-1] - along[0]) / usual, frame)
    wanted = np.arange(along[0], along[-1] + _SAME_MM, usual)
    return (places[-1] - places[0]) * (usual / (along[-1] - along[0])), np.interp(wanted, along, np.arange(n))


def _uneven(folder: Path, places: np.ndarray, steps_mm: np.ndarray) -> SeriesError:
    usual = float(np.median(steps_mm))
    times = np.rint(steps_mm / usual).astype(int)
    wide = times > 1
    whole = bool((np.abs(steps_mm / usual - times) < 0.1).all())
    hint = 'Find the missing files, or read it with uneven="interpolate".'
    # three wide steps in a row are another spacing, not three files lost
    if whole and not (wide[2:] & wide[1:-1] & wide[:-2]).any():
        return SeriesError(
            f"{folder}: {int((times - 1).sum())} slices are missing, at {_missing(places, times)}. {hint}", code="E_GAP"
        )
    counts = Counter(f"{step:.4g}" for step in steps_mm)
    steps = ", ".join(f"{n} x {step} mm" for step, n in counts.most_common(5))
    return SeriesError(
        f'{folder}: slices are unequally spaced: {steps}. Choose an evenly spaced series, or read it with uneven="interpolate".',
        code="E_SPACING",
    )


def _missing(places: np.ndarray, times: np.ndarray) -> str:
    axis = int(np.abs(places[-1] - places[0]).argmax())
    lost = [
        low + (high - low) * part / n
        for low, high, n in zip(places[:-1, axis], places[1:, axis], times.tolist(), strict=True)
        for part in range(1, n)
    ]
    return "xyz"[axis] + " = " + _shorten([f"{mm:.5g}" for mm in lost], most=8) + " mm"


def _without_rounding(step: np.ndarray, normal: np.ndarray, length_mm: float) -> np.ndarray:
    """A step that leaves the normal by no more than positions are rounded to is meant to follow it."""
    along = (step @ normal) * normal
    off_mm = np.linalg.norm(step - along) / np.linalg.norm(along) * length_mm
    return along if off_mm <= _ROUNDED_MM else step


def _require_no_tilt(folder: Path, frame: Frame, step: np.ndarray, normal: np.ndarray, choices: Choices) -> None:
    along = float(step @ normal)
    degrees = float(np.degrees(np.arccos(min(1.0, along / float(np.linalg.norm(step))))))
    if degrees > 0.1 and choices.oblique == "refuse":
        said = "" if not frame.tilt_degrees else f" (the header says a gantry tilt of {frame.tilt_degrees:g} degrees)"
        raise GeometryError(
            f"{folder}: slices are sheared by {degrees:.3g} degrees against their normal{said}. "
            f"Resample it first; {ON_REQUEST}.",
            code="E_TILT",
        )
