"""The synthesis floor: methods that make inputs from a graph and its records. One file each.

``names()`` lists them, variants included; ``build(name, task, settings)`` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from dfmeta import _settings
from dfmeta._catalog import SYNTHESIS
from dfmeta.errors import MethodInput, UnknownName
from dfmeta.synthesis._contract import Synthesis, Task
from dfmeta.synthesis._student_view import answered

__all__ = ["Synthesis", "Task", "answered", "build", "names", "other_data", "training", "uses"]


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
        StepError: the records that it needs are not there.
        MethodInput: the student or the data that it needs is not there.
        DataError: a setting that is not a number of its type, or one out of range (:mod:`dfmeta._settings`).
    """
    module, variant = _find(method)
    for need, given in (("student", task.student), ("data", task.data)):
        if need in uses(method) and given is None:
            raise MethodInput(f"method {method!r}", f"no {need}", f"one to work with (--{need})")
    config = configured(method, settings)
    made: Synthesis = module.build(task, config, variant) if variant else module.build(task, config)
    return made


def configured(method: str, settings: Mapping[str, str] | None = None) -> Any:
    """A method's ``Config``, some of its fields given as text.

    Raises:
        UnknownName: no such method, variant or setting.
        DataError: a setting that is not a number of its type, or one out of range (:mod:`dfmeta._settings`).
    """
    module, _ = _find(method)
    return _settings.from_text(module.Config(), settings or {}, method)


def uses(method: str) -> frozenset[str]:
    """What a method needs beside teacher and records: ``student``, ``data``, both or neither.

    Raises:
        UnknownName: no such method or variant.
    """
    return frozenset(getattr(_find(method)[0], "USES", ()))


def other_data(method: str) -> bool:
    """Whether a method draws from data that is not the model's own: to be made to fit, labels left aside."""
    return bool(getattr(_find(method)[0], "OTHER_DATA", False))


def training(method: str) -> Mapping[str, Any]:
    """How the method's paper trains its student: fields of :class:`dfmeta.compress.distill.Config`; may be empty.

    Raises:
        UnknownName: no such method or variant.
    """
    found: Mapping[str, Any] = getattr(_find(method)[0], "TRAINING", {})
    return found


def _find(method: str) -> tuple[ModuleType, str]:
    name, _, variant = method.partition(":")
    module = SYNTHESIS.load(name) if name in SYNTHESIS.names() else None
    variants = getattr(module, "VARIANTS", ())
    if module is None or (variant not in variants if variants else variant):
        raise UnknownName("synthesis method", method, names())
    return module, variant
