"""Presets: named choices of sites, kinds and groups, and the plan that a choice makes for one graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dfmeta.errors import DataError, GraphError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.operator_inputs import OperatorInput
from dfmeta.graph.ops.windows import Window
from dfmeta.records.budget import FORMS, STORAGES, fit_bytes, fit_memory, with_form
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.samples import Features
from dfmeta.records.sites import find_sites, neighbours, operators_at

# Above this many features a covariance no longer fits: channels then become the features, positions samples.
FLATTENED_LIMIT = 4096
DEFAULT_RANK = 32
# Rows of a sketch for each pair that is kept of it. By the bound of Frequent Directions
# (:mod:`dfmeta.numerics.frequent_directions`), no direction is then off by more than 1/(3k + 1) of the variance
# that lies outside the k leading ones.
SKETCH_ROWS_PER_RANK = 4

Places = Literal["inputs", "top", "all", "operator-inputs", "operator-outputs", "every", "pairs"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a preset.

    Attributes:
        sites: a key of :func:`dfmeta.records.find_sites`, or ``pairs``: those of ``all`` that follow each other.
        kind: record kind.
        by_class: whether each class gets a row of its own, beside the record over all units.
        features: ``flattened`` or ``channel``; None for flattened where that fits, channels elsewhere.
        gathered_by_class: whether the classes are kept apart while gathering (:class:`RecordPlan`).
    """

    sites: Places
    kind: str
    by_class: bool = True
    features: Features | None = None
    gathered_by_class: bool = True


PRESETS: Mapping[str, tuple[Choice, ...]] = {
    "top-layer": (
        Choice("top", "moments"),
        Choice("top", "spectrum"),
        # Starting noise needs the input's scale, and nothing more of it: one mean and variance a channel.
        Choice("inputs", "moments", by_class=False, features="channel"),
    ),
    "all-layers": (Choice("all", "moments"),),
    "spectral": (Choice("all", "spectrum"),),
    # What two sites have in common is measured against what each of them does alone.
    "spectral-pairs": (Choice("all", "spectrum"), Choice("pairs", "cross-spectrum", features="flattened")),
    # What a compressor reads of calibration data: the input of each weight, ranges, and the means of what it makes.
    "calibration": (
        Choice("operator-inputs", "second-moment", by_class=False, gathered_by_class=False),
        Choice("every", "histogram", by_class=False, features="flattened", gathered_by_class=False),
        Choice("operator-outputs", "moments", by_class=False, features="channel"),
    ),
}


def make_plan(
    graph: Graph,
    presets: Sequence[str],
    *,
    rank: int = DEFAULT_RANK,
    at: Sequence[str] | None = None,
    features: Features | None = None,
    form: str | None = None,
    storage: str | None = None,
    budget_bytes: int | None = None,
    classes: int | None = None,
    memory_limit: int | None = None,
    exact: bool = False,
) -> tuple[RecordPlan, ...]:
    """The records that the presets ask of this graph, each once.

    Args:
        graph: the model.
        presets: names of :data:`PRESETS`, each for all of its sites, or for one as ``preset@site`` (by value name or
            label): the input's spectrum is often all that is wanted of ``spectral``, and is ``spectral@image``.
        rank: pairs that each ``spectrum`` and ``cross-spectrum`` keeps (fewer where a site has fewer features).
        at: only these of the presets' sites, by value name or label; None for all. A pair needs both of its sites.
        features: ``flattened`` or ``channel``, of the records for which the preset leaves it open.
        form: of every ``second-moment`` that can have it: ``toeplitz`` and ``kronecker`` are for kernels larger
            than 1 x 1, and the others are ``full`` then. None for ``toeplitz``.
        storage: of every ``second-moment``: ``float32``, ``float16`` or ``int8``; None for ``float32``.
        budget_bytes: the planned sidecar takes no more than this (:func:`dfmeta.records.budget.fit_bytes`); a form
            or storage that was asked for stays.
        classes: number of classes, from which sizes are planned; None records over all units only.
        memory_limit: where the statistics would need more while they are gathered, the largest exact ones become
            sketches (:func:`dfmeta.records.budget.fit_memory`); None for no limit.
        exact: say in the records of every ``second-moment`` that its products are float64.

    Raises:
        UnknownName: a preset, form, storage or layout that we do not have, or a site that the presets do not record.
        GraphError: a site whose shape is not known but for the batch, or no site at all for a preset.
        DataError: a rank below 1, or a budget too small for any plan.
    """
    _require_known("preset", map(preset_name, presets), PRESETS)
    _require_known("form", [form or "full"], FORMS)
    _require_known("storage", [storage or "float32"], STORAGES)
    _require_known("features", [features or "channel"], ("channel", "flattened"))
    if rank < 1:
        raise DataError("rank", f"{rank}", "at least 1")
    plans: dict[tuple[object, ...], RecordPlan] = {}
    for entry in _asked(graph, presets, rank, features):
        if entry.kind == "second-moment":
            entry = with_form(entry, form or "toeplitz", storage or "float32")
            if exact:
                entry = replace(entry, configuration={**entry.configuration, "exact": True})
        earlier = plans.get(entry.identity)
        if earlier is None or entry.by_class:
            plans[entry.identity] = entry
    chosen = tuple(plans.values()) if at is None else _chosen(plans.values(), at)
    if memory_limit is not None:
        chosen = fit_memory(chosen, classes, memory_limit, _sketched)
    if budget_bytes is None:
        return chosen
    return fit_bytes(chosen, classes, budget_bytes, keep_form=form is not None, keep_storage=storage is not None)


def preset_name(preset: str) -> str:
    """The preset of ``preset@site``, or itself."""
    return preset.partition("@")[0]


def _require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(what, name, known)


def _asked(graph: Graph, presets: Sequence[str], rank: int, features: Features | None) -> Iterator[RecordPlan]:
    """What each preset asks for, one after the other, repetitions and all."""
    for preset in presets:
        name, _, site = preset.partition("@")
        found = _of_preset(graph, name, rank, features)
        yield from _chosen(found, [site]) if site else found


def _of_preset(graph: Graph, preset: str, rank: int, features: Features | None) -> Iterator[RecordPlan]:
    sites = find_sites(graph)
    for choice in PRESETS[preset]:
        if choice.sites == "pairs":
            for before, after in neighbours(graph, sites["all"]):
                yield _paired(before, after, choice, rank)
            continue
        _require_sites(graph, preset, choice, sites)
        if choice.kind == "second-moment":
            for site, read in operators_at(graph, sites[choice.sites]):
                yield _second_moment(site, read, choice)
            continue
        for site in sites[choice.sites]:
            yield _plan(site, choice, rank, choice.features or features)


def _require_sites(graph: Graph, preset: str, choice: Choice, sites: Mapping[str, Sequence[SitePlan]]) -> None:
    # An input of token ids is no site, and its record is not missed: only the others are what a preset is for.
    if choice.sites != "inputs" and not sites[choice.sites]:
        raise GraphError(
            f"{graph.where}, preset {preset!r}",
            "no value that has the batch as its axis 0",
            f"one among {choice.sites!r}",
            "Export the model with the batch first (in torch: batch_first=True).",
        )


def _chosen(plans: Iterable[RecordPlan], at: Sequence[str]) -> tuple[RecordPlan, ...]:
    """The plans at the named sites."""
    plans = list(plans)
    sites = [site for plan in plans for site in plan.sites]
    for name in at:
        if not any(name in (site.value, site.label) for site in sites):
            raise UnknownName("site", name, {site.value for site in sites})
    return tuple(plan for plan in plans if all(site.value in at or site.label in at for site in plan.sites))


def _plan(site: SitePlan, choice: Choice, rank: int, features: Features | None) -> RecordPlan:
    if features is None:
        features = "flattened" if site.feature_count("flattened") <= FLATTENED_LIMIT else "channel"
    if len(site.shape) == 2:
        # With one axis beside the batch, its channels are the whole of it.
        features = "flattened"
    entry = RecordPlan(site, choice.kind, choice.by_class, features, {}, None, choice.gathered_by_class)
    if choice.kind != "spectrum":
        return entry
    entry = replace(entry, configuration={"rank": min(rank, entry.feature_count)})
    return entry if entry.feature_count <= FLATTENED_LIMIT else _sketched(entry)


def _paired(before: SitePlan, after: SitePlan, choice: Choice, rank: int) -> RecordPlan:
    """Whole values, so that the rows of both are units: positions of two layers have nothing to do with each other."""
    counts = before.feature_count("flattened"), after.feature_count("flattened")
    configuration = {"rank": min(rank, *counts), "paired_feature_count": counts[1]}
    entry = RecordPlan(before, choice.kind, choice.by_class, "flattened", configuration, after)
    return entry if counts[0] * counts[1] <= FLATTENED_LIMIT**2 else _sketched(entry)


def _sketched(entry: RecordPlan) -> RecordPlan:
    """The same record from a sketch of the rows in place of all products of features."""
    largest = max(entry.feature_count, int(entry.configuration.get("paired_feature_count", 0)))
    rows = min(SKETCH_ROWS_PER_RANK * int(entry.configuration["rank"]), largest)
    return replace(entry, configuration={**entry.configuration, "sketch": rows})


def _second_moment(site: SitePlan, read: OperatorInput, choice: Choice) -> RecordPlan:
    """Of what one weight meets: a convolution's patches, or the rows of a matrix product."""
    features: Features = "flattened" if len(site.shape) == 2 else "channel"
    configuration: dict[str, Any] = {}
    if read.window is not None:
        features, configuration = "patch", {**_members(read.window), "groups": read.groups}
    return RecordPlan(site, choice.kind, choice.by_class, features, configuration, None, choice.gathered_by_class)


def _members(window: Window) -> dict[str, list[int]]:
    """A convolution's window as the kind's configuration spells it: in JSON types, padding before that after."""
    return {
        "kernel": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "pads": [*window.before, *window.after],
    }
