"""Types and shapes of all values, without trusting the file to be small."""

from __future__ import annotations

import math
from typing import Final

import onnx
from onnx import defs, shape_inference

from dfmeta.errors import GraphError

MAX_ELEMENTS: Final = 2**31
# Shape arithmetic handles a handful of numbers. Propagating the *contents* of longer vectors costs time and
# memory without bound: a hundred bytes can ask for a vector of 2^31 numbers.
MAX_PROPAGATED: Final = 65_536

# The operators through which onnx propagates contents.
_PROPAGATING: Final = frozenset(
    {schema.name for schema in defs.get_all_schemas_with_history() if schema.has_data_propagation_function}
)

# Operators for which onnx has no rule of shape inference: each keeps the shape of its first input.
RULELESS: Final = frozenset({"GroupNormalization", "MeanVarianceNormalization"})

REEXPORT: Final = "Export the model again as one self-contained ONNX file, opset 18."


def node_label(node: onnx.NodeProto, index: int) -> str:
    """How messages name a node: its own name, or its operator and place in the file."""
    return f"node {node.name!r} ({node.op_type})" if node.name else f"node {index} ({node.op_type})"


def first_line(error: Exception) -> str:
    """The text of an error on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def infer(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with every value's type and shape, by strict inference.

    Contents of shape vectors are propagated only when every vector is known to be short.

    Raises:
        GraphError: inference contradicts the file, a value is text or sparse, or one is larger than the cap.
    """
    plain = with_identity(model, RULELESS)
    inferred = _inferred(plain, where, False)
    _check_types(inferred, where)
    _check_sizes(inferred, where)
    if _short_vectors(inferred):
        inferred = _inferred(plain, where, True)
        _check_sizes(inferred, where)
    return inferred


def with_identity(model: onnx.ModelProto, operators: frozenset[str]) -> onnx.ModelProto:
    """The model, with the given operators (all of which keep the shape of their first input) as Identity."""
    if not any(node.op_type in operators for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type in operators:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    return copy


def _inferred(model: onnx.ModelProto, where: str, contents: bool) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=contents)
    except (shape_inference.InferenceError, ValueError, RuntimeError, MemoryError) as error:
        raise GraphError(
            where,
            f"shapes that do not fit: {first_line(error)}",
            "a graph that passes strict inference",
            REEXPORT,
            code="graph-shapes",
        ) from error


def _producers(graph: onnx.GraphProto) -> dict[str, str]:
    return {name: node_label(node, index) for index, node in enumerate(graph.node) for name in node.output}


def _check_types(model: onnx.ModelProto, where: str) -> None:
    """No text and nothing sparse, neither declared nor computed, such as by a Cast to text."""
    graph = model.graph
    producers = _producers(graph)
    for info in (*graph.input, *graph.value_info, *graph.output):
        found = _refused_type(info.type)
        if found:
            raise GraphError(
                f"{where}: {producers.get(info.name, 'graph input')}",
                f"value {info.name!r} of {found}",
                "dense tensors of a numeric type",
                REEXPORT,
                code="graph-type",
            )


def _refused_type(kind: onnx.TypeProto) -> str:
    """What is wrong with a type or a type inside it; empty if nothing is."""
    while (form := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, form).elem_type
    if form in ("sparse_tensor_type", "map_type"):
        return f"a {form.removesuffix('_type').replace('_', ' ')} type"
    return "element type string" if kind.tensor_type.elem_type == onnx.TensorProto.STRING else ""


def _check_sizes(model: onnx.ModelProto, where: str) -> None:
    graph = model.graph
    producers = _producers(graph)
    for info in (*graph.input, *graph.value_info, *graph.output):
        count = math.prod(max(dim.dim_value, 1) for dim in info.type.tensor_type.shape.dim)
        if count > MAX_ELEMENTS:
            raise GraphError(
                f"{where}: {producers.get(info.name, 'graph input')}",
                f"value {info.name!r} of {count} elements",
                f"at most {MAX_ELEMENTS}",
                "No model of this kind needs a tensor so large: do not run this file.",
                code="graph-huge-value",
            )


def _short_vectors(model: onnx.ModelProto) -> bool:
    """Whether every vector that propagation would write out is known to be short."""
    graph = model.graph
    shapes = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.output)}
    vectors = (name for node in graph.node if node.op_type in _PROPAGATING for name in node.output)
    return all(name in shapes and _not_long(shapes[name]) for name in vectors)


def _not_long(tensor: onnx.TypeProto.Tensor) -> bool:
    dims = tensor.shape.dim
    if not tensor.HasField("shape"):
        return False
    return len(dims) != 1 or (dims[0].HasField("dim_value") and dims[0].dim_value <= MAX_PROPAGATED)
