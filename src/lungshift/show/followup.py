"""One patient over time on a page: the answer, a timeline, every lesion with what happened to it, pictures, and how good the registration is."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lungshift.ct.case import Case
from lungshift.files import write_bytes, write_json, write_text
from lungshift.measure.density import CONSOLIDATION_HU
from lungshift.measure.matching import FLOOR, LEAST_SHARE, Change, Event, EventKind, Trend
from lungshift.patient.followup import DateFound, FollowUp, Look, Step
from lungshift.patient.registration import LEAST_DICE, MOST_SURFACE_MM, SAME_LUNGS
from lungshift.show.drawing import AFTER, FAINT, INK, MUTED, WIDTH, Drawing, finish, grid_lines, new_figure, style
from lungshift.show.report import page_environment, plain
from lungshift.show.tables import write_csv
from lungshift.show.words import RESEARCH_ONLY, listed, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EARLIER, LATER = "#56B4E9", "#FFB000"
"""Outlines of lesions on the earlier and the later date; told apart by red-green blind people too."""

_WINDOW_HU: Final = (-1350.0, 150.0)
_DIFFERENCE_HU: Final = 500.0
_CHECKS: Final = 8
_TERMINAL: Final = 100
_KINDS: Final[tuple[EventKind, ...]] = ("new", "grown", "stable", "shrunk", "gone", "merged", "split", "regrouped")
_KIND_WORDS: Final[Mapping[EventKind, str]] = {
    "new": "new",
    "grown": "grown",
    "stable": "stable",
    "shrunk": "shrunk",
    "gone": "gone",
    "merged": "merged",
    "split": "split",
    "regrouped": "merged and split",
}
_TREND_WORDS: Final[Mapping[Trend, str]] = {
    "new": "new",
    "grown": "together grown",
    "stable": "together no change beyond noise",
    "shrunk": "together shrunk",
    "gone": "gone",
}
_LUNG_WORDS: Final = {
    "reader": "given as a mask",
    "model": "by a model",
    "threshold": "by threshold: dense lung may be missing",
    "none": "none",
}


@dataclass(frozen=True)
class Told:
    """What a page says beside the numbers.

    Attributes:
        version: Of lungshift.
        inputs: For each date its label and SHA-256 of its files, by what they are.
        models: Fingerprints of the models whose repeatability counts as noise.
        identity: What may be told of the patient; empty unless asked for.
        viewer: Whether ``viewer.html`` lies beside the page.
        viewer_note: Why it does not.
        flags: What was found odd about the scans, in words.
    """

    version: str = ""
    inputs: tuple[tuple[str, Mapping[str, Sequence[str]]], ...] = ()
    models: tuple[str, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict)
    viewer: bool = False
    viewer_note: str = ""
    flags: tuple[str, ...] = ()


def write_follow_up(follow: FollowUp, folder: Path, told: Told) -> str:
    """Write ``followup.html``, ``followup.json``, ``dates.csv``, ``lesions.csv`` and ``figures/``; return the text for the terminal.

    Args:
        follow: What was found.
        folder: Where the files go; files of the same name are replaced. The page is written last.
        told: What the page says beside the numbers.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    drawings = draw_all(follow)
    for drawing in drawings:
        write_bytes(folder / "figures" / f"{drawing.name}.png", drawing.png)
    write_text(folder / "dates.csv", write_csv(date_records(follow)))
    write_text(folder / "lesions.csv", write_csv(event_records(follow)))
    write_json(folder / "followup.json", plain(as_record(follow, told)))
    write_text(folder / "followup.html", render_page(follow, drawings, told))
    return f"{summary(follow)}\n\nLook at {folder / 'followup.html'}" + (
        f"\nIn 3-D  {folder / 'viewer.html'}" if told.viewer else ""
    )


def write_dates_viewer(follow: FollowUp, cases: Sequence[tuple[Case, bool]], path: Path) -> Path:
    """Write ``viewer.html`` with all dates side by side, cursor and cameras linked through the registration.

    Args:
        follow: What was found.
        cases: The scan of each date with its masks, and whether a model drew its lesions.
        path: The page.

    Raises:
        MissingError: VTK, which makes the surfaces, is not installed.
        ResourceError: The disk is full or the folder cannot be written.
    """
    from lungshift.show.viewer import ViewerDate, write_viewer

    to_first, dates = np.eye(4), []
    for number, (date, (case, predicted)) in enumerate(zip(follow.dates, cases, strict=True)):
        if number:
            to_first = to_first @ follow.steps[number - 1].to_earlier
        shown = replace(case, lesion=None) if predicted else case
        dates.append(
            ViewerDate(date.label, shown, case.lesion if predicted else None, to_first, lesion_notes(follow, number))
        )
    return write_viewer(path, dates)


def lesion_notes(follow: FollowUp, number: int) -> dict[int, str]:
    """What is said of each lesion of a date, by its number: what became of it since the date before, and until the next."""
    told: dict[int, list[str]] = {}
    for step in follow.steps:
        for event in step.matching.events:
            words = _KIND_WORDS[event.kind]
            if step.later == number:
                for one in event.after:
                    told.setdefault(one, []).append(f"{words} since {follow.dates[step.earlier].label}")
            if step.earlier == number:
                for one in event.before:
                    told.setdefault(one, []).append(f"{words} by {follow.dates[step.later].label}")
    return {one: "; ".join(words) for one, words in told.items()}


def render_page(follow: FollowUp, drawings: Sequence[Drawing], told: Told) -> str:
    """The page as HTML: no script, no address, every picture inside it."""
    by_name = {drawing.name: drawing for drawing in drawings}
    return str(
        page_environment()
        .get_template("followup.html.j2")
        .render(
            follow=follow,
            told=told,
            question=question(follow),
            answer=answer(follow),
            events=events_sentence(follow),
            noise=noise_words(follow),
            notes=[*told.flags, *notes(follow)],
            timeline=by_name["timeline"],
            steps=[_step_view(number, step, follow, by_name) for number, step in enumerate(follow.steps)],
            date_rows=[_date_row(date) for date in follow.dates],
            changes=[("From first to last", follow.lesion_ml, follow.percent)] if len(follow.steps) > 1 else [],
            definitions=definitions(follow),
            research_only=RESEARCH_ONLY,
            ml=ml,
            span=span,
            signed=signed,
            limits={"dice": f"{LEAST_DICE:.2f}", "surface": f"{MOST_SURFACE_MM:g}", "likeness": f"{SAME_LUNGS:.2f}"},
        )
    )


def question(follow: FollowUp) -> str:
    """What the page answers."""
    return f"What changed in the lungs from {follow.dates[0].label} to {follow.dates[-1].label}?"


def answer(follow: FollowUp) -> str:
    """The answer in a sentence: whether there is more or less lesion, beyond noise or not."""
    first, last, change = follow.dates[0], follow.dates[-1], follow.lesion_ml
    time = f"From {first.label} to {last.label}"
    if not change.before and not change.after:
        return f"{time} there is no lesion in the lungs on either date."
    numbers = (
        f"{ml(change.before)} ml, then {ml(change.after)} ml ({signed(change.change)} ml; 95 % interval {span(change)}); "
        f"{percent(follow.percent.before)} and {percent(follow.percent.after)} % of the lung ({span(follow.percent, 2)})"
    )
    trend = change.trend
    if trend == "stable":
        verdict = "the amount of lesion did not change beyond noise"
    elif trend in ("new", "gone"):
        verdict = "lesion appeared" if trend == "new" else "all lesion went"
    elif follow.trend == "stable":
        verdict = (
            f"lesion in millilitres has {trend}, as percent of lung the other way: that is the lung, not the lesion"
        )
    else:
        verdict = f"there is {'more' if trend == 'grown' else 'less'} lesion, beyond noise"
        if follow.percent.trend == "stable":
            verdict += " in millilitres, though not as percent of the lung"
    return f"{time} {verdict}: {numbers}."


def events_sentence(follow: FollowUp) -> str:
    """How many lesions did what, step by step."""
    sentences = []
    for step in follow.steps:
        counts = Counter(event.kind for event in step.matching.events)
        told = [f"{counts[kind]} {_KIND_WORDS[kind]}" for kind in _KINDS if counts[kind]]
        between = f"{follow.dates[step.earlier].label} to {follow.dates[step.later].label}"
        sentences.append(f"{between}: {listed(told) if told else 'no lesion to follow'}")
    return f"Lesions, {'; '.join(sentences)}."


def noise_words(follow: FollowUp) -> str:
    """What counts as noise here."""
    sources = {date.noise.source for date in follow.dates}
    floor = f"a change of a lesion by less than {100 * FLOOR:.0f} % of its volume, or by less than its voxels can show, counts as none"
    if sources == {"floor"}:
        return (
            f"No model was given, so how the masks would differ had the scans been taken again is not known: {floor}, and the same share "
            "is taken for the whole. The intervals follow from that, not from a measurement."
        )
    mixed = "" if sources == {"model"} else " Dates without a model take the floor."
    return (
        "Noise of the whole is the model's own repeatability: 95 % limits from predicting each scan again as if it had been taken again. Of a single "
        f"lesion it is the same share of its volume, and at least this: {floor}.{mixed}"
    )


def notes(follow: FollowUp) -> list[str]:
    """What a reader should know before the numbers."""
    told = [note for step in follow.steps for note in step.registration.notes]
    told += [
        f"{date.label}: the lung mask was made by threshold; lung as dense as muscle may be missing in it, and with it percent."
        for date in follow.dates
        if date.lung_source == "threshold"
    ]
    for date in follow.dates:
        if date.burden.outside_ml >= follow.least_ml:
            told.append(
                f"{date.label}: {ml(date.burden.outside_ml)} ml of lesion lie outside the lung mask and are in no total."
            )
    sources = {date.lung_source for date in follow.dates}
    if len(sources) > 1:
        told.append("The lung masks of the dates were not made in one way; a change in percent may be that.")
    spacings = {tuple(round(mm, 1) for mm in date.spacing_mm) for date in follow.dates}
    if len({spacing[0] for spacing in spacings}) > 1:
        thick = listed([f"{date.spacing_mm[0]:.1f} mm" for date in follow.dates])
        told.append(
            f"Slices are {thick} apart: thinner ones show smaller lesions, so a small one may only seem new or gone."
        )
    told += [
        f"{_between(follow, step)}: vessels inside the lungs could not be compared, as too little lung is free of lesion; whether it is one "
        "patient was not checked by content."
        for step in follow.steps
        if math.isnan(step.registration.quality.likeness)
    ]
    return list(dict.fromkeys(told))


def date_records(follow: FollowUp) -> list[dict[str, Any]]:
    """A record for each date: what ``dates.csv`` holds."""
    return [
        {
            "date": date.label,
            "day": date.day,
            "lung_ml": date.lung_ml,
            "lesion_ml": date.lesion_ml,
            "lesion_ml_low": max(0.0, date.lesion_ml - date.noise.lesion_ml),
            "lesion_ml_high": date.lesion_ml + date.noise.lesion_ml,
            "percent": date.percent,
            "percent_low": max(0.0, date.percent - date.noise.percent),
            "percent_high": min(100.0, date.percent + date.noise.percent),
            "noise": date.noise.source,
            "consolidation_ml": date.burden.whole.consolidation_ml,
            "outside_lung_ml": date.burden.outside_ml,
            "lesions": len(date.lesions),
            "lung_mask": date.lung_source,
        }
        for date in follow.dates
    ]


def event_records(follow: FollowUp) -> list[dict[str, Any]]:
    """A record for each event: what ``lesions.csv`` holds."""
    return [_event_record(follow, step, event) for step in follow.steps for event in step.matching.events]


def as_record(follow: FollowUp, told: Told) -> dict[str, Any]:
    """Everything, for ``followup.json``."""
    return {
        "answer": answer(follow),
        "events": events_sentence(follow),
        "trend": follow.trend,
        "use": RESEARCH_ONLY,
        "noise": noise_words(follow),
        "notes": [*told.flags, *notes(follow)],
        "dates": [
            record | {"quantities": date.burden.quantities()}
            for record, date in zip(date_records(follow), follow.dates, strict=True)
        ],
        "change": {"lesion_ml": _change(follow.lesion_ml), "percent": _change(follow.percent)},
        "steps": [
            {
                "from": follow.dates[step.earlier].label,
                "to": follow.dates[step.later].label,
                "lesion_ml": _change(step.lesion_ml),
                "percent": _change(step.percent),
                "events": [_event_record(follow, step, event) for event in step.matching.events],
                "not_judged": {"groups": step.matching.specks, "ml": list(step.matching.specks_ml)},
                "registration": asdict(step.registration.quality),
            }
            for step in follow.steps
        ],
        "settings": {
            "tolerance_mm": follow.tolerance_mm,
            "least_ml": follow.least_ml,
            "least_share": LEAST_SHARE,
            "floor": FLOOR,
        },
        "limits": {"least_dice": LEAST_DICE, "most_surface_mm": MOST_SURFACE_MM, "same_lungs": SAME_LUNGS},
        "inputs": [{"date": label, "sha256": dict(files)} for label, files in told.inputs],
        "models": list(told.models),
        "identity": dict(told.identity),
        "version": told.version,
    }


def summary(follow: FollowUp) -> str:
    """The answer, the dates and what happened to each lesion, for the terminal: plain text, at most 100 columns."""
    line = "  {:<12} {:>9} {:>17} {:>9} {:>15} {:>8}"
    table = [line.format("date", "lesion ml", "95 %", "% of lung", "95 %", "lesions")]
    for record in date_records(follow):
        low, high = (ml(record[f"lesion_ml_{side}"]) for side in ("low", "high"))
        few, many = (percent(record[f"percent_{side}"]) for side in ("low", "high"))
        table.append(
            line.format(
                record["date"],
                ml(record["lesion_ml"]),
                f"{low}–{high}",
                percent(record["percent"]),
                f"{few}–{many}",
                record["lesions"],
            )
        )
    blocks = [textwrap.fill(f"{answer(follow)} {RESEARCH_ONLY}.", _TERMINAL), "\n".join(table)]
    for step in follow.steps:
        blocks.append("\n".join([f"{_between(follow, step)}:", *_event_lines(follow, step)]))
    told = [textwrap.fill(f"NOTE: {note}", _TERMINAL) for note in notes(follow)]
    return "\n\n".join([*blocks, *(["\n".join(told)] if told else []), textwrap.fill(noise_words(follow), _TERMINAL)])


def definitions(follow: FollowUp) -> list[tuple[str, str]]:
    """What the words of the page mean."""
    return [
        (
            "Lesion ml, percent of lung",
            "Volume of the lesion mask inside the lung mask, and its share of the lung mask, on each scan's own voxels.",
        ),
        (
            "Interval",
            "95 %, of the change by noise alone: both dates' limits added as squares. It does not cover another breath, another scanner or a mask that is "
            "wrong in the same way each time.",
        ),
        (
            "Grown, shrunk",
            "The interval of the change leaves out 0, both against the earlier volume as it was and against that volume taken larger or smaller as the "
            "lung around it expanded (a lesion is not called grown because the patient breathed in). Otherwise: stable.",
        ),
        (
            "New, gone",
            "No lesion of the other date overlaps, nor comes near as said below. A faint or small one may have been there and not been drawn.",
        ),
        (
            "Merged, split",
            "Several lesions of one date hang together with one of the other. Merged and split: several with several, where which became which cannot be told.",
        ),
        (
            "Which lesions are one",
            f"At least {100 * LEAST_SHARE:.0f} % of the smaller lies in the other once the lungs are laid on each other; of lesions left alone, the nearest "
            f"within {follow.tolerance_mm:g} mm.",
        ),
        (
            "Not judged",
            f"Groups of lesions that are all below {follow.least_ml:g} ml on both dates; pieces below it do not make a merger or a split.",
        ),
        (
            "Registration",
            "The later scan is laid on the earlier: affine on the lung masks, then diffeomorphic demons on what is inside the lungs, without the lesions. It is used "
            f"only if nothing folds (local volume above 0), the lungs overlap by a Dice of {LEAST_DICE:.2f}, their surfaces lie {MOST_SURFACE_MM:.0f} mm apart or "
            f"less on average, and the vessels inside agree (likeness {SAME_LUNGS:.2f}; two people have about 0.1 or less).",
        ),
        ("Consolidation", f"Lesion voxels of {CONSOLIDATION_HU:.0f} HU and more.".replace("-", "−")),
        ("Slices", "Counted from the foot, from 1, in each scan as lungshift reads it."),
    ]


def draw_all(follow: FollowUp) -> list[Drawing]:
    """The timeline, and pictures of each step."""
    with style():
        found = [draw_timeline(follow)]
        for number, step in enumerate(follow.steps):
            labels = follow.dates[step.earlier].label, follow.dates[step.later].label
            for look in step.looks:
                if look.event is not None:
                    found.append(_draw_event(number, step, look, labels))
            found.append(_draw_check(number, [look for look in step.looks if look.event is None], labels))
        return found


def draw_timeline(follow: FollowUp) -> Drawing:
    """Millilitres and percent of lung over the days, with their limits."""
    figure = new_figure(WIDTH, 3.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    records = date_records(follow)
    days = [record["day"] for record in records]
    for axis, name, words in ((upper, "lesion_ml", "lesion, ml"), (lower, "percent", "% of lung")):
        values = np.array([record[name] for record in records])
        off = np.abs(np.array([[record[f"{name}_{side}"] for record in records] for side in ("low", "high")]) - values)
        axis.plot(days, values, "-", color=FAINT, linewidth=2.5, zorder=1)
        axis.errorbar(
            days, values, yerr=off, fmt="o", color=AFTER, ecolor=AFTER, elinewidth=1.4, capsize=4, markersize=5
        )
        axis.set_ylabel(words)
        axis.set_ylim(0, 1.12 * max(1e-9, float(np.nanmax(values + off[1]))))
        grid_lines(axis, "y")
    lower.set_xticks(days, [date.label for date in follow.dates])
    margin = 0.08 * (days[-1] - days[0])
    lower.set_xlim(days[0] - margin, days[-1] + margin)
    upper.set_title(f"Bars: 95 % limits of noise. {RESEARCH_ONLY}.", loc="left", fontsize=8, color=MUTED)
    alt = "; ".join(f"{r['date']}: {ml(r['lesion_ml'])} ml, {percent(r['percent'])} % of lung" for r in records)
    return finish(
        figure, "timeline", "timeline", "Lesion over time, with the 95 % limits of noise.", f"Timeline. {alt}."
    )


def ml(value: float) -> str:
    """Millilitres: two digits after the point below 10, one below 100, none above."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}".replace("-", "−")


def percent(value: float) -> str:
    """Percent of lung; ``undefined`` without lung."""
    return "undefined" if math.isnan(value) else f"{value:.{2 if abs(value) < 1 else 1}f}".replace("-", "−")


def signed(value: float, digits: int | None = None) -> str:
    """With its sign; digits as ``ml`` if not given."""
    if math.isnan(value):
        return "undefined"
    text = ml(abs(value)) if digits is None else f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def span(change: Change, digits: int | None = None) -> str:
    """The interval of a change: ``−1.20 to +3.40``."""
    return f"{signed(change.low, digits)} to {signed(change.high, digits)}"


def _between(follow: FollowUp, step: Step) -> str:
    return f"{follow.dates[step.earlier].label} to {follow.dates[step.later].label}"


def _change(change: Change) -> dict[str, Any]:
    return {
        "before": change.before,
        "after": change.after,
        "change": change.change,
        "low": change.low,
        "high": change.high,
        "change_percent": change.percent,
        "expected_by_the_lung_alone": change.expected,
        "trend": change.trend,
    }


def _event_record(follow: FollowUp, step: Step, event: Event) -> dict[str, Any]:
    earlier, later = follow.dates[step.earlier], follow.dates[step.later]
    return {
        "from": earlier.label,
        "to": later.label,
        "event": event.kind,
        "trend": event.trend,
        "where": _where(earlier, later, event),
        "lesions_before": " ".join(map(str, event.before)),
        "lesions_after": " ".join(map(str, event.after)),
        "slice_before": _slice(earlier, event.before),
        "slice_after": _slice(later, event.after),
        "ml_before": event.volume.before,
        "ml_after": event.volume.after,
        "change_ml": event.volume.change,
        "change_low_ml": event.volume.low,
        "change_high_ml": event.volume.high,
        "change_percent": event.volume.percent,
        "ml_by_the_lung_alone": event.volume.expected,
        "gap_mm": event.distance_mm,
    }


def _where(earlier: DateFound, later: DateFound, event: Event) -> str:
    return later.zones[event.after[0] - 1] if event.after else earlier.zones[event.before[0] - 1]


def _slice(date: DateFound, numbers: Sequence[int]) -> str:
    """Slice of the largest of some lesions, counted from 1; empty for none."""
    return str(1 + date.lesions[numbers[0] - 1].seat[0]) if numbers else ""


def _event_lines(follow: FollowUp, step: Step, most: int = 12) -> Iterator[str]:
    line = "  {:<17} {:<18} {:>11} {:>8} {:>8}  {:<26}"
    yield line.format("event", "where", "lesions", "ml", "then", "change, 95 % interval").rstrip()
    events = sorted(step.matching.events, key=lambda event: event.kind == "stable")
    for event in events[:most]:
        record = _event_record(follow, step, event)
        lesions = f"{_numbers(event.before)} → {_numbers(event.after)}"
        change = f"{signed(event.volume.change)} ({span(event.volume)})"
        yield line.format(
            _KIND_WORDS[event.kind], record["where"], lesions, ml(event.volume.before), ml(event.volume.after), change
        ).rstrip()
    if len(events) > most:
        yield f"  and {len(events) - most} more in lesions.csv"
    if step.matching.specks:
        yield f"  {plural(step.matching.specks, 'group')} below {follow.least_ml:g} ml on both dates not judged"


def _numbers(numbers: Sequence[int], most: int = 3) -> str:
    if not numbers:
        return "–"
    return " ".join(map(str, numbers[:most])) + ("…" if len(numbers) > most else "")


def _date_row(date: DateFound) -> dict[str, Any]:
    return {
        "label": date.label,
        "lung_ml": f"{date.lung_ml:,.0f}",
        "lesion_ml": ml(date.lesion_ml),
        "lesion_span": f"{ml(max(0.0, date.lesion_ml - date.noise.lesion_ml))} to {ml(date.lesion_ml + date.noise.lesion_ml)}",
        "percent": percent(date.percent),
        "percent_span": f"{percent(max(0.0, date.percent - date.noise.percent))} to {percent(date.percent + date.noise.percent)}",
        "consolidation_ml": ml(date.burden.whole.consolidation_ml),
        "lesions": len(date.lesions),
        "counted": date.burden.lesions_counted,
        "lung": _LUNG_WORDS[date.lung_source],
    }


def _step_view(number: int, step: Step, follow: FollowUp, drawings: Mapping[str, Drawing]) -> dict[str, Any]:
    quality = step.registration.quality
    rows = [
        _event_record(follow, step, event)
        | {
            "words": _KIND_WORDS[event.kind],
            "together": _TREND_WORDS[event.trend] if event.kind in ("merged", "split", "regrouped") else "",
            "before_numbers": _numbers(event.before, 6),
            "after_numbers": _numbers(event.after, 6),
            "volume": event.volume,
        }
        for event in sorted(step.matching.events, key=lambda event: event.kind == "stable")
    ]
    return {
        "title": _between(follow, step),
        "earlier": follow.dates[step.earlier].label,
        "later": follow.dates[step.later].label,
        "ml": step.lesion_ml,
        "percent": step.percent,
        "rows": rows,
        "specks": step.matching.specks,
        "specks_ml": step.matching.specks_ml,
        "pictures": [one for name, one in drawings.items() if name.startswith(f"step-{number + 1}-event")],
        "check": drawings[f"step-{number + 1}-registration"],
        "quality": quality,
    }


def _draw_event(number: int, step: Step, look: Look, labels: tuple[str, str]) -> Drawing:
    event = step.matching.events[look.event or 0]
    figure, axes = _panels([look], 2)
    for axis, hu, label in zip(axes[0], (look.earlier, look.later), labels, strict=True):
        _show(axis, hu, look.pixel_mm)
        axis.set_title(label, fontsize=8.5, color=INK)
    _outline(axes[0][0], look.earlier_lesion & look.shown, EARLIER, look.pixel_mm, 1.5)
    _outline(axes[0][0], look.earlier_lesion & ~look.shown, EARLIER, look.pixel_mm, 0.6)
    _outline(axes[0][1], look.later_lesion & look.shown, LATER, look.pixel_mm, 1.5)
    _outline(axes[0][1], look.later_lesion & ~look.shown, LATER, look.pixel_mm, 0.6)
    _outline(axes[0][1], look.earlier_lesion & look.shown, EARLIER, look.pixel_mm, 0.9, "--")
    volume = event.volume
    caption = (
        f"{_KIND_WORDS[event.kind].capitalize()}: {ml(volume.before)} ml, then {ml(volume.after)} ml. Slice {look.slice_index + 1} of {labels[0]}; "
        f"{labels[1]} laid on it."
    )
    name = f"step-{number + 1}-event-{(look.event or 0) + 1:02d}-{event.kind}"
    return finish(figure, name, "planes", caption, f"Two CT slices side by side. {caption}")


def _draw_check(number: int, looks: Sequence[Look], labels: tuple[str, str]) -> Drawing:
    """Earlier, later laid on it, both as a checkerboard, and their difference; an axial and a coronal slice."""
    figure, axes = _panels(looks, 4)
    for row, look in zip(axes, looks, strict=True):
        for axis, hu in zip(row, (look.earlier, look.later, checkerboard(look.earlier, look.later)), strict=False):
            _show(axis, hu, look.pixel_mm)
        _outline(row[1], look.lung, EARLIER, look.pixel_mm, 0.7)
        difference = np.clip(look.later.astype(np.float32) - look.earlier, -_DIFFERENCE_HU, _DIFFERENCE_HU)
        _show(row[3], difference, look.pixel_mm, (-_DIFFERENCE_HU, _DIFFERENCE_HU))
    titles = (labels[0], f"{labels[1]}, laid on it", "checkerboard of both", "difference")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8.5, color=INK)
    caption = (
        f"Registration of {labels[1]} on {labels[0]}: edges run on across the squares of the checkerboard where it is right. Blue: lungs of {labels[0]}. "
        f"Difference: later less earlier, −{_DIFFERENCE_HU:.0f} HU black, +{_DIFFERENCE_HU:.0f} HU white."
    )
    return finish(figure, f"step-{number + 1}-registration", "planes", caption)


def checkerboard(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squares of one picture and of another in turn."""
    side = max(1, min(one.shape) // _CHECKS)
    rows, columns = (np.arange(n) // side for n in one.shape)
    return np.where((rows[:, None] + columns[None, :]) % 2 == 0, one, other)


def _panels(looks: Sequence[Look], columns: int) -> tuple[Any, Any]:
    """A figure with a row for each look, high enough for its picture."""
    width = 4.6 * columns / 2 if columns == 2 else 10.0
    tall = [width / columns * _size_mm(look)[0] / _size_mm(look)[1] for look in looks]
    figure = new_figure(width, sum(tall) + 0.3)
    axes = figure.subplots(len(looks), columns, squeeze=False, height_ratios=tall)
    return figure, axes


def _size_mm(look: Look) -> tuple[float, float]:
    rows, columns = look.earlier.shape
    return rows * look.pixel_mm[0], columns * look.pixel_mm[1]


def _show(
    axis: Axes, picture: np.ndarray, pixel_mm: tuple[float, float], window: tuple[float, float] = _WINDOW_HU
) -> None:
    extent = (0, picture.shape[1] * pixel_mm[1], picture.shape[0] * pixel_mm[0], 0)
    axis.imshow(picture, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, interpolation="bilinear")
    axis.set_axis_off()
    for place, letter in ((0.03, "R"), (0.97, "L")):
        axis.text(
            *(place, 0.97, letter),
            transform=axis.transAxes,
            color="white",
            ha="left" if letter == "R" else "right",
            va="top",
            fontsize=7.5,
            bbox={"facecolor": INK, "edgecolor": "none", "boxstyle": "square,pad=0.15"},
        )


def _outline(
    axis: Axes, mask: np.ndarray, colour: str, pixel_mm: tuple[float, float], width: float, line: str = "-"
) -> None:
    if mask.any() and not mask.all():
        rows, columns = ((np.arange(n) + 0.5) * mm for n, mm in zip(mask.shape, pixel_mm, strict=True))
        axis.contour(columns, rows, mask, levels=[0.5], colors=[colour], linewidths=width, linestyles=line)
