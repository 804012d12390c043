"""Changes to an ONNX file as the message it is: fields, nodes, operators, attributes, tensors, names, shapes.

Coverage says little here, as most of the work is done in compiled code. So the changes know what they change: a node of
any standard operator with attributes of the types that it asks for, around values that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from json_mutator import Bytes
from onnx import defs

_INTEGERS = (0, 1, -1, 2, 3, 7, 8, 11, 16, 64, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "x",
    "y",
    "batch",
    "?",
    "SAME_UPPER",
    "VALID",
    "NOTSET",
    "linear",
    "ij,jk->ik",
    "...",
    "ai.onnx",
    "é",
    "a\0b",
)
_INTEGER_TYPES = {
    FieldDescriptor.TYPE_INT32: 32,
    FieldDescriptor.TYPE_INT64: 64,
    FieldDescriptor.TYPE_UINT64: 64,
}
_SCHEMAS = tuple(schema for schema in defs.get_all_schemas() if schema.domain == "")
_ALL = defs.OpSchema.AttrType
_KINDS = (_ALL.INT, _ALL.INTS, _ALL.FLOAT, _ALL.FLOATS, _ALL.STRING, _ALL.TENSOR)


def mutate(raw: bytes, limit: int, random: Random, good: Sequence[bytes], plain: Bytes) -> bytes:
    """Another file, at most ``limit`` bytes: mostly a message still.

    Args:
        raw: the file.
        limit: bytes of the result.
        random: decides.
        good: files that the gate passes. Beginning with one of them now and then keeps the changes close to its end.
        plain: changes bytes as bytes.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(random.choice(good) if good and random.random() < 0.3 else raw)
    except (DecodeError, ValueError):
        return plain(raw, limit)
    if random.random() < 0.06:
        return plain(raw, limit)
    for _ in range(min(1 + int(random.expovariate(0.9)), 6)):
        try:
            random.choice(_CHANGES)(model, random)
        except (ValueError, TypeError, UnicodeError):
            # A value that the field cannot hold: nothing is changed.
            continue
    out = bytes(model.SerializeToString())
    return out if len(out) <= limit else plain(raw, limit)


def _messages(model: Message) -> list[Message]:
    found, stack = [], [model]
    while stack:
        message = stack.pop()
        found.append(message)
        for descriptor, content in message.ListFields():
            if descriptor.message_type is not None:
                stack.extend([content] if isinstance(content, Message) else content)
    return found


def _field(model: onnx.ModelProto, random: Random) -> None:
    """Any field of any message."""
    message = random.choice(_messages(model))
    descriptor = random.choice(message.DESCRIPTOR.fields)
    if descriptor.message_type is not None:
        _part(message, descriptor, model, random)
    elif descriptor.is_repeated:
        values = list(getattr(message, descriptor.name))
        at = random.randint(0, len(values))
        values[at : at + random.randint(0, 1)] = [_value(descriptor, random)] if random.random() < 0.8 else []
        del getattr(message, descriptor.name)[:]
        getattr(message, descriptor.name).extend(values)
    else:
        setattr(message, descriptor.name, _value(descriptor, random))


def _part(message: Message, descriptor: FieldDescriptor, model: onnx.ModelProto, random: Random) -> None:
    """A message inside a message: dropped, doubled, or as it is elsewhere."""
    alike = [each for each in _messages(model) if each.DESCRIPTOR is descriptor.message_type]
    if not descriptor.is_repeated:
        if random.random() < 0.3 or not alike:
            message.ClearField(descriptor.name)
        else:
            copied = type(random.choice(alike))()
            copied.CopyFrom(random.choice(alike))
            getattr(message, descriptor.name).CopyFrom(copied)
        return
    held = getattr(message, descriptor.name)
    choice = random.random()
    if held and choice < 0.35:
        del held[random.randrange(len(held))]
    elif alike and choice < 0.8:
        copied = type(alike[0])()
        copied.CopyFrom(random.choice(alike))
        held.add().CopyFrom(copied)
    else:
        held.add()


def _value(descriptor: FieldDescriptor, random: Random) -> Any:
    if descriptor.type in _INTEGER_TYPES:
        value = random.choice(_INTEGERS)
        bits = _INTEGER_TYPES[descriptor.type]
        low = 0 if descriptor.type == FieldDescriptor.TYPE_UINT64 else -(2 ** (bits - 1))
        return max(min(value, 2 ** (bits - 1) - 1), low)
    if descriptor.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return random.choice(_FLOATS)
    if descriptor.type == FieldDescriptor.TYPE_ENUM:
        return random.choice([value.number for value in descriptor.enum_type.values])
    text = random.choice(_TEXTS)
    return text if descriptor.type == FieldDescriptor.TYPE_STRING else text.encode()


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return [*(item.name for item in (*graph.input, *graph.initializer)), *made] or ["x"]


def _node(model: onnx.ModelProto, random: Random) -> None:
    """A node of any operator, its inputs among the values that exist, its output new or the graph's."""
    schema = random.choice(_SCHEMAS)
    names = _names(model)
    count = random.randint(min(schema.min_input, 6), max(min(schema.max_input, 6), min(schema.min_input, 6)))
    outputs = [f"v{random.randrange(100)}" for _ in range(max(min(schema.min_output, 4), 1))]
    if model.graph.output and random.random() < 0.5:
        outputs[0] = model.graph.output[0].name
        for node in [node for node in model.graph.node if outputs[0] in node.output and random.random() < 0.8]:
            model.graph.node.remove(node)
    node = model.graph.node.add(op_type=schema.name, input=[random.choice(names) for _ in range(count)], output=outputs)
    for attribute in schema.attributes.values():
        if attribute.required or random.random() < 0.4:
            _attribute(node, attribute, random)
    if model.graph.output and random.random() < 0.5:
        # Whatever comes out: then it is inference that decides and not what was declared.
        model.graph.output[0].name = outputs[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")


def _operator(model: onnx.ModelProto, random: Random) -> None:
    """Another operator for a node that is there."""
    if model.graph.node:
        random.choice(model.graph.node).op_type = random.choice(_SCHEMAS).name


def _wire(model: onnx.ModelProto, random: Random) -> None:
    if model.graph.node:
        node = random.choice(model.graph.node)
        held = node.input if random.random() < 0.7 else node.output
        if held:
            held[random.randrange(len(held))] = random.choice([*_names(model), ""])


def _attribute(node: onnx.NodeProto, attribute: Any, random: Random) -> None:
    kind = random.choice(_KINDS) if random.random() < 0.05 else attribute.type
    made = node.attribute.add(name=attribute.name)
    if kind == _ALL.INT:
        made.type, made.i = onnx.AttributeProto.INT, random.choice(_INTEGERS)
    elif kind == _ALL.INTS:
        made.type = onnx.AttributeProto.INTS
        made.ints.extend(random.choice(_INTEGERS) for _ in range(random.choice((0, 1, 2, 2, 4, 9))))
    elif kind == _ALL.FLOAT:
        made.type, made.f = onnx.AttributeProto.FLOAT, random.choice(_FLOATS)
    elif kind == _ALL.FLOATS:
        made.type = onnx.AttributeProto.FLOATS
        made.floats.extend(random.choice(_FLOATS) for _ in range(random.choice((0, 1, 2, 4))))
    elif kind == _ALL.STRING:
        made.type, made.s = onnx.AttributeProto.STRING, random.choice(_TEXTS).encode()
    elif kind == _ALL.TENSOR:
        made.type = onnx.AttributeProto.TENSOR
        _fill(made.t, random)
    else:
        made.type = random.choice([value.number for value in made.DESCRIPTOR.fields_by_name["type"].enum_type.values])


def _fill(tensor: onnx.TensorProto, random: Random) -> None:
    """Dimensions, type and bytes that agree most of the time."""
    dims = [random.choice((0, 1, 2, 3)) for _ in range(random.choice((0, 1, 1, 2, 4)))]
    kind, size = random.choice(((1, 4), (7, 8), (6, 4), (9, 1), (10, 2), (11, 8), (3, 1), (16, 2)))
    count = 1
    for extent in dims:
        count *= extent
    del tensor.dims[:]
    tensor.dims.extend(dims if random.random() < 0.9 else [random.choice(_INTEGERS)])
    tensor.data_type = kind
    number = random.choice(_INTEGERS) & (2 ** (8 * size) - 1)
    tensor.raw_data = number.to_bytes(size, "little") * count


def _tensor(model: onnx.ModelProto, random: Random) -> None:
    """An initializer: a new one, or another content for one that is there. Shapes are often computed from them."""
    held = model.graph.initializer
    if held and random.random() < 0.5:
        _fill(random.choice(held), random)
    else:
        _fill(held.add(name=f"w{random.randrange(20)}"), random)


def _interface(model: onnx.ModelProto, random: Random) -> None:
    """Another shape or type of an input or output."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    tensor = random.choice(infos).type.tensor_type
    if random.random() < 0.3:
        tensor.elem_type = random.choice((0, 1, 6, 7, 8, 9, 10, 16, 17, 24, 99))
        return
    del tensor.shape.dim[:]
    for _ in range(random.choice((0, 1, 2, 3, 4, 4, 5, 9))):
        dim = tensor.shape.dim.add()
        if random.random() < 0.3:
            dim.dim_param = random.choice(_TEXTS)
        else:
            dim.dim_value = random.choice((0, 1, 2, 3, 4, 8, 64, -1, 2**20, 2**31, 2**62))


def _version(model: onnx.ModelProto, random: Random) -> None:
    for entry in model.opset_import:
        entry.version = random.choice((*range(7, 27), 2**31, -1))
    model.ir_version = random.choice((1, 3, 4, 7, 8, 10, 13, 99))


_CHANGES = (_field, _field, _node, _node, _node, _operator, _wire, _wire, _tensor, _interface, _version)
