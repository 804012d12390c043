"""Settings of a step given as text."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dfmeta.errors import DataError, UnknownName

Config = TypeVar("Config")


def configured(config: Config, given: Mapping[str, str]) -> Config:
    """``config`` with some of its fields given as text.

    Args:
        config: a frozen dataclass whose fields are numbers, truth values, text, or one of several words.
        given: field to text.

    Raises:
        UnknownName: no such field, or no such word.
        DataError: text that is no number or truth value.
    """
    hints = get_type_hints(type(config))
    for name in given:
        if name not in hints:
            raise UnknownName("setting", name, hints)
    return replace(config, **{name: _value(name, hints[name], text) for name, text in given.items()})  # type: ignore[type-var]


def _value(name: str, hint: Any, text: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise UnknownName(name, text, [word for word in get_args(hint) if word])
        return text
    if hint is bool:
        if text not in ("true", "false"):
            raise DataError(name, repr(text), "true or false")
        return text == "true"
    if hint is str:
        return text
    try:
        return hint(text)
    except ValueError as error:
        raise DataError(name, repr(text), f"a number ({hint.__name__})") from error
