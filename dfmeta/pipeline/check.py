"""Is a bundle what it says it is: files, manifest, records, graph and probe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dfmeta import bundle as bundles
from dfmeta.bundle import Bundle, Report
from dfmeta.errors import DfmetaError, GraphError, LimitExceeded, Problem
from dfmeta.schema import MANIFEST_NAME


def validate(path: str | Path, *, strict: bool = False) -> Report:
    """Everything that :func:`dfmeta.bundle.validate` checks, then the graph's gate, the manifest's fit and the probe.

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
        if bundle.identity != report.identity:
            problems.append(_changed(bundle.identity, report.identity))
        elif bundle.manifest.model.graph is not None:
            problems += _graph_problems(bundle)
    except (GraphError, LimitExceeded) as error:
        problems.append(Problem(error.where, error.code, error.found, error.expected, error.fix))
    except DfmetaError as error:
        # All of it was in order a moment ago.
        problems.append(Problem(error.where, "changed-while-read", error.found, error.expected, error.fix))
    return replace(report, valid=not problems, problems=(*report.problems, *problems))


def _graph_problems(bundle: Bundle) -> list[Problem]:
    # They bring onnx and onnxruntime, which nothing needs until there is a graph that is worth opening.
    from dfmeta.graph import Graph
    from dfmeta.pipeline.fit import fit_problems
    from dfmeta.records import check_probe

    graph = Graph.from_bytes(bundle.graph_bytes(), "graph")
    # A probe can be run only through a graph that has what the manifest names.
    return fit_problems(bundle.manifest, graph) or check_probe(graph, bundle)


def _changed(now: str, before: str | None) -> Problem:
    fix = "Validate a bundle that nobody is writing to."
    found = f"a manifest of sha256 {now[:16]}…"
    return Problem(MANIFEST_NAME, "changed-while-read", found, f"{(before or 'none')[:16]}…, as before", fix)
