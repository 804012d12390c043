"""How a graph exported for one batch size is made to take any.

Exporters bake the batch into the targets of Reshape and Expand. :func:`rewrites` follows the batch through
the graph and gives new targets; :func:`freed` applies them to the file.

Why it is sound. The graph is run twice on shapes alone, at its own batch and at a prime multiple of it, node
by node; an axis whose size grew by exactly that prime is the batch. A constant Reshape target is changed only
where the place of the batch in the result is certain: exactly one axis of the result has the batch's size and
as many elements before it as the batch axis has in the source. Then each item keeps its own elements, in
their own order, and the batch stays an axis of its own, never merged with another. Every other case (two
candidates, an axis that grew by something else, an output without the batch first) is refused. What cannot be
freed can still be run item by item.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from dfmeta.errors import GraphError
from dfmeta.graph.batch import fixed_batch
from dfmeta.graph.carriers import CARRIERS, to_torch
from dfmeta.graph.load import Graph
from dfmeta.graph.plan import Step, bind, execute, fold

_FACTOR: Final = 7
_ADVICE: Final = "Run it at its own batch size, or export it with a dynamic batch."


def rewrites(graph: Graph, steps: Sequence[Step], constants: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """New targets for the Reshape and Expand nodes that bake the batch in, by the name of their output.

    Args:
        graph: with a fixed batch.
        steps: as from :func:`~dfmeta.graph.plan.bind`.
        constants: initializers and folded values.

    Raises:
        GraphError: a graph that cannot be freed soundly.
    """
    batch = fixed_batch(graph)
    if batch is None:
        raise GraphError(graph.where, "inputs without one fixed batch size", "the same axis 0 everywhere", _ADVICE)
    tracer = _Tracer(graph, batch)
    once = tracer.inputs(1)
    many = tracer.inputs(_FACTOR)
    changed: dict[str, tuple[int, ...]] = {}
    for step in steps:
        name = step.node.outputs[0]
        if name in constants:
            continue
        once.update(tracer.step(step, once, constants, None))
        target = _new_target(step, once, many, constants)
        if target is not None:
            changed[name] = target
        many.update(tracer.step(step, many, constants, target))
        for output in filter(None, step.node.outputs):
            _grown(step.node.label, once[output], many[output])
    for result in graph.outputs:
        if result.name not in many or _grown(graph.where, once[result.name], many[result.name]) != 0:
            raise GraphError(graph.where, f"output {result.name!r} without the batch first", "it there", _ADVICE)
    return changed


@dataclasses.dataclass(frozen=True)
class _Tracer:
    """Runs steps on shapes alone (torch's meta device); shape arithmetic stays real, on the CPU."""

    graph: Graph
    batch: int

    def inputs(self, factor: int) -> dict[str, Tensor]:
        """Empty inputs at a multiple of the batch."""
        found = {}
        for value in self.graph.inputs:
            if not value.shape or not all(isinstance(size, int) for size in value.shape):
                raise GraphError(
                    self.graph.where, f"input {value.name!r} of shape {value.shape}", "fixed sizes", _ADVICE
                )
            sizes = [self.batch * factor, *map(int, value.shape[1:])]
            found[value.name] = torch.empty(sizes, dtype=CARRIERS[value.dtype], device="meta")
        return found

    def step(
        self,
        step: Step,
        live: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        target: tuple[int, ...] | None,
    ) -> dict[str, Tensor]:
        """Outputs of one step; ``target`` replaces its second input."""
        arguments: list[Tensor | None] = []
        for position, name in enumerate(step.node.inputs):
            constant = constants.get(name)
            steers = position in step.host
            arguments.append(live.get(name) if constant is None else constant if steers else constant.to("meta"))
        if target is not None:
            arguments[1] = torch.tensor(target)
        return dict(execute(step, arguments))


def _grown(where: str, once: Tensor, many: Tensor) -> int | None:
    """The axis that grew with the batch; None when nothing did."""
    if once.dim() != many.dim():
        raise GraphError(where, "a rank that depends on the batch", "a fixed rank", _ADVICE)
    axes = [axis for axis, (a, b) in enumerate(zip(once.shape, many.shape, strict=True)) if a != b]
    if not axes:
        return None
    if len(axes) > 1 or many.shape[axes[0]] != _FACTOR * once.shape[axes[0]]:
        raise GraphError(
            where,
            f"shape {list(once.shape)} that becomes {list(many.shape)} with {_FACTOR} times the batch",
            "one axis that grows with the batch",
            _ADVICE,
        )
    return axes[0]


def _new_target(
    step: Step, once: Mapping[str, Tensor], many: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> tuple[int, ...] | None:
    node = step.node
    if node.op not in ("Reshape", "Expand") or node.inputs[0] not in many:
        return None
    source, result = once[node.inputs[0]], once[node.outputs[0]]
    axis = _grown(node.label, source, many[node.inputs[0]])
    if axis is None or node.inputs[1] not in constants:
        return None
    if node.op == "Expand":
        sizes = [1] * (result.dim() - source.dim()) + list(source.shape)
        place = axis + result.dim() - source.dim()
        if sizes[place] != result.shape[place]:
            raise GraphError(node.label, "an Expand of the batch axis", "the batch left alone", _ADVICE)
        return tuple(1 if at == place else size for at, size in enumerate(result.shape))
    return _reshape_target(node.label, list(source.shape), axis, list(result.shape))


def _reshape_target(where: str, source: list[int], axis: int, result: list[int]) -> tuple[int, ...]:
    """``result`` with -1 at the axis that carries the batch."""
    before = math.prod(source[:axis])
    places = [at for at, size in enumerate(result) if size == source[axis] and math.prod(result[:at]) == before]
    if len(places) != 1 or 0 in result:
        raise GraphError(where, f"a Reshape of {source} to {result}", "one certain place for the batch", _ADVICE)
    return tuple(-1 if at == places[0] else size for at, size in enumerate(result))


def freed(graph: Graph) -> Graph:
    """A graph of one fixed batch size with a free one (symbol ``batch``) in its place.

    Raises:
        GraphError: a graph that cannot be freed soundly.
    """
    steps = bind(graph)
    initial = {name: to_torch(array, f"{graph.where}: tensor {name!r}") for name, array in graph.initializers.items()}
    constants = initial | fold(steps, initial, graph)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    _retarget(model.graph, rewrites(graph, steps, constants))
    inputs = {value.name for value in graph.inputs}
    for info in (*model.graph.input, *model.graph.output):
        if info.name in inputs or info in model.graph.output:
            info.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(), graph.where)


def _retarget(graph: onnx.GraphProto, targets: Mapping[str, Sequence[int]]) -> None:
    taken = {name for node in graph.node for name in node.output} | {t.name for t in graph.initializer}
    for node in graph.node:
        if node.output[0] not in targets:
            continue
        name = f"{node.output[0]}_target"
        while name in taken:
            name += "_"
        taken.add(name)
        sizes = torch.tensor(list(targets[node.output[0]]), dtype=torch.int64).numpy()
        graph.initializer.append(numpy_helper.from_array(sizes, name))
        node.input[1] = name
