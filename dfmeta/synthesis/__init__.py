"""The synthesis floor: methods that make inputs from a graph and its records. One file each.

``names()`` lists them, variants included; ``build(name, task, settings)`` makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from dfmeta._catalog import SYNTHESIS
from dfmeta.errors import DataError, UnknownName
from dfmeta.synthesis._contract import Synthesis, Task

__all__ = ["Synthesis", "Task", "build", "configure", "names"]


def names() -> tuple[str, ...]:
    """Every method, as ``name`` or ``name:variant``."""
    found: list[str] = []
    for name in SYNTHESIS.names():
        variants = getattr(SYNTHESIS.load(name), "VARIANTS", ())
        found += [f"{name}:{variant}" for variant in variants] or [name]
    return tuple(found)


def build(method: str, task: Task, settings: Mapping[str, str] | None = None) -> Synthesis:
    """One run of a method.

    Args:
        method: one of :func:`names`.
        task: what it may use.
        settings: fields of the method's ``Config`` as text, such as ``{"iterations": "300"}``.

    Raises:
        UnknownName: no such method, variant or setting.
        StepError: the records it needs are not there.
        DataError: a setting that is not a number of its type.
    """
    name, _, variant = method.partition(":")
    module = SYNTHESIS.load(name) if name in SYNTHESIS.names() else None
    variants = getattr(module, "VARIANTS", ())
    if module is None or (variant not in variants if variants else variant):
        raise UnknownName("synthesis method", method, names())
    config = configure(module.Config, settings or {}, method)
    made: Synthesis = module.build(task, config, variant) if variants else module.build(task, config)
    return made


def configure(config: type[Any], settings: Mapping[str, str], where: str) -> Any:
    """An instance of a ``Config`` dataclass with some fields given as text.

    Raises:
        UnknownName: a field that it does not have.
        DataError: text that is not a number of the field's type, or one outside its range: above 0, unless the
            field says otherwise (see :func:`dfmeta.synthesis._contract.share`).
    """
    known = {entry.name: entry for entry in fields(config)}
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in known:
            raise UnknownName(f"setting of {where}", key, known)
        values[key] = _number(known[key], text, f"{where}, {key}")
    return config(**values)


def _number(entry: Field[Any], text: str, where: str) -> float:
    number = int if isinstance(entry.default, int) else float
    try:
        value = number(text)
    except ValueError as error:
        raise DataError(where, repr(text), f"a number ({number.__name__})") from error
    if entry.metadata.get("share"):
        if not 0 <= value <= 1:
            raise DataError(where, text, "a share from 0 to 1")
    elif not 0 < value < math.inf:
        raise DataError(where, text, "a finite number above 0")
    return value
