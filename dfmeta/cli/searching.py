"""``dfmeta compress --target``: the best student that fits a runtime or chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dfmeta.pipeline._search_report import Row
    from dfmeta.pipeline.searching import Searched


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search is asked for, as the command line has it."""

    target: str | None
    board: str
    ram: str | None
    flash: str | None
    fpu: bool | None
    candidates: int | None
    steps: int | None

    def require_alone(self, others: Mapping[str, object]) -> None:
        """Refuse options that say nothing together.

        Args:
            others: options that say what to do step by step, and their values; None where they are not given.

        Raises:
            typer.BadParameter: a target beside steps, or what belongs to a target without one.
        """
        steps = ", ".join(f"--{name}" for name, value in others.items() if value is not None)
        if self.target is not None and steps:
            raise typer.BadParameter(f"a target and {steps}: the search chooses the steps.", param_hint="'--target'")
        own = {f"--{name}": getattr(self, name) for name in ("board", "ram", "flash", "candidates", "steps")}
        own["--no-fpu" if self.fpu is False else "--fpu"] = self.fpu
        given = ", ".join(option for option, value in own.items() if value not in (None, ""))
        if self.target is None and given:
            raise typer.BadParameter(f"{given} without --target, which says whose they are.", param_hint="'--target'")


def search(bundle: Path, out: Path, asked: Asked, given: Mapping[str, Any], *, as_json: bool) -> None:
    """Run the search and print what it found.

    Args:
        bundle: its folder.
        out: folder to make.
        asked: target, budgets, and how much to try.
        given: the verb's other options by name; ``method``, ``count`` and ``settings`` are None where they are not
            given.
        as_json: whether to print JSON.
    """
    ram, flash = options.size("--ram", asked.ram), options.size("--flash", asked.flash)
    inputs = {name: given[name] for name in ("method", "count", "settings") if given[name] is not None}
    measured = {name: given[name] for name in ("data", "limit", "seed", "device", "inputs")}
    tried = {name: getattr(asked, name) for name in ("candidates", "steps") if getattr(asked, name) is not None}
    with progress.shown() as report:
        from dfmeta.compress.recipe import Inputs
        from dfmeta.pipeline.searching import Config, search_target

        found = search_target(
            bundle,
            out,
            asked.target or "",
            board=asked.board,
            ram=ram,
            flash=flash,
            fpu=asked.fpu,
            config=Config(**tried),
            wanted=Inputs(**inputs),
            **measured,
            progress=report,
        )
    output.warn(found.notes)
    output.result(found.as_dict(), _tables(found), as_json=as_json)


def _tables(found: Searched) -> list[RenderableType]:
    from dfmeta.report import columns_table, facts_table, integer, percent

    columns = ["candidate", "parameters", "MACs", "flash", "RAM", "fits", "agreement", "as written"]
    cells = [_cells(row) for row in found.candidates]
    place = f"{found.target} on {found.board}" if found.board else found.target
    place = place if found.checked.fpu else f"{place}, a core without a floating-point unit"
    facts = [
        ("chosen", found.chosen),
        ("student", str(found.model)),
        ("float student's ranges", found.ranges or "none"),
        ("target", place),
        ("flash", _room(found.flash)),
        ("RAM", _room(found.ram)),
        ("agreement", f"{percent(found.agreement)} on {integer(found.held_out)} held-out synthetic inputs, as written"),
        ("synthetic inputs", f"{integer(found.inputs)} to train on, {found.inputs_from}"),
        *((f"without {one.name}", one.reason) for one in found.left_out),
        ("units", integer(found.measured[0].count) if found.measured else "none measured: give --data"),
        ("source", found.source),
    ]
    tables: list[RenderableType] = [columns_table(columns, cells, numbers=[*columns[1:5], *columns[6:]])]
    if found.measured:
        models = [[one.name, _percent(one.accuracy), _percent(one.agreement)] for one in found.measured]
        tables.append(columns_table(["on data", "accuracy", "agreement"], models, numbers=("accuracy", "agreement")))
    return [*tables, facts_table(facts)]


def _cells(row: Row) -> list[str]:
    from dfmeta.report import integer

    costs = (row.parameters, row.macs, row.flash_bytes, row.ram_bytes)
    scores = (row.rounds[-1] if row.rounds else None, row.final)
    return [
        f"{row.name} *" if row.chosen else row.name,
        *("-" if each is None else integer(each) for each in costs),
        "yes" if row.fits else "no",
        *("-" if each is None else _percent(each.agreement) for each in scores),
    ]


def _percent(value: float | None) -> str:
    from dfmeta.report import percent

    return "-" if value is None else percent(value)


def _room(limit: int | None) -> str:
    from dfmeta.report import integer

    return "no limit" if limit is None else f"at most {integer(limit)} B"
