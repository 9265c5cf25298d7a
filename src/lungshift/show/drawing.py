"""What all figures share: colours, the style, and how one becomes PNG and SVG bytes. The same input gives the same bytes.

Matplotlib is imported where it is used, drawn without pyplot, and text is never read as mathematics: ids may hold ``$``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lungshift.show.words import LEAK_WARNING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, FAINT, WARNING = "#1b2733", "#5b6773", "#d5dbe1", "#b3161b"
BEFORE, AFTER, LEVEL = "#7d8996", "#0b6e99", "#b3161b"

WIDTH: Final = 4.8
"""Inches of a figure that is also read on a phone: its letters stay readable when it is as wide as the screen."""

_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.hashsalt": "lungshift",
    "text.parse_math": False,
}
_WARNING_STYLE: Final[dict[str, Any]] = {"color": WARNING, "fontsize": 7, "fontweight": "bold"}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A finished figure.

    Attributes:
        name: File name without suffix, safe whatever the ids are.
        group: Where the page puts it: ``curves``, ``forgetting``, ``cases``, ``drop``, ``examples``, ``training``; ``matrix``
            is a table there.
        caption: One line for below it.
        alt: What it shows, for those who do not see it.
    """

    name: str
    group: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


@contextmanager
def style() -> Iterator[None]:
    """Our style for what is drawn inside; Matplotlib is left as it was."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # its keys are a Literal of all settings
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, name: str, group: str, caption: str, alt: str = "") -> Drawing:
    """A figure as bytes, without date and version, so that the same figure is the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Drawing(name, group, caption, alt or caption, png.getvalue(), svg.getvalue())


def warn_of_leak(figure: Figure) -> None:
    """The warning of a leaky split, below the figure."""
    figure.supxlabel(LEAK_WARNING, x=0.006, ha="left", **_WARNING_STYLE)


def grid_lines(axis: Axes, along: str) -> None:
    """Faint lines behind the data, for one axis, whose own line goes."""
    axis.grid(axis=along, color="#e4e8ec", linewidth=0.8)  # type: ignore[arg-type]  # "x" or "y"
    axis.set_axisbelow(True)
    axis.spines["left" if along == "x" else "bottom"].set_visible(False)


def slug(text: str) -> str:
    """Text as part of a file name: lower-case letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def contrast(one: str, other: str) -> float:
    """How much two colours differ in lightness, from 1 to 21, as the WCAG count it; letters need 4.5."""
    dark, light = sorted(_luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def rgb(colour: str) -> tuple[float, float, float]:
    """``#rrggbb`` as red, green and blue between 0 and 1."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
