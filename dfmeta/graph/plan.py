"""From a graph to steps: which nodes a set of values needs, in which order, and what each step may forget.

Everything that can be decided once is decided here: operators are looked up, attributes converted, values
that depend on constants alone computed, so that running is a plain loop.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from dfmeta.errors import GraphError, UnsupportedOperator
from dfmeta.graph.carriers import CARRIERS, to_torch
from dfmeta.graph.inference import node_label
from dfmeta.graph.load import Graph
from dfmeta.graph.ops import Node, Operator, lookup

_MAX_FOLDED: Final = 2**24


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        node: what its function is told.
        operator: its entry in the dispatch table.
        host: input positions whose constants are read on the CPU.
    """

    node: Node
    operator: Operator
    host: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """Steps that produce a set of values.

    Attributes:
        steps: in execution order.
        frees: for each step, the values that nothing needs after it.
        inputs: graph inputs that are read.
    """

    steps: tuple[Step, ...]
    frees: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...]


def bind(graph: Graph) -> tuple[Step, ...]:
    """Every node of ``graph`` with its operator.

    Raises:
        UnsupportedOperator: naming the first node that the executor does not run, and its opset.
    """
    bound = [_bind(graph, proto, index) for index, proto in enumerate(graph.model.graph.node)]
    steering = _steering(bound)
    return tuple(
        Step(node, entry, frozenset(range(len(node.inputs))) if steering & {*node.outputs} else entry.host)
        for node, entry in bound
    )


def _bind(graph: Graph, proto: onnx.NodeProto, index: int) -> tuple[Node, Operator]:
    label = f"{graph.where}: {node_label(proto, index)}"
    node = Node(
        label=label,
        op=proto.op_type,
        opset=graph.opset,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={a.name: _attribute(a, label) for a in proto.attribute},
        input_types=tuple(map(graph.dtype, proto.input)),
        output_types=tuple(map(graph.dtype, proto.output)),
    )
    entry = lookup(node.op, node.opset)
    reason = f"operator {node.op} of opset {node.opset}"
    if entry is not None:
        reason = (entry.refuse(node) if entry.refuse else "") or _no_carrier(node)
        reason = reason and f"{node.op} of opset {node.opset} with {reason}"
    if entry is None or reason:
        raise UnsupportedOperator(
            node.label,
            reason,
            "an operator that the torch executor runs",
            "onnxruntime may still run this graph; to differentiate it, export it without this operator.",
        )
    return node, entry


def _no_carrier(node: Node) -> str:
    unknown = [name for name in node.output_types if name not in {"", *CARRIERS}]
    return f"element type {unknown[0]}" if unknown else ""


def _attribute(attribute: onnx.AttributeProto, label: str) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return to_torch(numpy_helper.to_array(value), label)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _steering(bound: Sequence[tuple[Node, Operator]]) -> frozenset[str]:
    """Values that only serve as shapes, axes and the like: everything that computes them stays on the CPU."""
    steering: set[str] = set()
    other: set[str] = set()
    for node, entry in reversed(bound):
        inner = bool(steering.intersection(node.outputs)) and not other.intersection(node.outputs)
        for position, name in enumerate(node.inputs):
            if node.op in ("Shape", "Size"):
                continue
            (steering if inner or position in entry.host else other).add(name)
    return frozenset(steering - other)


def steering_constants(steps: Iterable[Step]) -> frozenset[str]:
    """Names read as Python numbers by any step, constants or not."""
    return frozenset(step.node.inputs[at] for step in steps for at in step.host if at < len(step.node.inputs))


def fold(steps: Iterable[Step], constants: Mapping[str, Tensor], graph: Graph) -> dict[str, Tensor]:
    """Values of all nodes whose inputs are all in ``constants``.

    Args:
        steps: as from :func:`bind`.
        constants: initializers that never change.
        graph: for the inferred sizes, so that nothing huge is computed early.

    Returns:
        The new constants by value name.
    """
    known = dict(constants)
    folded: dict[str, Tensor] = {}
    for step in steps:
        node = step.node
        ready = all(name in known for name in node.inputs if name)
        if ready and all(_small(graph, name) for name in node.outputs if name):
            results = dict(execute(step, [known.get(name) for name in node.inputs]))
            folded |= results
            known |= results
    return folded


def _small(graph: Graph, name: str) -> bool:
    if name not in graph.values:
        return False
    shape = graph.value(name).shape
    return all(isinstance(size, int) for size in shape) and math.prod(map(int, shape)) <= _MAX_FOLDED


def execute(step: Step, arguments: Sequence[Tensor | None]) -> list[tuple[str, Tensor]]:
    """Run one node; its outputs by name, those nobody asked for left out.

    Raises:
        GraphError: inputs that the node cannot take, naming it.
    """
    try:
        result = step.operator.function(step.node, *arguments)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        shapes = ", ".join("-" if a is None else f"{str(a.dtype)[6:]}{list(a.shape)}" for a in arguments)
        raise GraphError(
            step.node.label,
            f"inputs {shapes} that it cannot take ({' '.join(str(error).split())[:200]})",
            "inputs that fit the graph",
            "Check the shapes and types of the graph's inputs.",
        ) from error
    outputs = (result,) if isinstance(result, Tensor) else result
    return [(name, value) for name, value in zip(step.node.outputs, outputs, strict=False) if name]


def plan(steps: Sequence[Step], wanted: Collection[str], known: Collection[str]) -> Plan:
    """The steps that ``wanted`` needs beyond what is ``known``.

    Args:
        steps: all steps in order.
        wanted: value names to keep.
        known: constants, whose producers are not run.
    """
    needed = set(wanted) - set(known)
    chosen: list[Step] = []
    frees: list[tuple[str, ...]] = []
    alive = set(wanted)
    for step in reversed(steps):
        if not needed.intersection(step.node.outputs):
            continue
        inputs = {name for name in step.node.inputs if name and name not in known}
        chosen.append(step)
        frees.append(tuple(sorted((inputs | {o for o in step.node.outputs if o}) - alive)))
        needed |= inputs
        alive |= inputs
    made = {name for step in chosen for name in step.node.outputs}
    return Plan(tuple(reversed(chosen)), tuple(reversed(frees)), tuple(sorted(needed - made)))
