"""How many parts a serialized model has, counted on its bytes, before a parser makes objects of them.

Two bytes of a file can be an object of 150 bytes: a parser turns a few hundred megabytes of empty nodes into more than
most machines have. So the parts are counted first, at next to no memory. The encoding is that of Protocol Buffers
(https://protobuf.dev/programming-guides/encoding): a number that says field and form, then the contents.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor

MAX_MESSAGES: Final = 2_000_000
MAX_FIELDS: Final = 20_000_000

_VARINT, _EIGHT, _BYTES, _GROUP, _GROUP_END, _FOUR = range(6)


def too_many(raw: bytes, root: Descriptor) -> str:
    """What there is too much of, in words; empty if there is not.

    Bytes that are no such message are left to the parser, which refuses them: the count ends where they begin.

    Args:
        raw: a serialized message.
        root: of which type.
    """
    messages = fields = 0
    inside = {root: _message_fields(root)}
    stack = [(0, len(raw), root)]
    while stack:
        at, end, kind = stack.pop()
        while at < end:
            tag, at = _varint(raw, at, end)
            fields += 1
            if fields > MAX_FIELDS:
                return f"more than {MAX_FIELDS} fields"
            length, at = _content(raw, at, end, tag & 7)
            if at + length > end:
                break
            inner = inside[kind].get(tag >> 3) if tag & 7 == _BYTES else None
            if inner is not None:
                messages += 1
                if messages > MAX_MESSAGES:
                    return f"more than {MAX_MESSAGES} messages"
                if inner not in inside:
                    inside[inner] = _message_fields(inner)
                stack.append((at, at + length, inner))
            at += length
    return ""


def _message_fields(kind: Descriptor) -> dict[int, Descriptor]:
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _content(raw: bytes, at: int, end: int, form: int) -> tuple[int, int]:
    """Length of a field's contents and where they begin; beyond the end where that cannot be."""
    if form == _BYTES:
        return _varint(raw, at, end)
    if form == _VARINT:
        _, after = _varint(raw, at, end)
        return 0, after
    # The ends of a group, which no message of ONNX has and a parser passes over: what is between them counts too.
    return {_EIGHT: 8, _FOUR: 4, _GROUP: 0, _GROUP_END: 0}.get(form, end), at


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where it ends; one that is cut short ends beyond the end."""
    value = shift = 0
    while at < end and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end + 1
