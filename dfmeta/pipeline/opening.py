"""A bundle opened for use: verified, gated, and proven to be the graph that was recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfmeta import __version__
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

    def provenance(self, recipe: Mapping[str, object]) -> dict[str, str]:
        """What the metadata of a model made from it says of where it comes from.

        Args:
            recipe: what was asked for, in JSON types.
        """
        return {
            "dfmeta.source_manifest_sha256": self.bundle.identity,
            "dfmeta.source_bundle_id": self.bundle.manifest.bundle.id,
            "dfmeta.recipe": json.dumps(recipe, sort_keys=True),
            "dfmeta.tool": f"dfmeta {__version__}",
        }


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
