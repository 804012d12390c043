"""Graphs of a fixed batch size: which have one, and the same graph with a free one.

How a graph is freed, and why that is sound, is in :mod:`dfmeta.graph.freeing`; it needs torch, and is imported only for
graphs whose batch is fixed.
"""

from __future__ import annotations

from dfmeta.graph.load import Graph


def fixed_batch(graph: Graph) -> int | None:
    """The one size of axis 0 of all inputs; None when it is free already or the inputs differ."""
    sizes = {value.shape[0] for value in graph.inputs if value.shape}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def free_batch(graph: Graph) -> Graph:
    """``graph`` with a free batch axis (symbol ``batch``); itself when its batch is free already.

    Raises:
        GraphError: a graph that cannot be freed soundly.
    """
    if graph.inputs and all(value.shape and isinstance(value.shape[0], str) for value in graph.inputs):
        return graph
    from dfmeta.graph.freeing import freed

    return freed(graph)
