"""Options that belong together, given to a verb as one value, and written once where several verbs take them.

The command line's own library takes one parameter for each option. :func:`expanded` gives it these, and gathers what
it read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from dfmeta.cli import options

if TYPE_CHECKING:
    from dfmeta.schema import v1


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From stored images to the model's input."""

    resize: options.Resize = None
    scale: options.Scale = None
    mean: options.Mean = None
    std: options.Std = None
    pad: options.Pad = None
    pad_value: options.PadValue = "0"
    preprocessing: options.Preprocessing = None

    def operations(self) -> list[v1.Op]:
        """The operations that the flags stand for; see :func:`dfmeta.cli.options.preprocessing`."""
        return options.preprocessing(
            self.scale, self.mean, self.std, self.pad, self.pad_value, self.resize, self.preprocessing
        )


def expanded(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with one parameter for each field of its groups.

    Args:
        verb: takes keywords only. A parameter whose type is a dataclass is a group: the fields' types are annotated as
            typer's options are.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    def command(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name in groups:
            parameters += _members(groups[parameter.name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind, annotation=hints[parameter.name]))
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _members(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
