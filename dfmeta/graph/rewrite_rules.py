"""Node by node: the operator that small tools read, for the one that the exporter wrote.

A rule looks at one node and what is known of its inputs, and changes it in place if it can. The value that it
computes stays the same, and so does the name of that value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from math import prod
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper

Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Rewrite:
    """A graph under rewriting, and what is known of its values.

    Attributes:
        graph: changed in place.
        shapes: every value; None for a shape that inference does not know, and inside one for such a size.
        types: ONNX element types of the values that have one.
        constants: values of the initializers.
        keep: initializers that keep their shape.
        scalars: initializers and the scalars that took their place.
    """

    graph: onnx.GraphProto
    shapes: dict[str, Shape | None]
    types: dict[str, int]
    constants: dict[str, np.ndarray]
    keep: frozenset[str]
    scalars: dict[str, str] = field(default_factory=dict)

    def free_name(self, name: str) -> str:
        """``name``, with a number where that is taken."""
        return next(n for n in chain([name], (f"{name}_{i}" for i in count(1))) if n not in self.shapes)

    def add(self, name: str, value: np.ndarray) -> str:
        """Add an initializer and return its name."""
        free = self.free_name(name)
        self.graph.initializer.append(numpy_helper.from_array(value, free))
        self.constants[free], self.shapes[free] = value, value.shape
        return free


def _reshape(rewrite: Rewrite, index: int) -> None:
    """Give a reshape a constant target; write ``[n, all the rest]`` as Flatten, which fits any batch."""
    node = rewrite.graph.node[index]
    data, target = rewrite.shapes.get(node.input[0]), rewrite.shapes.get(node.output[0])
    if target is not None and 0 not in target:
        if data is not None and _is_flatten(data, target):
            _become(node, "Flatten", axis=1)
            return
        free = [size for size in target if not isinstance(size, int)]
        if node.input[1] not in rewrite.constants and len(free) <= 1:
            sizes = np.array([size if isinstance(size, int) else -1 for size in target], dtype=np.int64)
            node.input[1] = rewrite.add(f"{node.output[0]}_shape", sizes)
    sizes_known = rewrite.constants.get(node.input[1])
    if sizes_known is not None and not (sizes_known == 0).any():
        for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
            node.attribute.remove(attribute)


def _is_flatten(data: Shape, target: Shape) -> bool:
    rest = data[1:]
    return (
        len(data) > len(target) == 2
        and data[0] is not None
        and data[0] == target[0]
        and all(isinstance(size, int) for size in rest)
        and prod(size for size in rest if isinstance(size, int)) == target[1]
    )


def _mean(rewrite: Rewrite, index: int) -> None:
    """A mean over the image plane is GlobalAveragePool, and Flatten when the plane is dropped."""
    node = rewrite.graph.node[index]
    data = rewrite.shapes.get(node.input[0])
    axes = rewrite.constants.get(node.input[1]) if len(node.input) > 1 else None
    if data is None or len(data) != 4 or axes is None or {int(axis) % 4 for axis in axes.flat} != {2, 3}:
        return
    keepdims = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
    result = node.output[0]
    _become(node, "GlobalAveragePool")
    if not keepdims:
        node.output[0] = rewrite.free_name(f"{result}_pooled")
        flatten = helper.make_node("Flatten", [node.output[0]], [result], axis=1)
        flatten.metadata_props.extend(node.metadata_props)
        rewrite.graph.node.insert(index + 1, flatten)


def _scalar(rewrite: Rewrite, index: int) -> None:
    """A constant of one element that only broadcasts needs no axes."""
    node = rewrite.graph.node[index]
    for place, name in enumerate(node.input):
        value, other = rewrite.constants.get(name), rewrite.shapes.get(node.input[1 - place])
        if value is None or value.size != 1 or value.ndim == 0 or name in rewrite.keep:
            continue
        if other is not None and len(other) >= value.ndim:
            if name not in rewrite.scalars:
                rewrite.scalars[name] = rewrite.add(f"{name}_scalar", value.reshape(()))
            node.input[place] = rewrite.scalars[name]


def _bias(rewrite: Rewrite, index: int) -> None:
    """A bias of zeros that the exporter made up says nothing."""
    node = rewrite.graph.node[index]
    if len(node.input) < 3 or node.input[2] in rewrite.keep:
        return
    bias = rewrite.constants.get(node.input[2])
    if bias is not None and not bias.any():
        del node.input[2:]


def _cast_like(rewrite: Rewrite, index: int) -> None:
    """A cast to another value's type, which is known: so to that type, or to none."""
    node = rewrite.graph.node[index]
    source, target = (rewrite.types.get(name) for name in node.input)
    if target is not None:
        if source == target:
            _become(node, "Identity")
        else:
            _become(node, "Cast", to=target)


def _dropout(rewrite: Rewrite, index: int) -> None:
    """Dropout that is off, and whose mask nobody reads, is no operation."""
    node, graph = rewrite.graph.node[index], rewrite.graph
    read = {name for other in graph.node for name in other.input} | {output.name for output in graph.output}
    if len(node.input) < 3 and read.isdisjoint(node.output[1:]):
        _become(node, "Identity")
        del node.output[1:]


def _become(node: onnx.NodeProto, operator: str, **attributes: int) -> None:
    """Make it an operator of its first input alone."""
    node.op_type = operator
    del node.input[1:]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


RULES: Mapping[str, Callable[[Rewrite, int], None]] = MappingProxyType(
    {
        "CastLike": _cast_like,
        "Dropout": _dropout,
        "Reshape": _reshape,
        "ReduceMean": _mean,
        **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), _scalar),
        **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _bias),
    }
)
