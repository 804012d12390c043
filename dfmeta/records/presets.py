"""Presets: named choices of sites, kinds and groups, and the plan that a choice makes for one graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dfmeta.errors import GraphError, UnknownName
from dfmeta.graph import Graph, SiteValue, weight_sites

Features = Literal["flattened", "channel"]

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


@dataclass(frozen=True, slots=True)
class SitePlan:
    """A value of the graph at which something will be recorded.

    Attributes:
        id: opaque site id.
        value: name in the graph.
        label: for people.
        dtype: numpy name.
        shape: with the batch axis first; sizes, or names of free dimensions.
        feature_axis: the channel axis, if the value has one.
    """

    id: str
    value: str
    label: str
    dtype: str
    shape: tuple[int | str, ...]
    feature_axis: int | None

    def feature_count(self, features: Features) -> int:
        """d, the length of one feature vector under that layout."""
        if features == "channel" and self.feature_axis is not None:
            return int(self.shape[self.feature_axis])
        return math.prod(int(size) for size in self.shape[1:])


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """One statistic of one site that will be taken.

    Attributes:
        site: where.
        kind: which statistic.
        by_class: whether there is a row for each class beside the record over all units.
        features: how the site's axes become a feature vector.
        configuration: the kind's own parameters, such as ``rank``.
    """

    site: SitePlan
    kind: str
    by_class: bool
    features: Features
    configuration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feature_count(self) -> int:
        """d, the length of one feature vector."""
        return self.site.feature_count(self.features)


def make_plan(graph: Graph, presets: Sequence[str], *, rank: int = DEFAULT_RANK) -> tuple[RecordPlan, ...]:
    """The records that the presets ask of this graph, each once.

    Args:
        graph: the model.
        presets: names of :data:`PRESETS`.
        rank: eigenpairs that each ``spectrum`` keeps (fewer where the site has fewer features).

    Raises:
        UnknownName: a preset we do not have.
        GraphError: a site whose shape is not known but for the batch.
    """
    sites = find_sites(graph)
    plans: dict[tuple[str, str, Features], RecordPlan] = {}
    for preset in presets:
        if preset not in PRESETS:
            raise UnknownName("preset", preset, PRESETS)
        for choice in PRESETS[preset]:
            for site in sites[choice.sites]:
                plan = _plan(site, choice, rank)
                key = (site.id, plan.kind, plan.features)
                earlier = plans.get(key)
                if earlier is None or plan.by_class:
                    plans[key] = plan
    return tuple(plans.values())


def find_sites(graph: Graph) -> dict[str, tuple[SitePlan, ...]]:
    """The graph's sites in topological order: ``inputs``, ``top`` and ``all``."""
    values: dict[str, SiteValue | None] = {
        value.name: None for value in graph.inputs if "float" in value.dtype
    }
    values |= {site.value: site for site in weight_sites(graph)}
    values |= {value.name: values.get(value.name) for value in graph.outputs}
    plans = {name: _site(graph, name, found, number) for number, (name, found) in enumerate(values.items())}
    return {
        "inputs": tuple(plans[value.name] for value in graph.inputs if value.name in plans),
        "top": tuple(plans[value.name] for value in graph.outputs),
        "all": tuple(plans.values()),
    }


def _site(graph: Graph, name: str, found: SiteValue | None, number: int) -> SitePlan:
    value = graph.value(name)
    free = [size for size in value.shape[1:] if not isinstance(size, int)]
    if len(value.shape) < 2 or free:
        raise GraphError(
            f"value {name!r}",
            f"shape {list(value.shape)}",
            "a batch axis and sizes that are all known",
            "Export the model with fixed sizes for every axis but the batch.",
        )
    batch = value.shape[0] if isinstance(value.shape[0], str) else "batch"
    return SitePlan(
        id=f"s{number:04d}",
        value=name,
        label=found.label if found else name,
        dtype=value.dtype,
        shape=(batch, *value.shape[1:]),
        feature_axis=found.feature_axis if found else 1,
    )


def _plan(site: SitePlan, choice: Choice, rank: int) -> RecordPlan:
    flat = site.feature_count("flattened")
    features = choice.features or ("flattened" if flat <= FLATTENED_LIMIT else "channel")
    configuration = {"rank": min(rank, site.feature_count(features))} if choice.kind == "spectrum" else {}
    return RecordPlan(site, choice.kind, choice.by_class, features, configuration)
