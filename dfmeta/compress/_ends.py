"""Which weight operators come first and last in a graph."""

from __future__ import annotations

from collections.abc import Sequence

from dfmeta.compress._operators import Operator
from dfmeta.graph import Graph


def first_and_last(graph: Graph, found: Sequence[Operator]) -> frozenset[str]:
    """Labels of the operators that no other one leads to, and of those that lead to no other one.

    Args:
        graph: the model.
        found: its weight operators.
    """
    at = {operator.node: operator.label for operator in found}
    before: dict[str, frozenset[str]] = {}
    first: set[str] = set()
    followed: set[str] = set()
    for place, node in enumerate(graph.model.graph.node):
        above = frozenset[str]().union(*(before.get(name, frozenset()) for name in node.input))
        label = at.get(place)
        if label is not None:
            if not above:
                first.add(label)
            followed |= above
            above = frozenset({label})
        for name in node.output:
            before[name] = above
    return frozenset(first | (set(at.values()) - followed))
