"""A bundle opened for use: verified, gated, and proven to be the graph that was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfmeta.bundle import Bundle
from dfmeta.errors import IntegrityError, SchemaError
from dfmeta.graph import Graph
from dfmeta.pipeline.fit import fit_problems
from dfmeta.records import check_probe


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle that has been opened, gated and proven by its probe.

    Attributes:
        bundle: the bundle.
        graph: its teacher.
    """

    bundle: Bundle
    graph: Graph


def open_release(path: str | Path) -> Opened:
    """Open a bundle for use: verified manifest and graph, safe to run, and the graph that was recorded.

    Raises:
        BundleError: an unreadable bundle, or bytes that are not what the manifest pins.
        GraphError: a graph that the gate refuses.
        SchemaError: a manifest that breaks the format, or speaks of another graph.
        IntegrityError: the probe does not give what the manifest says.
    """
    bundle = Bundle.open(path)
    graph = Graph.from_bytes(bundle.graph_bytes(), f"{path}: graph")
    misfits = fit_problems(bundle.manifest, graph)
    if misfits:
        raise SchemaError(str(path), misfits)
    problems = check_probe(graph, bundle)
    if problems:
        first = problems[0]
        raise IntegrityError(f"{path}, {first.where}", first.found, first.expected, first.fix)
    return Opened(bundle, graph)
