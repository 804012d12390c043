"""Which values of a graph can be sites, and which of them follow each other along the flow of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, SiteValue, Value, free_batch, weight_sites
from dfmeta.graph.operator_inputs import OperatorInput, operator_inputs
from dfmeta.records.plan import SitePlan

# What these give depends on a value's sizes, and not on its numbers.
_SIZES_ONLY = frozenset({"Shape", "Size"})


def find_sites(graph: Graph) -> dict[str, tuple[SitePlan, ...]]:
    """The graph's sites before and behind its weight operators.

    A value is a site only where the batch is its axis 0. Elsewhere (sequence-first attention, batch and positions
    merged into one axis) its rows are not units, and it is left out; so are inputs that are no measurements, such
    as token ids.

    Returns:
        ``inputs``; ``top``, the graph's outputs; ``all``: inputs, weight operators' outputs and outputs, in
        topological order; ``operator-outputs``: those of them that are behind a weight operator;
        ``operator-inputs``: what weight operators read, in topological order, each once however many read it; and
        ``every``: ``all``, then the other values of ``operator-inputs``. Ids count in the same order.

    Raises:
        GraphError: an input or a site of ``all`` whose sizes are not all known but for the batch.
    """
    for value in graph.inputs:
        _require_sizes(value)
    behind = {site.value: site for site in weight_sites(graph)}
    values: dict[str, SiteValue | None] = {value.name: None for value in graph.inputs if "float" in value.dtype}
    values |= behind
    values |= {value.name: values.get(value.name) for value in graph.outputs}
    reads = [read for read in operator_inputs(graph) if not _unrecordable(graph, read)]
    usable = _batch_first(graph, tuple(dict.fromkeys([*values, *(read.value for read in reads)])))
    values = {name: found for name, found in values.items() if name in usable}
    plans = {name: _site(graph, name, found, number) for number, (name, found) in enumerate(values.items())}
    read_at = _read_sites(graph, [read for read in reads if read.value in usable], plans)
    return {
        "inputs": tuple(plans[value.name] for value in graph.inputs if value.name in plans),
        "top": tuple(plans[value.name] for value in graph.outputs if value.name in plans),
        "all": tuple(plans.values()),
        "operator-outputs": tuple(site for name, site in plans.items() if name in behind),
        "operator-inputs": read_at,
        "every": (*plans.values(), *(site for site in read_at if site.value not in plans)),
    }


def operators_at(graph: Graph, sites: Iterable[SitePlan]) -> tuple[tuple[SitePlan, OperatorInput], ...]:
    """Each weight operator whose input is a site, with that site, in the graph's own order."""
    known = {(site.value, site.feature_axis): site for site in sites}
    pairs = ((known.get((read.value, read.feature_axis)), read) for read in operator_inputs(graph))
    return tuple((site, read) for site, read in pairs if site is not None)


def neighbours(graph: Graph, sites: Sequence[SitePlan]) -> tuple[tuple[SitePlan, SitePlan], ...]:
    """The pairs of sites that follow each other along the flow of data, upstream site first.

    From a site, each path is followed upstream to the first site on it. A site that is reached in this way and also
    lies upstream of another one that is reached is no neighbour: around a residual block, only its last layer is.
    So there are about as many pairs as sites, and not as many as paths.

    Args:
        graph: the model.
        sites: in topological order, such as ``all`` of :func:`find_sites`.
    """
    places = {site.value: site for site in sites}
    # Of each value the first sites upstream of it, and of each site all of them.
    nearest: dict[str, frozenset[str]] = {name: frozenset({name}) for name in places}
    above: dict[str, frozenset[str]] = {value.name: frozenset() for value in graph.inputs}
    pairs: dict[str, list[str]] = {name: [] for name in places}
    for node in graph.model.graph.node:
        sources = [] if node.op_type in _SIZES_ONLY else [nearest.get(name, frozenset()) for name in node.input]
        found = frozenset[str]().union(*sources)
        for output in node.output:
            if output not in places:
                nearest[output] = found
                continue
            further = frozenset[str]().union(*(above[name] for name in found))
            above[output] = found | further
            pairs[output] = [name for name in places if name in found - further]
    return tuple((places[before], places[after]) for after, befores in pairs.items() for before in befores)


def left_out(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Label of each weight operator whose input is no site, and why not."""
    known = {site.value for site in find_sites(graph)["operator-inputs"]}
    found = []
    for read in operator_inputs(graph):
        reason = _unrecordable(graph, read)
        if reason or read.value not in known:
            found.append((read.label, reason or "the batch is not axis 0 of its input"))
    return tuple(found)


def _unrecordable(graph: Graph, read: OperatorInput) -> str:
    """Why an operator's input cannot be a site, as far as its type and shape tell; empty where it may be one."""
    value = graph.value(read.value)
    if read.left_out:
        return read.left_out
    if "float" not in value.dtype:
        return f"its input is {value.dtype}"
    if len(value.shape) < 2:
        return "its input has no axis beside the batch"
    return "" if all(isinstance(size, int) for size in value.shape[1:]) else "the sizes of its input are not all known"


def _read_sites(graph: Graph, reads: Sequence[OperatorInput], known: Mapping[str, SitePlan]) -> tuple[SitePlan, ...]:
    """One site for each value that is read, in topological order: the known one, or one of those that follow it.

    A value that operators read along different axes is a site for each of them: what is a feature of one is a
    position of the other.
    """
    labels: dict[tuple[str, int], list[str]] = {}
    for read in reads:
        if read.feature_axis is not None:
            labels.setdefault((read.value, read.feature_axis), []).append(read.label)
    order = {name: place for place, name in enumerate(_topological(graph))}
    sites: list[SitePlan] = []
    number = len(known)
    for (name, axis), readers in sorted(labels.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        site = known.get(name)
        if site is None or site.feature_axis != axis:
            more = f" and {len(readers) - 1} more" if len(readers) > 1 else ""
            value = graph.value(name)
            label, shape = f"input of {readers[0]}{more}", ("batch", *value.shape[1:])
            site = SitePlan(f"s{number:04d}", name, label, value.dtype, shape, axis)
            number += 1
        sites.append(site)
    return tuple(sites)


def _topological(graph: Graph) -> list[str]:
    names = [value.name for value in graph.inputs]
    return names + [output for node in graph.model.graph.node for output in node.output]


def _batch_first(graph: Graph, names: Sequence[str]) -> frozenset[str]:
    """Those of the values whose axis 0 is the batch, and no other axis.

    A free batch that shape inference follows to every value answers at once. Otherwise the graph is run with two
    units and with three: axis 0 must be their number both times, and nothing else may change.
    """
    try:
        free = free_batch(graph)
    except GraphError:
        # It will be run one fixed batch at a time, so axis 0 is the batch where it has its size.
        sizes = {value.shape[0] for value in graph.inputs if value.shape}
        return frozenset(name for name in names if sizes & set(graph.value(name).shape[:1]))
    symbols = {value.shape[0] for value in free.inputs if value.shape}
    if len(symbols) == 1 and all(set(free.value(name).shape[:1]) == symbols for name in names):
        return frozenset(names)
    session = OrtGraph(free, names, threads=1)
    two, three = (_shapes(session, free, units) for units in (2, 3))
    return frozenset(name for name in names if two[name] and three[name] == (3, *two[name][1:]) and two[name][0] == 2)


def _shapes(session: OrtGraph, graph: Graph, units: int) -> dict[str, tuple[int, ...]]:
    inputs = {
        value.name: np.zeros((units, *(int(size) for size in value.shape[1:])), value.dtype) for value in graph.inputs
    }
    return {name: array.shape for name, array in session.run(inputs).items()}


def _require_sizes(value: Value) -> None:
    if not all(isinstance(size, int) for size in value.shape[1:]):
        raise GraphError(
            f"value {value.name!r}",
            f"shape {list(value.shape)}",
            "a batch axis and sizes that are all known",
            "Export the model with fixed sizes for every axis but the batch.",
        )


def _site(graph: Graph, name: str, found: SiteValue | None, number: int) -> SitePlan:
    value = graph.value(name)
    _require_sizes(value)
    if len(value.shape) < 2:
        raise GraphError(
            f"value {name!r}",
            f"shape {list(value.shape)}",
            "an axis of features after the batch axis",
            "Export the model with an output of [batch, features].",
        )
    return SitePlan(
        id=f"s{number:04d}",
        value=name,
        label=found.label if found else name,
        dtype=value.dtype,
        shape=("batch", *value.shape[1:]),
        feature_axis=found.feature_axis if found else 1,
    )
