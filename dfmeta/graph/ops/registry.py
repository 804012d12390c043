"""One dispatch table: operator -> version since which a function applies -> function.

An operator is registered by decorating a short pure function::

    @operator("Relu")
    def relu(node: Node, x: Tensor) -> Tensor: ...

The function gets its node and one argument for each input (``None`` for an optional input left out), and
returns one tensor or a tuple in output order. It never works in place, so that a caller may keep any value.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from dfmeta.errors import GraphError
from dfmeta.graph.carriers import CARRIERS
from dfmeta.graph.dtypes import FLOATS


@dataclass(frozen=True)
class Node:
    """One node, bound to an opset and to the types of its values.

    Attributes:
        label: how messages name it.
        op: operator name.
        opset: version of the default operator set.
        inputs: value names; empty for an optional input left out.
        outputs: value names; empty for an output nobody asked for.
        attributes: as Python values; tensors as torch tensors.
        input_types: element type names, as inferred.
        output_types: likewise.
        real: the type in which the whole graph computes, when it was moved to another floating type; None
        when each
            value has the type that its file says.
    """

    label: str
    op: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    input_types: tuple[str, ...] = ()
    output_types: tuple[str, ...] = ()
    real: torch.dtype | None = None

    def int(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def float(self, name: str, default: float) -> float:
        """A floating attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))

    def ints(self, name: str, default: Sequence[builtins.int]) -> list[builtins.int]:
        """A list of integers."""
        return [builtins.int(item) for item in self.attributes.get(name, default)]

    def dtype(self, name: str) -> torch.dtype:
        """The torch type for an ONNX type name, in the graph's working type when that was changed."""
        if name not in CARRIERS:
            raise self.unfit(f"element type {name}", f"one of {', '.join(CARRIERS)}")
        return self.real if self.real is not None and name in FLOATS else CARRIERS[name]

    def unfit(self, found: str, expected: str) -> GraphError:
        """The error for inputs that this node cannot take."""
        return GraphError(self.label, found, expected, "The graph and its inputs do not fit each other.")


Function = Callable[..., Tensor | tuple[Tensor, ...]]
Refusal = Callable[[Node], str]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True)
class Operator:
    """One entry of the table.

    Attributes:
        name: operator name.
        since: first opset version for which the function is right.
        function: what runs.
        host: input positions whose numbers steer the computation (shapes, axes); they are read as Python
        numbers,
            so they are kept on the CPU.
        refuse: why a given node cannot run, or empty.
    """

    name: str
    since: int
    function: Function
    host: frozenset[int]
    refuse: Refusal | None


_TABLE: dict[str, list[Operator]] = {}


def operator(*names: str, since: int = 1, host: Sequence[int] = (), refuse: Refusal | None = None) -> Callable[[F], F]:
    """Register the decorated function for ``names`` from opset ``since`` on."""

    def register(function: F) -> F:
        for name in names:
            entries = _TABLE.setdefault(name, [])
            entries.append(Operator(name, since, function, frozenset(host), refuse))
            entries.sort(key=lambda entry: entry.since)
        return function

    return register


def lookup(name: str, opset: int) -> Operator | None:
    """The entry that applies to ``name`` at ``opset``; None when there is none."""
    fitting = [entry for entry in _TABLE.get(name, ()) if entry.since <= opset]
    return fitting[-1] if fitting else None


def entries() -> tuple[Operator, ...]:
    """The whole table, by name and version."""
    return tuple(entry for name in sorted(_TABLE) for entry in _TABLE[name])


def numbers(tensor: Tensor) -> list[int]:
    """A one-dimensional (or scalar) integer tensor as Python integers."""
    return [int(item) for item in tensor.reshape(-1).tolist()]
