"""The steps that a recipe may name: their settings, what is checked before anything runs, and what each reads."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dfmeta.compress import _quantize_settings, _ranges, distill, equalize, factorize, finetune, prune, quantize
from dfmeta.errors import DataError, UnknownName


@dataclass(frozen=True, slots=True)
class Distillation(distill.Config):
    """Settings of a student that takes the graph's place: those of its training, and which one it is.

    Attributes:
        student: its name, as ``dfmeta distill`` takes it.
    """

    student: str = "scaled:0.5"


@dataclass(frozen=True, slots=True)
class Kind:
    """A step that a recipe may name.

    Attributes:
        config: its settings.
        check: refuses settings that are out of range.
        requires: kinds of records that it reads, by its settings.
        trains: whether it works on synthetic inputs.
    """

    config: type
    check: Callable[[Any], object]
    requires: Callable[[Any], tuple[str, ...]]
    trains: bool = False


def _nothing(config: object) -> tuple[str, ...]:
    return ()


def _check_equalize(config: equalize.Config) -> None:
    if config.rounds < 1:
        raise DataError("equalize, rounds", str(config.rounds), "1 or more")
    if not 1 < config.limit < float("inf"):
        raise DataError("equalize, limit", f"{config.limit:g}", "a number above 1")


def _check_quantize(config: quantize.Config) -> None:
    _quantize_settings.check(config)
    if config.ranges not in _ranges.POLICIES:
        raise UnknownName("quantize, ranges", config.ranges, _ranges.POLICIES)
    if not 50 < config.percentile < 100:
        raise DataError("quantize, percentile", f"{config.percentile:g}", "a number above 50 and below 100")


def _read_by_quantize(config: quantize.Config) -> tuple[str, ...]:
    _, value_bits = _quantize_settings.parsed(config.bits)
    moments = config.rounding == "gptq" or config.bias_correction
    return (*(("second-moment",) if moments else ()), *(("histogram",) if value_bits is not None else ()))


def _check_distill(config: Distillation) -> None:
    known = {entry.name: getattr(config, entry.name) for entry in fields(distill.Config)}
    given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in known.items()}
    distill.configured(distill.Config(), {name: text for name, text in given.items() if known[name] is not None})


KINDS: Mapping[str, Kind] = {
    "equalize": Kind(equalize.Config, _check_equalize, _nothing),
    "prune": Kind(prune.Config, prune.check, lambda _: prune.REQUIRES),
    "factorize": Kind(factorize.Config, factorize.check, lambda _: factorize.REQUIRES),
    "distill": Kind(Distillation, _check_distill, _nothing, trains=True),
    "finetune": Kind(finetune.Config, finetune.check, _nothing, trains=True),
    "quantize": Kind(quantize.Config, _check_quantize, _read_by_quantize),
}


def configured(where: str, config: type, given: Mapping[str, object]) -> Any:
    """Settings from a file's values, each of the very type that the field has.

    Args:
        where: names the step in errors.
        config: a frozen dataclass.
        given: field to value, in the types of TOML.

    Raises:
        UnknownName: no such field, or no such word.
        DataError: a value of another type, or a field that is missing.
    """
    hints = get_type_hints(config)
    for name in given:
        if name not in hints:
            raise UnknownName(f"{where}, setting", name, hints)
    for entry in fields(config):
        if entry.default is MISSING and entry.default_factory is MISSING and entry.name not in given:
            raise DataError(where, f"no {entry.name}", "one")
    return config(**{name: _value(f"{where}, {name}", hints[name], value) for name, value in given.items()})


def _value(where: str, hint: Any, value: object) -> object:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        words = get_args(hint)
        if value not in words:
            raise UnknownName(where, str(value), [word for word in words if word])
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise DataError(where, _told(value), "a list of texts")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise DataError(where, _told(value), _WORDS.get(hint, str(hint)))
    return value


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _told(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
