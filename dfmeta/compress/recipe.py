"""Recipes: which steps a model goes through, in which order, and with which settings.

A recipe is a small TOML file (read by the standard library's ``tomllib``):

    [inputs]                  # how synthetic inputs are made, if any step needs them
    count = 2560
    settings = { iterations = 40 }

    [[step]]
    name = "prune"
    channels = 0.5

    [[step]]
    name = "finetune"
    steps = 500

    [[step]]
    name = "quantize"
    bits = "w4a8"

Settings of a step are the fields of its ``Config``. Nothing is passed over in silence: a name that is not known, a
value of another type, one out of range, and an order that makes no sense are errors before anything runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dfmeta import _settings
from dfmeta.compress._recipe_steps import KINDS, Distillation
from dfmeta.errors import DataError, UnknownName

__all__ = ["STEPS", "Distillation", "Inputs", "Recipe", "Step", "common", "load", "parse"]

STEPS: tuple[str, ...] = tuple(KINDS)
_MEMBERS = ("inputs", "step")
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """How synthetic inputs are made.

    Attributes:
        method: a synthesis method; empty for the one that fits the bundle's records.
        count: how many; all steps draw from the same ones.
        settings: fields of the method's ``Config`` as text.
    """

    method: str = ""
    count: int = 2048
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: one of :data:`STEPS`.
        config: its settings.
    """

    name: str
    config: Any

    @property
    def requires(self) -> tuple[str, ...]:
        """Kinds of records that it reads."""
        return KINDS[self.name].requires(self.config)

    @property
    def trains(self) -> bool:
        """Whether it works on synthetic inputs."""
        return KINDS[self.name].trains

    @property
    def settings(self) -> dict[str, object]:
        """All of its settings, defaults written out, in JSON types."""
        return asdict(KINDS[self.name].settled(self.config))

    def as_dict(self) -> dict[str, object]:
        """Name and settings, in JSON types."""
        return {"name": self.name, **self.settings}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, checked.

    Attributes:
        steps: one or more.
        inputs: how synthetic inputs are made.

    Raises:
        DataError: settings out of range, or an order that makes no sense.
        UnknownName: a step or a choice that is none.
    """

    steps: tuple[Step, ...]
    inputs: Inputs = Inputs()

    def __post_init__(self) -> None:
        _check_order([step.name for step in self.steps], "recipe")
        _settings.check(self.inputs, "recipe, inputs")
        for step in self.steps:
            if step.name not in KINDS:
                raise UnknownName("step", step.name, STEPS)
            KINDS[step.name].check(step.config)

    def as_dict(self) -> dict[str, object]:
        """The whole recipe, defaults written out, in JSON types."""
        return {"inputs": asdict(self.inputs), "step": [step.as_dict() for step in self.steps]}


def _check_order(names: Sequence[str], where: str) -> None:
    if not names:
        raise DataError(where, "no steps", f"one or more of {', '.join(STEPS)}")
    for place, name in enumerate(names):
        if name == "distill" and place:
            raise DataError(
                f"{where}, step {place + 1}",
                f"distill after {names[place - 1]}",
                "distill as the first step",
                "A student takes the place of the graph, and what was done to that is lost.",
            )
        if "quantize" in names[:place] and name != "finetune":
            raise DataError(
                f"{where}, step {place + 1}",
                f"{name} after quantize",
                "nothing but finetune there",
                "Quantize last; the other steps work on floating-point weights.",
            )


def load(path: str | Path) -> Recipe:
    """Read a recipe's file.

    Raises:
        DataError: no readable file, no TOML, or see :func:`parse`.
        UnknownName: see :func:`parse`.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(str(path), f"no readable file ({error.strerror})", "a recipe", "Check the path.") from error
    if len(raw) > _LIMIT:
        raise DataError(str(path), f"{len(raw)} bytes", f"a recipe of at most {_LIMIT}")
    try:
        given = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(str(path), f"no TOML ({error})", "a recipe", "See dfmeta.compress.recipe.") from error
    return parse(given, str(path))


def parse(given: Mapping[str, object], where: str = "recipe") -> Recipe:
    """A recipe from its file's values.

    Args:
        given: ``inputs``, a table; and ``step``, a list of tables with a ``name`` each.
        where: names it in errors.

    Raises:
        DataError: values of another type or out of range, or an order that makes no sense.
        UnknownName: a member, step, setting or choice that is none.
    """
    for name in given:
        if name not in _MEMBERS:
            raise UnknownName(f"{where}, member", name, _MEMBERS)
    tables = given.get("step", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise DataError(f"{where}, step", type(tables).__name__, "a list of tables: [[step]]")
    steps = tuple(_step(f"{where}, step {place + 1}", table) for place, table in enumerate(tables))
    _check_order([step.name for step in steps], where)
    return Recipe(steps, _inputs(f"{where}, inputs", given.get("inputs", {})))


def _step(where: str, table: Mapping[str, object]) -> Step:
    name = table.get("name")
    if not isinstance(name, str):
        raise DataError(where, "no name" if name is None else f"name {name!r}", f"one of {', '.join(STEPS)}")
    if name not in KINDS:
        raise UnknownName(f"{where}, step", name, STEPS)
    settings = {key: value for key, value in table.items() if key != "name"}
    config = _settings.from_values(KINDS[name].config(), settings, f"{where} ({name})")
    try:
        KINDS[name].check(config)
    except UnknownName as error:
        raise UnknownName(f"{where}: {error.what}", error.name, error.known) from error
    except DataError as error:
        raise DataError(f"{where}: {error.where}", error.found, error.expected, error.fix) from error
    return Step(name, config)


def _inputs(where: str, table: object) -> Inputs:
    if not isinstance(table, dict):
        raise DataError(where, type(table).__name__, "a table: [inputs]")
    settings = table.get("settings", {})
    if not isinstance(settings, dict):
        raise DataError(f"{where}, settings", type(settings).__name__, "a table of the method's settings")
    others = {name: value for name, value in table.items() if name != "settings"}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}
    return replace(_settings.from_values(Inputs(), others, where), settings=texts)


def common(
    *,
    equalize: bool = False,
    prune: float | None = None,
    factorize: float | None = None,
    finetune: int | None = None,
    bits: str | None = None,
    inputs: Inputs | None = None,
) -> Recipe:
    """The recipe that a few flags stand for: equalise, prune, factorise, fine-tune, quantise.

    Where there are bits alone, nothing but rounding has changed the model, and the rounded weights are fine-tuned.

    Args:
        equalize: even out weights first.
        prune: fraction of channels that stays.
        factorize: share of the weights' elements that stays.
        finetune: steps of fine-tuning.
        bits: of the quantisation, such as ``w4a8``.
        inputs: how synthetic inputs are made.

    Raises:
        DataError: no step, or a value out of range.
    """
    chosen: list[tuple[str, dict[str, object]]] = []
    chosen += [("equalize", {})] if equalize else []
    chosen += [("prune", {"channels": prune})] if prune is not None else []
    chosen += [("factorize", {"params": factorize})] if factorize is not None else []
    tuned: list[tuple[str, dict[str, object]]] = [("finetune", {"steps": finetune})] if finetune is not None else []
    rounded: list[tuple[str, dict[str, object]]] = [("quantize", {"bits": bits})] if bits is not None else []
    before = prune is not None or factorize is not None
    chosen += tuned + rounded if before else rounded + tuned
    steps = tuple(Step(name, _settings.from_values(KINDS[name].config(), given, f"--{name}")) for name, given in chosen)
    return Recipe(steps, inputs or Inputs())
