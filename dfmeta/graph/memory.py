"""How much memory a graph asks for, from its inferred shapes alone."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfmeta.graph.load import Graph, Value

# Of a value whose type inference does not know.
_BITS = 32


def asked_for(graph: Graph) -> tuple[tuple[str, int], int, int]:
    """What one unit takes, sizes that are free counted as 1: so it is never too much.

    Returns:
        Name and bytes of the largest value that is no constant; bytes of all such values; bytes of all constants.
    """
    sizes = {name: size_of(graph.value(name)) for name in graph.values}
    constants = set(graph.initializer_names)
    computed = {name: size for name, size in sizes.items() if name not in constants}
    largest = max(computed.items(), key=lambda item: item[1], default=("", 0))
    return largest, sum(computed.values()), sum(sizes[name] for name in constants)


def size_of(value: Value) -> int:
    """Bytes of one value, sizes that are free counted as 1."""
    found = re.search(r"\d+", value.dtype)
    bits = int(found[0]) if found else 8 if value.dtype == "bool" else _BITS
    return -(-bits * math.prod(size if isinstance(size, int) else 1 for size in value.shape) // 8)
