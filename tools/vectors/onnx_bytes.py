"""ONNX files, byte by byte: the few messages that the vectors need, right or wrong, without a library that checks them.

Field numbers are those of onnx.proto (onnx/onnx, IR version 10).
"""

from __future__ import annotations

from collections.abc import Sequence

Field = tuple[int, int | str | bytes]
Dims = Sequence[int | str]

FLOAT, INT64, STRING = 1, 7, 8
EXTERNAL = 1


def varint(value: int) -> bytes:
    """An integer as protobuf writes it; negative ones in ten bytes."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: Field) -> bytes:
    """A message: integers as varints, text and bytes with their length."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(raw)) + raw)
    return b"".join(parts)


def value(name: str, dims: Dims, dtype: int = FLOAT) -> bytes:
    """ValueInfoProto: a tensor with its sizes."""
    shape = message(*((1, message((2, size) if isinstance(size, str) else (1, size))) for size in dims))
    return message((1, name), (2, message((1, message((1, dtype), (2, shape))))))


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], *more: Field) -> bytes:
    """NodeProto; ``more`` are further fields, such as (5, attribute), (3, name) and (7, domain)."""
    names: list[Field] = [*((1, name) for name in inputs), *((2, name) for name in outputs)]
    return message(*names, (4, op), *more)


def tensor(name: str, dims: Sequence[int], raw: bytes, dtype: int = FLOAT, *more: Field) -> bytes:
    """TensorProto with raw data."""
    return message(*((1, size) for size in dims), (2, dtype), (8, name), (9, raw), *more)


def graph(*fields: Field) -> bytes:
    """GraphProto: 1 node, 5 initializer, 11 input, 12 output, 13 value, 15 sparse initializer."""
    return message(*(each for each in fields if each[0] < 2), (2, "g"), *(each for each in fields if each[0] > 2))


def model(body: bytes, *more: Field, ir: int = 8, opsets: Sequence[tuple[str, int]] = (("", 18),)) -> bytes:
    """ModelProto; ``more`` are further fields: 14 metadata, 20 training, 25 function."""
    sets: list[Field] = [(8, message((1, domain), (2, version))) for domain, version in opsets]
    return message((1, ir), (7, body), *sets, *more)


def relu(dims: Dims = ("batch", 2), *more: Field, ir: int = 8, opset: int = 18, dtype: int = FLOAT) -> bytes:
    """The graph of nearly every vector: y = Relu(x); ``more`` are further fields of its GraphProto."""
    ends: list[Field] = [(11, value("x", dims, dtype)), (12, value("y", dims, dtype))]
    return model(graph((1, node("Relu", ["x"], ["y"])), *ends, *more), ir=ir, opsets=[("", opset)])


def around(*nodes: bytes, fields: Sequence[Field] = (), more: Sequence[Field] = (), opsets: int = 18) -> bytes:
    """A graph of other nodes between the same x and y."""
    ends: list[Field] = [(11, value("x", ["batch", 2])), (12, value("y", ["batch", 2]))]
    return model(graph(*((1, each) for each in nodes), *ends, *fields), *more, opsets=[("", opsets)])
