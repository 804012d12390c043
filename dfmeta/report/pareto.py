"""What students cost, and how far they agree with their teacher: one picture of all that were tried."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dfmeta.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS_AN_INCH = 130
_INCHES = (11.0, 4.8)
_SMALL = 7.5
_BEST = "black"


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One student.

    Attributes:
        name: to write beside it.
        family: those of one family have one colour.
        agreement: percent.
        macs: multiply-accumulates.
        bytes: what it needs of each budget, by the budget's name.
        chosen: whether it is the one.
    """

    name: str
    family: str
    agreement: float
    macs: int
    bytes: Mapping[str, int]
    chosen: bool = False


def pareto_picture(points: Sequence[ParetoPoint], budgets: Mapping[str, int | None], title: str) -> bytes:
    """Agreement against bytes, with a line for each budget, and against multiply-accumulates; the chosen one marked.

    Args:
        points: one or more.
        budgets: bytes that there are, by name; None for no limit. The first is drawn with full markers, the second with
            open ones.
        title: above both panels.

    Returns:
        A PNG. The same points are the same bytes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "a picture of the candidates") from error
    figure = Figure(figsize=_INCHES, layout="constrained")
    figure.suptitle(title, parse_math=False)
    by_bytes, by_macs = figure.subplots(1, 2, sharey=True)
    colours = {family: f"C{place % 10}" for place, family in enumerate(dict.fromkeys(one.family for one in points))}
    for place, (name, limit) in enumerate(budgets.items()):
        _scatter(by_bytes, points, {one.name: one.bytes[name] for one in points}, colours, filled=place == 0)
        if limit is not None:
            by_bytes.axvline(limit, color="grey", linestyle="-" if place == 0 else ":", label=f"{name}: {limit:,} B")
    _scatter(by_macs, points, {one.name: one.macs for one in points}, colours, filled=True)
    full, *others = budgets
    by_bytes.set_xlabel("bytes: " + ", ".join([f"{full} (full)", *(f"{name} (open)" for name in others)]))
    by_macs.set_xlabel("multiply-accumulates")
    by_bytes.set_ylabel("agreement on held-out synthetic inputs, %")
    for family, colour in colours.items():
        by_macs.scatter([], [], c=[colour], label=family)
    by_macs.scatter([], [], c="none", edgecolors=_BEST, marker="*", s=110, label="chosen")
    figure.legend(loc="outside lower center", ncols=8, fontsize=_SMALL)
    return _png(figure)


def _scatter(
    axes: Any, points: Sequence[ParetoPoint], costs: Mapping[str, int], colours: Mapping[str, str], *, filled: bool
) -> None:
    axes.set_xscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.margins(x=0.12, y=0.08)
    for one in points:
        colour = colours[one.family]
        # Families of like sizes lie upon each other: their names are put above and below in turn.
        above = [*colours].index(one.family) % 2 == 0
        edge = _BEST if one.chosen else colour
        face = colour if filled else "none"
        size = 110 if one.chosen else 40
        marker = "*" if one.chosen else "o"
        axes.scatter([costs[one.name]], [one.agreement], s=size, c=[face], edgecolors=edge, marker=marker, zorder=3)
        if filled:
            place = (costs[one.name], one.agreement)
            style = {"textcoords": "offset points", "fontsize": _SMALL, "parse_math": False}
            axes.annotate(one.name, place, xytext=(4, 5 if above else -11), **style)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without the drawing software's name and version the same pixels are the same bytes.
    figure.savefig(stream, format="png", dpi=_PIXELS_AN_INCH, metadata={"Software": None})
    return stream.getvalue()
