"""Changes to a safetensors file: its header as the JSON it is, its offsets, and its numbers."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from json_mutator import Bytes, Members, Vocabulary, Written, change, encoded, parsed

_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1, "U64": 8}
_NUMBERS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 1.0, 1e-300, 1e300, 3.5, 2.0**24)
_INTEGERS = (0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 10, 255)


def split(raw: bytes) -> tuple[bytes, bytes]:
    """The header's text and the data, by the length that the file states."""
    length = min(int.from_bytes(raw[:8], "little"), len(raw))
    return raw[8 : 8 + length], raw[8 + length :]


def joined(text: bytes, data: bytes) -> bytes:
    """A file of that header and that data."""
    return len(text).to_bytes(8, "little") + text + data


def mutate(
    raw: bytes, limit: int, random: Random, vocabulary: Vocabulary, good: Sequence[bytes], plain: Bytes
) -> bytes:
    """Another file, at most ``limit`` bytes.

    Args:
        raw: the file.
        limit: bytes of the result.
        random: decides.
        vocabulary: of good headers.
        good: files to begin with now and then instead.
        plain: changes bytes as bytes.
    """
    choice = random.random()
    if good and random.random() < 0.25:
        raw = random.choice(good)
    text, data = split(raw)
    document = parsed(text)
    if choice < 0.08 or document is None:
        return plain(raw, limit)
    if choice < 0.14:
        length = random.choice(
            (0, 1, 2, len(text) - 1, len(text) + 1, len(raw) - 8, 2**24, 2**24 + 1, 2**63, 2**64 - 1)
        )
        return (max(length, 0).to_bytes(8, "little") + text + data)[:limit]
    if choice < 0.20:
        data = plain(data, max(limit - len(text) - 8, 0)) if data else b"\0"
    elif choice < 0.30:
        data = with_number(data, random)
    else:
        document = [document]
        for _ in range(min(1 + int(random.expovariate(0.8)), 6)):
            change(document, random, vocabulary)
        document = document[0] if document else Members()
        if random.random() < 0.7:
            data = relaid(document, data)
        text = encoded(document)
    out = joined(text + b" " * (-len(text) % 8), data)
    return out if len(out) <= limit else plain(raw, limit)


def with_number(data: bytes, random: Random) -> bytes:
    """Data in which one number is another."""
    form = random.choice(("<d", "<f", "<e", "<q", "<B"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = random.randrange(0, len(data) - size + 1, size)
    if form == "<q":
        block = struct.pack(form, random.choice(_INTEGERS))
    elif form == "<B":
        block = bytes([random.randrange(256)])
    else:
        number = random.choice(_NUMBERS)
        block = struct.pack(form, number if form == "<d" else max(min(number, 6e4), -6e4))
    return data[:at] + block + data[at + size :]


def relaid(document: Any, data: bytes) -> bytes:
    """Give every tensor the bytes that it asks for, end to end, so that a changed shape is not refused for its offsets.

    Returns:
        Data of the right length.
    """
    cursor = 0
    for name, entry in document if isinstance(document, Members) else ():
        fields = dict(entry) if isinstance(entry, Members) else {}
        need = _bytes_of(fields)
        if name == "__metadata__" or need is None or cursor + need > 4096:
            continue
        offsets = [Written(str(cursor)), Written(str(cursor + need))]
        entry[:] = [(key, offsets if key == "data_offsets" else value) for key, value in entry]
        cursor += need
    return (data + bytes(max(cursor - len(data), 0)))[:cursor]


def _bytes_of(fields: dict[str, Any]) -> int | None:
    shape, dtype = fields.get("shape"), fields.get("dtype")
    if not isinstance(shape, list) or not isinstance(dtype, str) or dtype not in _SIZES:
        return None
    texts = [item.text for item in shape if isinstance(item, Written) and item.text.isdigit() and len(item.text) < 20]
    return math.prod(map(int, texts)) * _SIZES[dtype] if len(texts) == len(shape) else None
