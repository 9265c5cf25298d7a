"""The worklist of an audit: a page with a picture of every finding, on which a reader decides by keyboard.

It is one file that asks no network. Decisions stay in the browser until they are saved as ``decisions.json``, which
``lungshift audit --apply`` carries out.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from lungshift.audit.correct import FORMAT
from lungshift.audit.finding import Finding, rank, runs
from lungshift.audit.judged import Judged, identity_of, rank_judged, write_suspects
from lungshift.audit.suspects import Opinion
from lungshift.ct.case import Case, Cohort
from lungshift.ct.volume import Mask
from lungshift.errors import InputError
from lungshift.files import digest, write_text
from lungshift.prepare.grid import SliceGrid
from lungshift.show.drawing import rgb
from lungshift.show.figures import PREDICTION, REFERENCE
from lungshift.show.report import page_environment
from lungshift.show.words import RESEARCH_ONLY
from lungshift.transfer.auditing import JudgedCohort, Worth, opinion_of

SUSPECT: Final = "#ff4d4d"
"""What a finding is about, where its voxels are known."""

_LOW_HU, _HIGH_HU = -1200, 300
_SIDE, _SMALL, _THUMB = 420, 210, 170
_MARGIN = 6
_PICTURE = 192

Look = Callable[[str, str], tuple[Opinion, int] | None]
"""Gives label, networks and scan of a cohort's case, and the slice where they begin; None where there is no picture of it."""


@dataclass(frozen=True)
class Entry:
    """A finding on the page.

    Attributes:
        identity: What a decision calls it.
        belief: Probability that it is an error; NaN where nobody said.
        expected_ml: Volume that is expected to be wrong; NaN likewise.
        pictures: The slice with and without outlines, its neighbours below and above, and the lungs from the front and the side, as data
            URIs; empty where there is no picture.
    """

    identity: str
    finding: Finding
    belief: float
    expected_ml: float
    pictures: tuple[str, ...]

    @property
    def slices(self) -> str:
        """Its slices as a person writes them."""
        return runs(self.finding.slices)


def entries_of(judged: Sequence[Judged], others: Sequence[Finding], look: Look) -> tuple[Entry, ...]:
    """The findings of a worklist with their pictures, in the order given, those of networks first; a case is looked at once."""
    found: dict[str, Entry] = {}
    every: list[tuple[str, Finding, Judged | None]] = [(one.identity, one.finding(), one) for one in judged]
    every += [(identity_of(one), one, None) for one in others]
    for key in dict.fromkeys((finding.cohort, finding.case) for _, finding, _ in every):
        seen = look(*key)
        for identity, finding, one in every:
            if (finding.cohort, finding.case) == key:
                pictures = _pictures(seen, finding, one) if seen else ()
                belief, ml = (one.belief, one.expected_ml) if one else (float("nan"), float("nan"))
                found[identity] = Entry(identity, finding, belief, ml, pictures)
    return tuple(found[identity] for identity, _, _ in every)


def write_audit_page(
    cohorts: Sequence[Cohort],
    findings: Sequence[Finding],
    judged: Sequence[JudgedCohort],
    folder: Path,
    *,
    top: int = 60,
) -> Path:
    """Keep the suspects of an audit in its folder and write ``audit.html``.

    Args:
        cohorts: That were audited.
        findings: What was found without networks; those about labels that are no notes stand on the page.
        judged: What networks found.
        folder: Of the audit.
        top: So many findings of each kind of finder are shown, the first in their order.
    """
    suspects = rank_judged(one for cohort in judged for one in cohort.suspects)[:top]
    others = [one for one in rank(findings) if one.kind == "label" and one.severity != "note" and one.seat is not None][
        :top
    ]
    write_suspects(suspects, folder, others)
    names = [cohort.name for cohort in cohorts]
    entries = entries_of(suspects, others, _look(cohorts, judged))
    worth = {cohort.found.prepared.name: cohort.worth for cohort in judged}
    return write_worklist(entries, folder / "audit.html", names=names, worth=worth)


def _look(cohorts: Sequence[Cohort], judged: Sequence[JudgedCohort]) -> Look:
    """Pictures of the networks' own where there are some, else of the scan as it is."""
    by_name = {cohort.found.prepared.name: cohort.found for cohort in judged}
    records = {(cohort.name, case.case_id): case for cohort in cohorts for case in cohort.cases}

    def look(cohort: str, case: str) -> tuple[Opinion, int] | None:
        if cohort in by_name:
            cases = [one.case_id for one in by_name[cohort].prepared.cases]
            return opinion_of(by_name[cohort], cases.index(case))
        try:
            return _without_networks(records[cohort, case].read()), 0
        except InputError:
            return None

    return look


def _without_networks(case: Case) -> Opinion:
    """A case on small pictures, with what is marked and nothing else."""
    geometry = case.volume.geometry
    grid = SliceGrid(geometry.shape[1], geometry.shape[2], _PICTURE)
    nothing = np.zeros((geometry.shape[0], _PICTURE, _PICTURE), bool)

    def masks(mask: Mask | None) -> np.ndarray:
        return nothing if mask is None else np.stack([grid.mask(one) for one in mask.voxels])

    hu = np.stack([grid.image(one, "linear") for one in case.volume.hu])
    pixel_mm = geometry.spacing_mm[1] * max(geometry.shape[1:]) / _PICTURE
    quiet = nothing.astype(np.float32)
    spacing = (geometry.spacing_mm[0], pixel_mm, pixel_mm)
    return Opinion(masks(case.lesion), quiet, quiet, quiet, hu, masks(case.lung), spacing)


def write_worklist(
    entries: Sequence[Entry], path: Path, *, names: Sequence[str], worth: Mapping[str, Worth] | None = None
) -> Path:
    """Write the page.

    Args:
        entries: From ``entries_of``.
        path: ``audit.html``.
        names: Of the cohorts.
        worth: What the F1 is and would be were the list right, by the name of each cohort that networks looked at.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    script = (resources.files("lungshift.show") / "templates" / "worklist.js").read_text()
    page = (
        page_environment()
        .get_template("worklist.html.j2")
        .render(
            entries=entries,
            names=names,
            worth=list((worth or {}).items()),
            format=FORMAT,
            audit=digest([entry.identity for entry in entries])[:16],
            research_only=RESEARCH_ONLY,
            colours={"reference": REFERENCE, "prediction": PREDICTION, "suspect": SUSPECT},
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    write_text(path, page)
    return path


def _pictures(seen: tuple[Opinion, int], finding: Finding, one: Judged | None) -> tuple[str, ...]:
    opinion, first = seen
    at = _slice_of(finding, one) - first
    if not 0 <= at < len(opinion.hu):
        return ()
    inside = _suspect(opinion, first, one)
    box = _lungs(opinion)
    below, above = max(at - 1, 0), min(at + 1, len(opinion.hu) - 1)
    plain = _slice(opinion, at, box, None, outlines=False)
    marked = [_slice(opinion, n, box, inside, outlines=True) for n in (at, below, above)]
    sizes = (_SIDE, _SIDE, _SMALL, _SMALL)
    slices = [_uri(picture, size) for picture, size in zip((plain, *marked), sizes, strict=True)]
    return (*slices, *(_uri(picture, _THUMB) for picture in _views(opinion, inside, at)))


def _slice_of(finding: Finding, one: Judged | None) -> int:
    if one is not None:
        return one.suspect.seat[0]
    return finding.seat[0] if finding.seat else (finding.slices[len(finding.slices) // 2] if finding.slices else -1)


def _suspect(opinion: Opinion, first: int, one: Judged | None) -> Bool[np.ndarray, "slice row column"]:
    inside = np.zeros(opinion.reference.shape, bool)
    if one is not None:
        here = one.suspect.moved(-first)
        inside[here.box] = here.inside
    return inside


def _lungs(opinion: Opinion) -> tuple[slice, slice]:
    """Rows and columns around lungs and label."""
    where = (opinion.lung | opinion.reference).any(axis=0)
    if not where.any():
        return slice(None), slice(None)
    box = []
    for axis in (1, 0):
        used = np.flatnonzero(where.any(axis=axis))
        box.append(slice(max(0, int(used[0]) - _MARGIN), int(used[-1]) + 1 + _MARGIN))
    return box[0], box[1]


def _slice(
    opinion: Opinion, at: int, box: tuple[slice, slice], inside: np.ndarray | None, *, outlines: bool
) -> UInt8[np.ndarray, "row column 3"]:
    """A slice in a lung window, twice as large, with label and networks as outlines and the suspect tinted."""
    grey = np.clip((opinion.hu[at][box].astype(np.float32) - _LOW_HU) / (_HIGH_HU - _LOW_HU), 0, 1)
    picture = np.repeat(np.repeat(np.stack([grey] * 3, axis=-1), 2, axis=0), 2, axis=1)
    if not outlines:
        return _bytes(picture)
    if inside is not None:
        tint = _twice(inside[at][box])
        picture[tint] = 0.6 * picture[tint] + 0.4 * np.array(rgb(SUSPECT))
    for mask, colour in ((opinion.reference, REFERENCE), (opinion.predicted, PREDICTION)):
        one = _twice(mask[at][box])
        picture[one & ~ndimage.binary_erosion(one)] = rgb(colour)
    return _bytes(picture)


def _views(opinion: Opinion, inside: np.ndarray, at: int) -> list[UInt8[np.ndarray, "row column 3"]]:
    """The lungs seen through from the front and from the patient's left, head up, with label, networks, suspect and the slice shown."""
    views = []
    for axis, pixel_mm in ((1, opinion.spacing_mm[2]), (2, opinion.spacing_mm[1])):
        depth = opinion.lung.sum(axis=axis).astype(np.float32)
        grey = 0.15 + 0.55 * depth / max(float(depth.max()), 1.0)
        picture = np.stack([grey] * 3, axis=-1)
        for mask, colour, share in (
            (opinion.reference, REFERENCE, 0.6),
            (opinion.predicted, PREDICTION, 0.45),
            (inside, SUSPECT, 0.9),
        ):
            where = mask.any(axis=axis)
            picture[where] = (1 - share) * picture[where] + share * np.array(rgb(colour))
        picture[at] = 0.5 * picture[at] + 0.5
        tall = max(1, round(len(picture) * opinion.spacing_mm[0] / pixel_mm))
        rows = ((np.arange(tall) + 0.5) * len(picture) / tall).astype(int)
        used = np.flatnonzero(depth.any(axis=0))
        columns = slice(max(0, int(used[0]) - _MARGIN), int(used[-1]) + 1 + _MARGIN) if len(used) else slice(None)
        views.append(_bytes(picture[rows[::-1]][:, columns]))
    return views


def _twice(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1)


def _bytes(picture: np.ndarray) -> UInt8[np.ndarray, "row column 3"]:
    return np.asarray(np.rint(np.clip(picture, 0, 1) * 255), dtype=np.uint8)


def _uri(picture: UInt8[np.ndarray, "row column 3"], width: int) -> str:
    from PIL import Image

    image, stream = Image.fromarray(picture), io.BytesIO()
    size = (width, max(1, round(width * picture.shape[0] / picture.shape[1])))
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
