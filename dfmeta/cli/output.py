"""What is printed: the result on stdout, once; everything else on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

# Where nobody looks at a screen, lines this long hold every table whole.
_PIPE_WIDTH = 160
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def result(facts: Mapping[str, object], tables: Sequence[RenderableType], *, as_json: bool) -> None:
    """Print what a verb found.

    Args:
        facts: for ``--json``: dataclasses, paths, tuples and the JSON types.
        tables: the same for people.
        as_json: which of the two.
    """
    if as_json:
        document(facts)
        return
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for number, table in enumerate(tables):
            console.print(*[""][:number], table, sep="\n")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def document(facts: Mapping[str, object]) -> None:
    """Print one JSON document on stdout."""
    text = json.dumps(plain(facts), indent=2, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def plain(value: Any) -> Any:
    """The same value in JSON types; a number that JSON cannot hold becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def warn(warnings: Iterable[str]) -> None:
    """Print each on stderr."""
    for warning in warnings:
        say(warning, "warning")


def say(text: str, what: str) -> None:
    """Print ``what: text`` on stderr, safe whatever the text holds, and never wrapped.

    Args:
        text: one or more lines, of unknown origin.
        what: ``error``, ``warning`` or ``note``.
    """
    from rich.console import Console
    from rich.text import Text

    from dfmeta.report.words import clean

    lines = "\n".join(clean(line) for line in text.split("\n"))
    message = Text.assemble((f"{what}:", _STYLES[what]), f" {lines}")
    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(message)
