"""Presets: named choices of sites, kinds and groups, and the plan that a choice makes for one graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfmeta.errors import GraphError, UnknownName
from dfmeta.graph import Graph, OrtGraph, SiteValue, Value, free_batch, weight_sites
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.samples import Features

# Above this many features a covariance no longer fits: channels then become the features, positions samples.
FLATTENED_LIMIT = 4096
DEFAULT_RANK = 32


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a preset.

    Attributes:
        sites: ``inputs``, ``top`` (the graph's outputs) or ``all`` (inputs and every weight operator's output).
        kind: record kind.
        by_class: whether each class gets a row of its own, beside the record over all units.
        features: ``flattened`` or ``channel``; None for flattened where that fits, channels elsewhere.
    """

    sites: Literal["inputs", "top", "all"]
    kind: str
    by_class: bool = True
    features: Features | None = None


PRESETS: Mapping[str, tuple[Choice, ...]] = {
    "top-layer": (
        Choice("top", "moments"),
        Choice("top", "spectrum"),
        # Starting noise needs the input's scale, and nothing more of it: one mean and variance a channel.
        Choice("inputs", "moments", by_class=False, features="channel"),
    ),
    "all-layers": (Choice("all", "moments"),),
    "spectral": (Choice("all", "spectrum"),),
}


def make_plan(
    graph: Graph, presets: Sequence[str], *, rank: int = DEFAULT_RANK, at: Sequence[str] | None = None
) -> tuple[RecordPlan, ...]:
    """The records that the presets ask of this graph, each once.

    Args:
        graph: the model.
        presets: names of :data:`PRESETS`.
        rank: eigenpairs that each ``spectrum`` keeps (fewer where the site has fewer features).
        at: only these of the presets' sites, by value name or label; None for all.

    Raises:
        UnknownName: a preset we do not have, or a site that the presets do not record.
        GraphError: a site whose shape is not known but for the batch, or no site at all for a preset.
    """
    for preset in presets:
        if preset not in PRESETS:
            raise UnknownName("preset", preset, PRESETS)
    sites = find_sites(graph)
    plans: dict[tuple[str, str, Features], RecordPlan] = {}
    for preset in presets:
        for choice in PRESETS[preset]:
            _require_sites(graph, preset, choice, sites)
            for site in sites[choice.sites]:
                plan = _plan(site, choice, rank)
                key = (site.id, plan.kind, plan.features)
                earlier = plans.get(key)
                if earlier is None or plan.by_class:
                    plans[key] = plan
    return tuple(plans.values() if at is None else _chosen(plans.values(), at))


def _chosen(plans: Iterable[RecordPlan], at: Sequence[str]) -> list[RecordPlan]:
    """The plans at the named sites."""
    plans = list(plans)
    for name in at:
        if not any(name in (plan.site.value, plan.site.label) for plan in plans):
            raise UnknownName("site", name, {plan.site.value for plan in plans})
    return [plan for plan in plans if plan.site.value in at or plan.site.label in at]


def find_sites(graph: Graph) -> dict[str, tuple[SitePlan, ...]]:
    """The graph's sites in topological order: ``inputs``, ``top`` and ``all``.

    A value is a site only where the batch is its axis 0. Elsewhere (sequence-first attention, batch and positions
    merged into one axis) its rows are not units, and it is left out; so are inputs that are no measurements, such
    as token ids.

    Raises:
        GraphError: an input or a site whose sizes are not all known but for the batch.
    """
    for value in graph.inputs:
        _require_sizes(value)
    values: dict[str, SiteValue | None] = {value.name: None for value in graph.inputs if "float" in value.dtype}
    values |= {site.value: site for site in weight_sites(graph)}
    values |= {value.name: values.get(value.name) for value in graph.outputs}
    usable = _batch_first(graph, tuple(values))
    values = {name: found for name, found in values.items() if name in usable}
    plans = {name: _site(graph, name, found, number) for number, (name, found) in enumerate(values.items())}
    return {
        "inputs": tuple(plans[value.name] for value in graph.inputs if value.name in plans),
        "top": tuple(plans[value.name] for value in graph.outputs if value.name in plans),
        "all": tuple(plans.values()),
    }


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


def _require_sites(graph: Graph, preset: str, choice: Choice, sites: Mapping[str, Sequence[SitePlan]]) -> None:
    # An input of token ids is no site, and its record is not missed: only the others are what a preset is for.
    if choice.sites != "inputs" and not sites[choice.sites]:
        raise GraphError(
            f"{graph.where}, preset {preset!r}",
            "no value that has the batch as its axis 0",
            f"one among {choice.sites!r}",
            "Export the model with the batch first (in torch: batch_first=True).",
        )


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


def _plan(site: SitePlan, choice: Choice, rank: int) -> RecordPlan:
    flat = site.feature_count("flattened")
    features = choice.features or ("flattened" if flat <= FLATTENED_LIMIT else "channel")
    configuration = {"rank": min(rank, site.feature_count(features))} if choice.kind == "spectrum" else {}
    return RecordPlan(site, choice.kind, choice.by_class, features, configuration)
