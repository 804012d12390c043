"""What the work of a verb may use: the options, and what the child process that does it tells its parent."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Annotated, Any, get_type_hints

import typer

from dfmeta import _watched
from dfmeta.cli import memory
from dfmeta.errors import LimitExceeded

FIRST_PASS_SECONDS = 600.0
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
# What a message says of a graph, at most: whoever wrote the bundle may have chosen it.
_WORDS = 500


@dataclass(frozen=True, slots=True)
class Bounds:
    """Options of every verb that runs a graph."""

    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Stop if the work holds more memory: 500M, 4G; by machine and graph."),
    ] = None
    first_pass_seconds: Annotated[
        float, typer.Option(metavar="N", min=0.01, help="Stop if a graph takes longer to open, or to run first.")
    ] = FIRST_PASS_SECONDS

    def set(self) -> None:
        """Hold the work to them from now on, if it is watched; check them, if it is not.

        Raises:
            typer.BadParameter: no such size.
        """
        given = size("--max-memory", self.max_memory) if self.max_memory is not None else None
        watcher = _watched.watcher()
        if isinstance(watcher, Teller):
            watcher.bound(given, self.first_pass_seconds)


def bounded(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with these options beside its own."""

    def held(*, bounds: Bounds, **given: Any) -> None:
        bounds.set()
        verb(**given)

    own = signature(verb)
    bounds = Parameter("bounds", Parameter.KEYWORD_ONLY, annotation=Bounds)
    held.__name__, held.__doc__ = verb.__name__, verb.__doc__
    held.__annotations__ = {**get_type_hints(verb, include_extras=True), "bounds": Bounds}
    held.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own.parameters.values()), bounds]
    )
    return held


def size(option: str, text: str) -> int:
    """``4G``, ``4GiB`` or ``4GB`` as bytes: 4 * 1024^3, but for the last, which is 4 * 1000^3; any case.

    Raises:
        typer.BadParameter: other text, or less than one byte.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([KMGT]?)(I?B|)", text.strip().upper(), re.ASCII)
    count = 0
    if match is not None and not (match[3] == "IB" and not match[2]):
        count = int(float(match[1]) * (1000 if match[3] == "B" else 1024) ** _POWERS[match[2]])
    if count < 1:
        raise typer.BadParameter(f"{text!r} is no size such as 500M or 4G.", param_hint=repr(option))
    return count


class Teller:
    """The watcher of a child process: it tells its parent, which acts.

    Args:
        pipe: descriptor to write to, one JSON list a line.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe, self._lock, self._numbers = pipe, threading.Lock(), itertools.count()
        self._given: int | None = None
        self._memory, self._seconds = memory.allowed(), FIRST_PASS_SECONDS

    def bound(self, memory_bytes: int | None, seconds: float) -> None:
        """Set what the user allows; None for memory by the graphs that are loaded."""
        self._given, self._seconds = memory_bytes, seconds
        self._allow(self._memory if memory_bytes is None else memory_bytes)

    def stages(self, path: str) -> None:
        """See :class:`dfmeta._watched.Watcher`, also for the others."""
        self._tell("stage", path)

    def settles(self, path: str) -> None:
        """Nothing is left there."""
        self._tell("settle", path)

    def begins(self, where: str, what: str) -> int:
        """Something that must end in time."""
        number = next(self._numbers)
        self._tell("begin", number, where[:_WORDS], what)
        return number

    def ends(self, number: int) -> None:
        """It did."""
        self._tell("end", number)

    def sizes(self, where: str, largest: tuple[str, int], unit: int, weights: int) -> None:
        """A graph: its largest value is refused here, before anything runs, where memory cannot hold it."""
        if self._given is None and (needed := memory.allowed(unit, weights)) > self._memory:
            self._allow(needed)
        name, count = largest
        if count > self._memory:
            raise LimitExceeded(
                where,
                f"a value {name[:_WORDS]!r} of {memory.in_words(count)}",
                f"at most {memory.in_words(self._memory)} for the whole work",
                "Raise --max-memory if you trust the model and the machine has it.",
                code="memory-limit",
            )

    def _allow(self, count: int) -> None:
        self._memory = count
        self._tell("limits", self._memory, self._seconds)

    def _tell(self, *words: object) -> None:
        line = json.dumps(words).encode() + b"\n"
        # A parent that is gone hears nothing, and the process ends for that reason alone.
        with self._lock, suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._pipe, line) :]
