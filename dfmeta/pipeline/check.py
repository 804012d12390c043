"""Is a bundle what it says it is: files, manifest, records, graph and probe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dfmeta import bundle as bundles
from dfmeta.bundle import Bundle, Report
from dfmeta.errors import DfmetaError, Problem
from dfmeta.graph import Graph
from dfmeta.records import check_probe


def validate(path: str | Path, *, strict: bool = False) -> Report:
    """Everything that :func:`dfmeta.bundle.validate` checks, then the graph's gate and the probe.

    The graph is opened only if every member is the one that the manifest pins.

    Args:
        path: the bundle's folder.
        strict: also refuse members that the format does not know.
    """
    report = bundles.validate(path, strict=strict)
    if not report.valid:
        return report
    problems: list[Problem] = []
    try:
        bundle = Bundle.open(path)
        if bundle.manifest.model.graph is not None:
            problems += check_probe(Graph.from_bytes(bundle.graph_bytes(), "graph"), bundle)
    except DfmetaError as error:
        problems.append(Problem(error.where, "graph", error.found, error.expected, error.fix))
    return replace(report, valid=not problems, problems=(*report.problems, *problems))
