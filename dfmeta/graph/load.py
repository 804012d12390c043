"""A graph as data: exact bytes in, checked and shape-inferred, never executed while loading.

The bytes are hostile until :mod:`dfmeta.graph.gate` has passed them. What is read is what was hashed: nothing
here opens a path twice, and nothing resolves a path written inside a graph.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from dfmeta import _watched
from dfmeta.errors import GraphError
from dfmeta.graph import dtypes, gate
from dfmeta.graph.memory import asked_for
from dfmeta.graph.parameters import weight_names


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of a graph.

    Attributes:
        name: unique in the graph (ONNX is in single static assignment form).
        dtype: element type, numpy's lower-case name.
        shape: sizes; a symbolic name for a free dimension, ``?`` where inference knows nothing.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """A checked ONNX graph.

    Attributes:
        raw: the exact bytes.
        model: those bytes, parsed.
        sha256: their digest, hexadecimal.
        inputs: what a caller must give; initializers that old files also list as inputs are left out.
        outputs: what the graph returns.
        opset: version of the default operator set.
        ir_version: version of the container.
    """

    raw: bytes = field(repr=False)
    model: onnx.ModelProto = field(repr=False, compare=False)
    sha256: str
    inputs: tuple[Value, ...] = field(compare=False)
    outputs: tuple[Value, ...] = field(compare=False)
    opset: int = field(compare=False)
    ir_version: int = field(compare=False)
    where: str = field(compare=False)
    _values: Mapping[str, Value] = field(repr=False, compare=False)

    @classmethod
    def from_bytes(cls, raw: bytes, where: str) -> Graph:
        """Parse and check ``raw``.

        Args:
            raw: a serialized ``ModelProto``, self-contained.
            where: how to name it in messages, such as a file name.

        Raises:
            GraphError: anything the gate refuses; the text names the node or tensor.
            LimitExceeded: at the command line only: it needs more memory than is allowed.
        """
        with _watched.timed(where, "a graph"):
            model = gate.parse(raw, where)
            gate.check(model, raw, where)
            inferred = gate.infer(model, where)
        values = {value.name: value for value in map(_value, _typed(inferred))}
        values |= {tensor.name: _constant(tensor) for tensor in model.graph.initializer}
        given = {tensor.name for tensor in model.graph.initializer}
        graph = cls(
            raw=raw,
            model=model,
            sha256=hashlib.sha256(raw).hexdigest(),
            inputs=tuple(values[i.name] for i in model.graph.input if i.name not in given),
            outputs=tuple(values[o.name] for o in model.graph.output),
            opset=gate.opset(model, where),
            ir_version=model.ir_version,
            where=where,
            _values=values,
        )
        _watched.loaded(where, lambda: asked_for(graph))
        return graph

    @classmethod
    def from_file(cls, path: str | Path) -> Graph:
        """Read one file and check it; data files beside it are never opened.

        Raises:
            GraphError: an unreadable file, or anything the gate refuses.
        """
        try:
            with Path(path).open("rb") as file:
                # One byte more than the gate lets pass: a file without an end is refused like any that is too large.
                raw = file.read(gate.MAX_BYTES + 1)
        except OSError as error:
            raise GraphError(
                str(path), f"no readable file ({error.strerror})", "an ONNX file", "Check the path."
            ) from error
        return cls.from_bytes(raw, str(path))

    def value(self, name: str) -> Value:
        """The named input, initializer, intermediate or output.

        Raises:
            GraphError: no such value; the text offers a near match.
        """
        if name in self._values:
            return self._values[name]
        near = difflib.get_close_matches(name, self._values, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else "Value names are case-sensitive; list them with `values`."
        raise GraphError(self.where, f"no value {name!r}", "a value name of this graph", fix)

    def dtype(self, name: str) -> str:
        """Element type of a value; empty where inference knows none (an operator without a rule for it)."""
        return self._values[name].dtype if name in self._values else ""

    @property
    def values(self) -> Collection[str]:
        """Names of all tensors: inputs, initializers, intermediates and outputs."""
        return self._values.keys()

    @property
    def initializer_names(self) -> tuple[str, ...]:
        """Names of the constant tensors, in file order."""
        return tuple(tensor.name for tensor in self.model.graph.initializer)

    @cached_property
    def initializers(self) -> Mapping[str, np.ndarray]:
        """Constant tensors by name, in file order; read-only by convention."""
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    @cached_property
    def weights(self) -> frozenset[str]:
        """Names of the initializers that training may change (see :func:`~.parameters.weight_names`)."""
        return weight_names(self.model.graph)

    @property
    def parameter_count(self) -> int:
        """Elements of all :attr:`weights`."""
        return sum(math.prod(tensor.dims) for tensor in self.model.graph.initializer if tensor.name in self.weights)


def _typed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    graph = model.graph
    return [info for info in (*graph.input, *graph.value_info, *graph.output) if info.type.HasField("tensor_type")]


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim)
    return Value(info.name, dtypes.name_of(tensor.elem_type), sizes)


def _constant(tensor: onnx.TensorProto) -> Value:
    return Value(tensor.name, dtypes.name_of(tensor.data_type), tuple(tensor.dims))
