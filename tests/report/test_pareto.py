"""The picture of what students cost and how far they agree."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from dfmeta.errors import MissingExtra
from dfmeta.report.pareto import ParetoPoint, _front, pareto_picture

pytest.importorskip("matplotlib")

POINTS = [
    ParetoPoint("prune:0.5", "prune", 97.5, 10_000, {"flash": 5_000, "RAM": 900}, chosen=True),
    ParetoPoint("a $name$ that is no formula", "scaled", 91.0, 4_000, {"flash": 2_000, "RAM": 700}),
]
BUDGETS = {"flash": 6_000, "RAM": None}


def test_the_same_points_are_the_same_bytes_and_others_are_not() -> None:
    first = pareto_picture(POINTS, BUDGETS, "Students")
    assert first.startswith(b"\x89PNG")
    assert first == pareto_picture(POINTS, BUDGETS, "Students")
    moved = [replace(POINTS[0], agreement=60.0), POINTS[1]]
    other = [replace(POINTS[0], chosen=False), replace(POINTS[1], chosen=True)]
    pictures = {pareto_picture(points, BUDGETS, "Students") for points in (POINTS, moved, other)}
    pictures.add(pareto_picture(POINTS, {"flash": 9_000, "RAM": None}, "Students"))
    pictures.add(pareto_picture(POINTS, {"flash": 6_000, "RAM": 1_000}, "Students"))
    assert len(pictures) == 5


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dfmeta\[plots\]'"):
        pareto_picture(POINTS, BUDGETS, "Students")


def test_the_front_holds_those_that_no_other_beats() -> None:
    beaten = ParetoPoint("b", "prune", 90.0, 6_000, {"flash": 5_500})
    as_good_and_dearer = ParetoPoint("d", "prune", 97.5, 12_000, {"flash": 5_900})
    points = [*POINTS, beaten, as_good_and_dearer]
    front = _front(points, {one.name: one.macs for one in points})
    assert [one.name for one in front] == [POINTS[1].name, POINTS[0].name]
