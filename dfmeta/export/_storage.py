"""Which values of a graph share bytes, how many, and for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from dfmeta.errors import GraphError
from dfmeta.graph import Graph
from dfmeta.graph.dtypes import FLOATS

# The result is the operand's bytes, read otherwise.
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
# Each element of the result depends on the element at the same place alone, so that it can take its place.
UNARY = frozenset(
    {"Abs", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"}
    | {"Log", "Mish", "Neg", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus"}
    | {"Softsign", "Sqrt", "Tanh", "ThresholdedRelu"}
)
BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})
# Rounding before is rounding after: they move numbers, or choose among them.
_COMMUTES = VIEWS | frozenset({"Relu", "Clip", "MaxPool", "GlobalMaxPool", "Transpose", "Concat", "Slice", "Gather"})
_BITS = {"4": 4, "8": 8, "16": 16, "32": 32, "64": 64}
_OTHER_BITS = {"bool": 8, "bfloat16": 16, "int2": 2, "uint2": 2}


def bits_of(dtype: str) -> int:
    """Bits of one element: ``int8`` has 8, ``uint4`` has 4, ``bool`` has 8."""
    if dtype in _OTHER_BITS:
        return _OTHER_BITS[dtype]
    if dtype.startswith("float8"):
        return 8
    digits = dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return _BITS.get(digits, 32)


def stored_bytes(elements: int, dtype: str) -> int:
    """Bytes of so many elements, those of less than 8 bits packed."""
    return (elements * bits_of(dtype) + 7) // 8


@dataclass
class Group:
    """Values that share bytes.

    Attributes:
        values: their names.
        bytes: of the largest.
        first: node that makes the first; -1 for an input.
        last: node that reads the last; the number of nodes where one of them is an output.
    """

    values: tuple[str, ...]
    bytes: int
    first: int
    last: int


@dataclass
class Storage:
    """The values of one graph that change from one inference to the next.

    Attributes:
        graph: it.
        element_bytes: of a floating number; None for its type's.
        constants: values that depend on no input.
        readers: value to the indices of the nodes that read it.
        narrow: value to the type as which an integer kernel writes it.
    """

    graph: Graph
    element_bytes: int | None
    constants: frozenset[str]
    readers: Mapping[str, tuple[int, ...]]
    narrow: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, element_bytes: int | None = None) -> Storage:
        """Look at a graph."""
        nodes = graph.model.graph.node
        fixed = set(graph.initializer_names)
        readers: dict[str, list[int]] = {}
        for index, node in enumerate(nodes):
            if all(name in fixed for name in node.input if name):
                fixed.update(node.output)
            for name in set(node.input):
                readers.setdefault(name, []).append(index)
        found = cls(graph, element_bytes, frozenset(fixed), {name: tuple(at) for name, at in readers.items()})
        found._narrow()
        return found

    def groups(self) -> list[Group]:
        """All buffers, in the order in which they come to life."""
        nodes, given = self.graph.model.graph.node, [value.name for value in self.graph.inputs]
        ends = {value.name for value in self.graph.outputs}
        made = [Group((name,), self.bytes(name), -1, -1) for name in given]
        owner = dict(zip(given, made, strict=True))
        for index, node in enumerate(nodes):
            for name in node.output:
                if not name or name in self.constants:
                    continue
                group = self._shared(node, index, name, owner, ends)
                if group is None:
                    group = Group((), 0, index, index)
                    made.append(group)
                group.values, group.bytes = (*group.values, name), max(group.bytes, self.bytes(name))
                owner[name] = group
        for name, group in owner.items():
            last = len(nodes) if name in ends else max(self.readers.get(name, ()), default=group.first)
            group.last = max(group.last, last)
        return made

    def temporaries(self) -> int:
        """Bytes of everything that nodes make and that is no output, each as its own type says."""
        ends = {value.name for value in self.graph.outputs}
        made = {name for node in self.graph.model.graph.node for name in node.output if name}
        return sum(stored_bytes(self._elements(name), self.graph.dtype(name)) for name in made - ends)

    def bytes(self, name: str) -> int:
        """Bytes of a value as it is stored."""
        dtype = self.narrow.get(name) or self.graph.dtype(name)
        elements = self._elements(name)
        if self.element_bytes is not None and dtype in FLOATS:
            return elements * self.element_bytes
        return stored_bytes(elements, dtype)

    def _elements(self, name: str) -> int:
        free = {size for value in self.graph.inputs for size in value.shape if isinstance(size, str)}
        sizes = self.graph.value(name).shape
        unknown = [size for size in sizes if isinstance(size, str) and (size not in free or size == "?")]
        if unknown or self.graph.dtype(name) in ("", "undefined"):
            raise GraphError(
                f"{self.graph.where}: value {name!r}",
                f"shape {list(sizes)}" if sizes else "no inferred shape",
                "known sizes",
                "Export the graph with static shapes.",
            )
        return math.prod(size for size in sizes if isinstance(size, int))

    def _shared(
        self, node: onnx.NodeProto, index: int, name: str, owner: Mapping[str, Group], ends: set[str]
    ) -> Group | None:
        """The buffer that a result takes over; None where it needs its own."""
        if name != node.output[0]:
            return None
        source = owner.get(node.input[0]) if node.input else None
        if source is not None and (node.op_type in VIEWS or self._integer_view(node, name, ends)):
            return source
        places = (0,) if node.op_type in UNARY else range(len(node.input)) if node.op_type in BINARY else ()
        for place in places:
            group = owner.get(node.input[place])
            if group is not None and self._dies(group, node.input[place], name, index, ends):
                return group
        return None

    def _integer_view(self, node: onnx.NodeProto, name: str, ends: set[str]) -> bool:
        """A quantizer that its maker already is, or integers that are read as what they stand for."""
        if node.op_type == "QuantizeLinear":
            return self.narrow.get(node.input[0]) == self.graph.dtype(name)
        return node.op_type == "DequantizeLinear" and name not in ends

    def _dies(self, group: Group, source: str, name: str, index: int, ends: set[str]) -> bool:
        """Whether nobody but this node reads the buffer from here on, and the result has its size."""
        later = max(at for member in group.values for at in self.readers.get(member, (-1,)))
        given = group.first < 0 or not ends.isdisjoint(group.values)
        return not given and later <= index and self.bytes(name) == self.bytes(source) == group.bytes

    def _narrow(self) -> None:
        """From the last node to the first: what is only ever read as integers."""
        ends = {value.name for value in self.graph.outputs} | {value.name for value in self.graph.inputs}
        nodes = self.graph.model.graph.node
        for node in reversed(nodes):
            for name in node.output:
                readers = self.readers.get(name, ())
                # A second quantizer may have another scale.
                if name in ends | self.constants or len(readers) != 1 or self.graph.dtype(name) not in FLOATS:
                    continue
                dtype = self._read_as(nodes[readers[0]])
                if dtype:
                    self.narrow[name] = dtype
            if node.op_type == "DequantizeLinear" and node.output[0] not in ends:
                self.narrow[node.output[0]] = self.graph.dtype(node.input[0])

    def _read_as(self, node: onnx.NodeProto) -> str:
        """The integer type in which a node takes its operand; empty for floating point."""
        if node.op_type == "QuantizeLinear":
            return self.graph.dtype(node.output[0])
        return self.narrow.get(node.output[0], "") if node.op_type in _COMMUTES else ""
