"""Which channels of a graph must be cut together: the groundwork of narrower networks and of structured pruning.

A channel is a set of slices of weights: a filter of a convolution, its entries in the normalization after it, the
columns of every weight that reads it, and, through a residual addition, all of that for each branch. Channels that
consist of the same kinds of slices form a group. The analysis goes through the graph node by node
(:mod:`dfmeta.graph.channels_rules`); what it does not know makes the groups that touch it *fixed*, with the node's name
as the reason. It is never silently wrong.

Prior art: the dependency graphs of Fang et al., "DepGraph: Towards Any Structural Pruning", 2023. Here dependencies
hold between single channels, not whole layers, so that paddings, slices and concatenations need no special cases: a
block of 16 channels that is padded into one of 32 gives a group of 16 in both blocks and one of 16 in the wider alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph.channels_rules import RULES
from dfmeta.graph.channels_tracker import Role, Tracker, Untraceable, as_node
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.inference import node_label
from dfmeta.graph.load import Graph

Place = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """What a group has of one axis of one tensor.

    Attributes:
        tensor: name of an initializer of :func:`~dfmeta.graph.constant_folding.folded` (the file's own names but for
            tensors that the file computes from constants).
        axis: of that tensor.
        role: ``producer`` for the axis of a weight that makes the channels, ``consumer`` for one that sums over them,
            ``parameter`` for what they pass through (normalizations, slopes, biases, depthwise convolutions).
        positions: ``[size, block] int64``: row i has the entries of the axis that belong to channel i. ``block`` is
            h * w after a Flatten, the number of groups for a grouped convolution, and mostly 1.
    """

    tensor: str
    axis: int
    role: Role
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Channels that are alike: each can go or stay, and takes its slices along.

    Attributes:
        id: the first tensor that makes them, with a number where that makes several groups; the same for the same
            graph, whatever its weights.
        size: how many there are.
        members: at least one ``producer``; in the graph's order of tensors.
        fixed: why they cannot be cut; None where they can.
    """

    id: str
    size: int
    members: tuple[Member, ...]
    fixed: str | None

    def of(self, role: Role) -> tuple[Member, ...]:
        """The members of one role."""
        return tuple(member for member in self.members if member.role == role)


def channel_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """All groups of channels that some weight of ``graph`` makes, in the order in which the graph makes them.

    Args:
        graph: any graph; the batch may be free, sizes of channels must be known to be cut.

    Returns:
        Groups that no two share a channel. Channels of graph inputs and those that padding alone makes are in none.
    """
    return groups_of(traced(folded(graph)))


def traced(graph: Graph) -> Tracker:
    """The labels of every value of a folded graph."""
    tracker = Tracker(graph)
    for index, proto in enumerate(graph.model.graph.node):
        label = node_label(proto, index)
        node = as_node(graph, proto, label)
        rule = RULES.get(node.op) if proto.domain in ("", "ai.onnx") else None
        try:
            if rule is None:
                raise Untraceable("channels are not followed through this operator")
            rule(tracker, node)
        except Untraceable as error:
            _give_up(tracker, node.inputs, node.outputs, f"{label}: {error}")
        except (IndexError, ValueError):  # a rank that inference does not know
            _give_up(tracker, node.inputs, node.outputs, f"{label}: its shapes are not known")
    for output in graph.outputs:
        for labels in tracker.axes(output.name):
            tracker.fix(labels, f"graph output {output.name!r}")
    return tracker


def _give_up(tracker: Tracker, inputs: Iterable[str], outputs: Iterable[str], reason: str) -> None:
    for name in filter(None, inputs):
        for labels in tracker.axes(name):
            tracker.fix(labels, reason)
    for name in outputs:
        tracker.set_fixed(name, reason)


def groups_of(tracker: Tracker) -> tuple[ChannelGroup, ...]:
    """The groups of :func:`channel_groups` from labels."""
    channels, reasons = tracker.channels()
    slices: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, labels in tracker.initializer_axes().items():
        for position, channel in enumerate(channels[labels].tolist()):
            slices[channel][place].append(position)
    alike: dict[tuple[object, ...], list[dict[Place, list[int]]]] = defaultdict(list)
    for channel, found in slices.items():
        if any(tracker.roles.get(place) == "producer" for place in found):
            kind = (*sorted((place, len(positions)) for place, positions in found.items()), reasons.get(channel))
            alike[kind].append(found)
    order = {place: number for number, place in enumerate(_producers(tracker))}
    sets = sorted(((_first(order, members), kind[-1], members) for kind, members in alike.items()), key=lambda s: s[0])
    return _named(tracker, sets)


def _producers(tracker: Tracker) -> list[Place]:
    """Producing axes in the order in which the graph uses them."""
    return [place for place, role in tracker.roles.items() if role == "producer"]


def _first(order: dict[Place, int], channels: list[dict[Place, list[int]]]) -> tuple[int, int]:
    """Which producer makes these channels first, and from which entry on."""
    number, place = min((order[place], place) for place in channels[0] if place in order)
    return number, min(found[place][0] for found in channels)


def _named(
    tracker: Tracker, sets: list[tuple[tuple[int, int], object, list[dict[Place, list[int]]]]]
) -> tuple[ChannelGroup, ...]:
    producers = _producers(tracker)
    taken: defaultdict[str, int] = defaultdict(int)
    groups = []
    for (number, _), reason, channels in sets:
        first = producers[number]
        channels = sorted(channels, key=itemgetter(first))
        name = f"{first[0]}#{taken[first[0]]}" if taken[first[0]] else first[0]
        taken[first[0]] += 1
        members = tuple(
            Member(*place, tracker.roles.get(place, "parameter"), np.array([found[place] for found in channels]))
            for place in channels[0]
        )
        groups.append(ChannelGroup(name, len(channels), members, None if reason is None else str(reason)))
    return tuple(groups)
