"""Facts to rich tables. Every cell is plain text: no markup, no control codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from dfmeta.report.words import clean, integer, percent, size

if TYPE_CHECKING:
    from dfmeta.graph import Costs


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model in a comparison.

    Attributes:
        name: what to call it.
        accuracy: percent of units whose label it names.
        agreement: percent of units on which it names the teacher's class.
        parameters: elements of all learned weights.
        macs: multiply-accumulates for one unit.
        bytes: size of its file.
    """

    name: str
    accuracy: float | None
    agreement: float | None
    parameters: int
    macs: int
    bytes: int

    @classmethod
    def of(cls, name: str, costs: Costs, accuracy: float | None = None, agreement: float | None = None) -> ModelRow:
        """The row of a model that costs so much."""
        return cls(name, accuracy, agreement, costs.parameters, costs.macs, costs.bytes)


_MODEL_COLUMNS: Sequence[tuple[str, Callable[[ModelRow], str | None]]] = (
    ("accuracy", lambda row: None if row.accuracy is None else percent(row.accuracy)),
    ("agreement", lambda row: None if row.agreement is None else percent(row.agreement)),
    ("parameters", lambda row: integer(row.parameters)),
    ("MACs", lambda row: integer(row.macs)),
    ("size", lambda row: size(row.bytes)),
)


def facts_table(rows: Sequence[tuple[str, str]], title: str | None = None) -> Table:
    """Names on the left, values on the right, no lines.

    Args:
        rows: name and value; values of unknown origin may be given as they are.
        title: above the table.
    """
    table = Table(box=None, show_header=False, title=_title(title), title_justify="left", pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(clean(value)))
    return table


def columns_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    numbers: Sequence[str] = (),
) -> Table:
    """A table with a header.

    Args:
        columns: headings.
        rows: as many cells as there are headings.
        title: above the table.
        numbers: headings whose cells are aligned to the right.
    """
    table = Table(box=box.SIMPLE_HEAD, title=_title(title), title_justify="left", pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(Text(name), justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table


def models_table(rows: Sequence[ModelRow], title: str | None = None) -> Table:
    """Models compared; a measure that no row has gets no column, one that a row lacks gets a dash.

    Args:
        rows: the models, in order.
        title: above the table.
    """
    kept = [(name, cell) for name, cell in _MODEL_COLUMNS if any(cell(row) is not None for row in rows)]
    names = [name for name, _ in kept]
    cells = [[row.name, *(cell(row) or "-" for _, cell in kept)] for row in rows]
    return columns_table(["model", *names], cells, title, numbers=names)


def _title(title: str | None) -> Text | None:
    return Text(clean(title), style="bold") if title else None
