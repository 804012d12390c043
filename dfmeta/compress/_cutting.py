"""Which channels go: the groups that may be cut, an order in each, and how wide each group stays."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._sources import Sources
from dfmeta.errors import StepError
from dfmeta.graph import Graph
from dfmeta.graph.channels import ChannelGroup, channel_groups
from dfmeta.graph.widths import macs_per_element, width
from dfmeta.numerics.least_squares import eliminated

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Lost = Mapping[str, Indices]
Watch = Callable[[str, int, int], None]

_NO_LOSS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Path:
    """The channels of a group in the order in which they would go.

    Attributes:
        order: ``[n]`` channels.
        costs: ``[n]`` what each adds to the error, as a share of its readers' energies.
    """

    order: Indices
    costs: Array


def reason_to_keep(group: ChannelGroup, sources: Sources, groups: str) -> str:
    """Why the channels of a group are not cut; empty where they may be.

    Args:
        group: of the graph.
        sources: its weights.
        groups: ``inner`` or ``all``.
    """
    if group.fixed is not None:
        return group.fixed
    if group.size == 1:
        return "it is a single channel"
    consumers, producers = group.of("consumer"), group.of("producer")
    if not consumers:
        return "no weight reads it"
    for member in consumers:
        if not sources.operators(member.tensor):
            reasons = [why for label, why in sources.left_out.items() if repr(member.tensor) in why]
            return reasons[0] if reasons else f"{member.tensor!r} reads it and is no weight of a product alone"
    if groups == "inner" and (len(producers), len(consumers)) != (1, 1):
        return f"{len(producers)} weights make it and {len(consumers)} read it, which only 'all' groups allows"
    return ""


def candidates(graph: Graph, sources: Sources, groups: str) -> tuple[tuple[ChannelGroup, str], ...]:
    """Every group in the graph's order, with the reason why it may not be cut, which is empty where it may.

    Raises:
        StepError: none may be cut; the text says why.
    """
    found = tuple((group, reason_to_keep(group, sources, groups)) for group in channel_groups(graph))
    if all(reason for _, reason in found):
        told = "; ".join(f"{group.id}: {reason}" for group, reason in found[:4])
        raise StepError(
            graph.where,
            f"no channels that may be cut ({told or 'no weight makes any'})",
            "a group that one weight makes and one reads" if groups == "inner" else "a group that is not fixed",
            "Prune 'all' groups, or make it sparse instead." if groups == "inner" else "Make it sparse instead.",
        )
    return found


def uniform(
    free: Sequence[ChannelGroup], sources: Sources, fraction: float, ranking: str, watch: Watch
) -> dict[str, Indices]:
    """Channels that stay, by group: the same fraction of each, group after group."""
    lost: dict[str, Indices] = {}
    kept = {}
    for number, group in enumerate(free):
        count = group.size - width(group.size, fraction)
        if ranking == "energy":
            going = by_energy(group, sources)[:count]
        else:
            going = path(group, sources, count, ranking, lost).order
        kept[group.id] = np.setdiff1d(np.arange(group.size), going)
        lost = lost_features([group], kept, sources, lost)
        watch("prune", number + 1, len(free))
    return kept


def path(group: ChannelGroup, sources: Sources, count: int, ranking: str, lost: Lost | None = None) -> Path:
    """The first ``count`` channels to go.

    Args:
        group: of the graph.
        sources: its weights.
        count: below the group's size.
        ranking: ``surgeon``: after each channel that goes the others make up for it, and that goes next which then
            costs least; ``energy``: at once, by what each channel contributes alone, ``tr(W_c S_cc W_c^T)``.
        lost: columns of each weight that are gone already.
    """
    order = by_energy(group, sources) if ranking == "energy" else None
    readers = [
        reader
        for member in group.of("consumer")
        for reader in sources.of(member.tensor).readers(
            sources.blocks(member), (lost or {}).get(member.tensor, _NO_LOSS)
        )
    ]
    return Path(*eliminated(readers, np.arange(group.size), count, order))


def by_energy(group: ChannelGroup, sources: Sources) -> Indices:
    """All channels of a group, that first which contributes least to its readers, each for itself."""
    alone = np.zeros(group.size)
    for member in group.of("consumer"):
        alone += sources.of(member.tensor).alone(sources.blocks(member))
    return np.argsort(alone, kind="stable")


def overall(
    graph: Graph,
    free: Sequence[ChannelGroup],
    sources: Sources,
    goal: tuple[str, float],
    ranking: str,
    watch: Watch,
    *,
    groups: str,
) -> dict[str, Indices]:
    """Channels that stay, by group, of widths that one rule finds: what costs least for what it saves goes next.

    Args:
        graph: whose groups these are.
        free: groups that may be cut.
        sources: its weights.
        goal: ``("macs", fraction)`` of the whole graph's multiply-accumulates, or ``("channels", fraction)`` of all
            channels of the groups; that many stay at most.
        ranking: as of :func:`path`.
        watch: told of the groups whose order is known.
        groups: which are free: ``inner``, so that there may be more, or ``all``.

    Raises:
        StepError: too few multiply-accumulates, even with one channel left in each group.
    """
    paths = []
    for number, group in enumerate(free):
        paths.append(path(group, sources, group.size - 1, ranking))
        watch("prune", number + 1, len(free))
    more = "" if groups == "all" else ", or let 'all' groups be cut"
    gone = _spent(graph, free, [one.costs for one in paths], goal, f"Let more stay{more}.")
    return {
        group.id: np.setdiff1d(np.arange(group.size), one.order[:count])
        for group, one, count in zip(free, paths, gone, strict=True)
    }


def _spent(
    graph: Graph, free: Sequence[ChannelGroup], costs: Sequence[Array], goal: tuple[str, float], fix: str
) -> list[int]:
    """How many channels of each group go until the goal is met, each time where one costs least for what it saves."""
    measure, fraction = goal
    ledger = _Ledger.of(graph)
    saved = ledger.saving if measure == "macs" else lambda _: 1.0
    total = ledger.macs if measure == "macs" else float(sum(group.size for group in free))
    left, gone = total, [0] * len(free)
    while left > fraction * total * (1 + 1e-9):
        open_groups = [place for place, one in enumerate(costs) if gone[place] < len(one)]
        if not open_groups:
            least = f"{left / total:.3g} or more: one channel is left in each group that may be cut"
            raise StepError(graph.where, f"a goal of {fraction:g} of its {measure}", least, fix)
        worth = [costs[place][gone[place]] / max(saved(free[place]), 1e-12) for place in open_groups]
        best = open_groups[int(np.argmin(worth))]
        left -= saved(free[best])
        ledger.cut(free[best])
        gone[best] += 1
    return gone


@dataclass(frozen=True, slots=True)
class _Ledger:
    """Multiply-accumulates of every weight while channels go.

    Attributes:
        sizes: what is left of each axis of each weight.
        each: multiply-accumulates of one element of it.
    """

    sizes: dict[str, list[int]]
    each: Mapping[str, float]

    @classmethod
    def of(cls, graph: Graph) -> _Ledger:
        each = macs_per_element(graph)
        return cls({name: list(graph.initializers[name].shape) for name in each}, each)

    @property
    def macs(self) -> float:
        return sum(self.each[name] * math.prod(sizes) for name, sizes in self.sizes.items())

    def saving(self, group: ChannelGroup) -> float:
        """What one channel less of a group saves now."""
        less = self._less(group)
        return sum(self.each[name] * (math.prod(self.sizes[name]) - math.prod(less[name])) for name in less)

    def cut(self, group: ChannelGroup) -> None:
        self.sizes.update(self._less(group))

    def _less(self, group: ChannelGroup) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for member in group.members:
            if member.tensor in self.sizes:
                sizes = found.setdefault(member.tensor, list(self.sizes[member.tensor]))
                sizes[member.axis] -= member.positions.shape[1]
        return found


def lost_features(
    groups: Iterable[ChannelGroup], kept: Mapping[str, Indices], sources: Sources, before: Lost | None = None
) -> dict[str, Indices]:
    """Columns of each weight, as a matrix, that read channels which are gone."""
    found = defaultdict(lambda: _NO_LOSS, before or {})
    for group in groups:
        gone = np.setdiff1d(np.arange(group.size), kept.get(group.id, np.arange(group.size)))
        for member in group.of("consumer"):
            if len(gone):
                columns = sources.blocks(member)[gone].reshape(-1)
                found[member.tensor] = np.union1d(found[member.tensor], columns)
    return dict(found)


def lost_rows(groups: Iterable[ChannelGroup], kept: Mapping[str, Indices], sources: Sources) -> dict[str, Indices]:
    """Entries of each weight's axis of outputs that made channels which are gone."""
    found: defaultdict[str, Indices] = defaultdict(lambda: _NO_LOSS)
    for group in groups:
        gone = np.setdiff1d(np.arange(group.size), kept.get(group.id, np.arange(group.size)))
        for member in group.members:
            found_operators = sources.operators(member.tensor)
            if member.role != "consumer" and found_operators and member.axis == found_operators[0].axis:
                found[member.tensor] = np.union1d(found[member.tensor], member.positions[gone].reshape(-1))
    return dict(found)
