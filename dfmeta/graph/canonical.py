"""The one form in which our own graphs are written: what the smallest tools read, and nothing more.

Embedded code generators refuse what a big runtime ignores: an ``allowzero`` that changes nothing, a mean over
the image plane, a scale of shape ``[1]``, a shape computed while running. None of the rewrites here changes a
value of the graph beyond rounding. Names of values that survive stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from dfmeta.graph import gate
from dfmeta.graph.rewrite_rules import RULES, Rewrite, Shape

# The default of `axis` differs between operator sets (Softmax: 1, later -1), so it is always written.
_WRITTEN = frozenset({"axis"})


def canonicalise(model: onnx.ModelProto, opset: int, keep: frozenset[str], where: str) -> None:
    """Rewrite ``model`` in place into the canonical form, with the shapes of all values written out.

    Args:
        model: a valid model without subgraphs.
        opset: version of its default operator set.
        keep: initializers that keep their shape even when a simpler one exists.
        where: how to name the model in messages.

    Raises:
        GraphError: strict shape inference contradicts the graph.
    """
    graph = model.graph
    lift_constants(graph)
    known = _known(model, keep, where)
    for index in reversed(range(len(graph.node))):
        rule = RULES.get(graph.node[index].op_type)
        if rule is not None and not graph.node[index].domain:
            rule(known, index)
    drop_passthroughs(graph)
    for node in graph.node:
        drop_default_attributes(node, opset)
    drop_unused(graph)
    _tidy_names(known)
    del graph.value_info[:]
    graph.value_info.extend(_described(known.shapes, gate.infer(model, where)))


def lift_constants(graph: onnx.GraphProto) -> None:
    """Turn ``Constant`` nodes into initializers of the same name."""
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Constant" or node.domain:
            continue
        attribute = node.attribute[0]
        value = helper.get_attribute_value(attribute)
        if attribute.name != "value":
            dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
            value = numpy_helper.from_array(np.asarray(value, dtype=dtype))
        lifted = graph.initializer.add()
        lifted.CopyFrom(value)
        lifted.name = node.output[0]
        del graph.node[index]


def drop_passthroughs(graph: onnx.GraphProto) -> None:
    """Remove ``Identity``; a graph output keeps its name."""
    outputs = {output.name for output in graph.output}
    fixed = {item.name for item in (*graph.input, *graph.initializer)}
    for node in [node for node in graph.node if node.op_type == "Identity" and not node.domain]:
        kept, dropped = node.input[0], node.output[0]
        if dropped in outputs:
            kept, dropped = dropped, kept
        if dropped in outputs or dropped in fixed:
            continue
        graph.node.remove(node)
        for other in graph.node:
            rename(other.input, dropped, kept)
            rename(other.output, dropped, kept)


def drop_default_attributes(node: onnx.NodeProto, opset: int) -> None:
    """Remove attributes that say what their absence says."""
    if node.domain:
        return
    schema = defs.get_schema(node.op_type, opset, "")
    for attribute in list(node.attribute):
        if attribute.name in _WRITTEN or attribute.name not in schema.attributes:
            continue
        value = helper.get_attribute_value(attribute)
        default = schema.attributes[attribute.name].default_value
        if attribute.name == "dilations":
            redundant = all(step == 1 for step in value)
        else:
            redundant = bool(default.type) and helper.get_attribute_value(default) == value
        if redundant:
            node.attribute.remove(attribute)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output needs."""
    needed = {output.name for output in graph.output}
    for index in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[index].output):
            del graph.node[index]
        else:
            needed.update(name for name in graph.node[index].input if name)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]


def rename(names: MutableSequence[str], old: str, new: str) -> None:
    """Replace every ``old`` by ``new``."""
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value that is neither input nor output, wherever the main graph names it."""
    for node in graph.node:
        rename(node.input, old, new)
        rename(node.output, old, new)
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new


def _tidy_names(known: Rewrite) -> None:
    """Give scalars the name of what they replaced, if that is gone; leave no path-like name."""
    graph = known.graph
    outer = {item.name for item in (*graph.input, *graph.output)} | known.keep
    values = {tensor.name for tensor in graph.initializer} | {n for node in graph.node for n in node.output}
    for name, scalar in known.scalars.items():
        if name not in values:
            rename_value(graph, scalar, name)
    for name in sorted(name for name in values - outer if "/" in name):
        plain = known.free_name(name.replace("/", "_"))
        known.shapes[plain] = known.shapes.get(name)
        rename_value(graph, name, plain)


def _known(model: onnx.ModelProto, keep: frozenset[str], where: str) -> Rewrite:
    inferred = gate.infer(model, where).graph
    described = [*inferred.input, *inferred.value_info, *inferred.output]
    shapes: dict[str, Shape | None] = {name: None for node in model.graph.node for name in node.output}
    shapes |= {info.name: _shape(info) for info in described if info.type.tensor_type.HasField("shape")}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    types = {info.name: info.type.tensor_type.elem_type for info in described}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return Rewrite(model.graph, shapes, types, constants, keep)


def _shape(info: onnx.ValueInfoProto) -> Shape:
    dims = info.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in dims)


def _described(shapes: dict[str, Shape | None], inferred: onnx.ModelProto) -> Iterable[onnx.ValueInfoProto]:
    """Types of the values in between; a free size keeps its name only where an input has that name too."""
    names = {size for info in inferred.graph.input for size in _shape(info) if isinstance(size, str)}
    for info in inferred.graph.value_info:
        known = shapes.get(info.name) or ()
        for dim, size in zip(info.type.tensor_type.shape.dim, known, strict=False):
            if dim.HasField("dim_value"):
                continue
            dim.ClearField("dim_param")
            if isinstance(size, int):
                dim.dim_value = size
            elif size in names:
                dim.dim_param = size
        yield info
