"""Settings: the fields of a frozen dataclass, checked alike whether Python, a flag or a file gives them.

A field is a truth value, text, one of several words (a ``Literal``), a tuple of texts, or a number; where it may be
None as well, None says that nothing is set. A number is finite and above 0, unless its field says otherwise::

    @dataclass(frozen=True)
    class Config:
        steps: int = 500
        shift: float = within(0.03, Range(least=0, below=1))
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dfmeta.errors import DataError, UnknownName

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True)
class Range:
    """The finite numbers between two ends.

    Attributes:
        above, below: ends that do not belong to it.
        least, most: ends that do.
    """

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether it has this number."""
        return self.above < value < self.below and self.least <= value <= self.most

    def __str__(self) -> str:
        low, high = max(self.above, self.least), min(self.below, self.most)
        ends = (
            ("above {:g}", self.above),
            ("of {:g} or more", self.least),
            ("below {:g}", self.below),
            ("up to {:g}", self.most),
        )
        noun = "a share" if low >= 0 and high <= 1 else "a number" if math.isfinite(high) else "a finite number"
        told = " and ".join(words.format(end) for words, end in ends if math.isfinite(end))
        return f"{noun} {told}".rstrip()


ABOVE_0 = Range(above=0)
_RANGE = "range"


def within(default: Any, numbers: Range) -> Any:
    """A field whose numbers lie elsewhere than above 0."""
    return field(default=default, metadata={_RANGE: numbers})


def share(default: float) -> Any:
    """A field that is a share, both ends included."""
    return within(default, Range(least=0, most=1))


def weight(default: float) -> Any:
    """A field that may be 0, which leaves out what it weighs."""
    return within(default, Range(least=0))


def from_text(config: Config, given: Mapping[str, str], where: str) -> Config:
    """``config`` with some fields given as text, as a command line has it.

    Args:
        config: its type says which fields there are, and what each may be.
        given: field to text.
        where: whose settings they are, for messages.

    Raises:
        UnknownName: no such field, or no such word.
        DataError: text that is no value of the field's type, or a number out of range.
    """
    return _replaced(config, given, where, _read)


def from_values(config: Config, given: Mapping[str, object], where: str) -> Config:
    """``config`` with some fields given as a file has them: of the very type, but for whole numbers that are floats.

    Raises:
        UnknownName: no such field, or no such word.
        DataError: a value of another type, or a number out of range.
    """
    return _replaced(config, given, where, _typed)


def check(config: DataclassInstance, where: str) -> None:
    """Refuse words that there are not and numbers out of range.

    Raises:
        UnknownName: a word that is none of the field's.
        DataError: a number out of range.
    """
    hints = get_type_hints(type(config))
    for entry in fields(config):
        value, kind = getattr(config, entry.name), _without_none(hints[entry.name])
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise UnknownName(f"{where}, {entry.name}", str(value), filter(None, get_args(kind)))
        elif kind in (int, float) and value is not None:
            _check_number(f"{where}, {entry.name}", value, entry.metadata.get(_RANGE, ABOVE_0), whole=kind is int)


def _check_number(where: str, value: float, numbers: Range, *, whole: bool) -> None:
    if not numbers.holds(value):
        expected = "1 or more" if whole and numbers == ABOVE_0 else str(numbers)
        raise DataError(where, f"{value}" if whole else f"{value:g}", expected)


def _replaced(config: Config, given: Mapping[str, Any], where: str, read: Callable[[str, Any, Any], object]) -> Config:
    hints = get_type_hints(type(config))
    for name in given:
        if name not in hints:
            raise UnknownName(f"{where}, setting", name, hints)
    values = {name: read(f"{where}, {name}", _without_none(hints[name]), value) for name, value in given.items()}
    made = replace(config, **values)
    check(made, where)
    return made


def _without_none(hint: Any) -> Any:
    """The type that a value has where it is set."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(one for one in get_args(hint) if one is not types.NoneType)
    return hint


def _read(where: str, kind: Any, text: str) -> object:
    """A value told by its text."""
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError) as error:
        raise DataError(where, repr(text), _KINDS[kind]) from error
    return tuple(text.split(",")) if get_origin(kind) is tuple else text


def _typed(where: str, kind: Any, value: object) -> object:
    """A value of the very type; words are looked up later."""
    if get_origin(kind) is Literal:
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise DataError(where, _told(value), "a list of texts")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise DataError(where, _told(value), _KINDS.get(kind, str(kind)))
    return value


def _told(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
