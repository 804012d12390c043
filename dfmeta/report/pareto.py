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
_FRONT = "lightgrey"
# Costs within this factor of each other are alike: their names would lie upon each other.
_LIKE = 1.3


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

    A grey line joins those that no other beats in both.

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
    axes.margins(x=0.2, y=0.08)
    if filled:
        front = _front(points, costs)
        axes.step([costs[one.name] for one in front], [one.agreement for one in front], where="post", c=_FRONT, lw=1)
    for one in points:
        colour = colours[one.family]
        edge = _BEST if one.chosen else colour
        face = colour if filled else "none"
        size = 110 if one.chosen else 40
        marker = "*" if one.chosen else "o"
        axes.scatter([costs[one.name]], [one.agreement], s=size, c=[face], edgecolors=edge, marker=marker, zorder=3)
        if filled:
            _name(axes, one, points, costs, colour)


def _name(axes: Any, one: ParetoPoint, points: Sequence[ParetoPoint], costs: Mapping[str, int], colour: str) -> None:
    """Write a point's name away from others of like cost: below where one is above, left where one is to the right."""
    cost = costs[one.name]
    near = [other for other in points if 1 / _LIKE < costs[other.name] / cost < _LIKE]
    crowded = any(other.agreement > one.agreement for other in near)
    right = any(costs[other.name] > cost for other in near)
    axes.annotate(
        one.name,
        (cost, one.agreement),
        xytext=(-4 if right else 4, -11 if crowded else 5),
        ha="right" if right else "left",
        color=colour,
        textcoords="offset points",
        fontsize=_SMALL,
        parse_math=False,
    )


def _front(points: Sequence[ParetoPoint], costs: Mapping[str, int]) -> list[ParetoPoint]:
    """Those that no other beats in cost and agreement, from the cheapest on."""
    front: list[ParetoPoint] = []
    for one in sorted(points, key=lambda point: (costs[point.name], -point.agreement)):
        if not front or one.agreement > front[-1].agreement:
            front.append(one)
    return front


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without the drawing software's name and version the same pixels are the same bytes.
    figure.savefig(stream, format="png", dpi=_PIXELS_AN_INCH, metadata={"Software": None})
    return stream.getvalue()
