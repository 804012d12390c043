"""Which channels a narrower copy of the teacher keeps, and how the weights that read them are repaired.

One group of channels at a time, in the order in which the graph makes them, and always from the *teacher's* records:
nothing is recorded again after a cut. That is exact for the first cut before a layer and an approximation after it,
because the layer's input is then no longer quite what was recorded; training removes what is left. No constant is
fitted beside the weights: from exact moments that gained nothing, and the means contradict approximate ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph import Graph
from dfmeta.graph.channels import ChannelGroup, Member, channel_groups
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.learning import with_values
from dfmeta.graph.narrow import narrowed
from dfmeta.graph.operator_inputs import OperatorInput, operator_inputs
from dfmeta.graph.widths import columns, width
from dfmeta.numerics.least_squares import DiagonalReader, Reader, chosen, refitted
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import OperatorMoment, moment_record, operator_moment

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Beyond this many features a dense inverse takes minutes; the weights' norms decide instead.
MAX_FEATURES = 8192
# Larger moments are read again when they are needed again, rather than all held in memory.
_REMEMBERED = 2048


@dataclass
class Narrowing:
    """A graph on its way to fewer channels.

    Attributes:
        graph: the teacher, its constants written out; all weights at their full size until :meth:`finished`.
        records: the teacher's.
        repair: whether weights make up for the channels that they no longer read.
        weights: present values of the weights that were repaired.
        lost: features of each weight that are gone.
        kept: channels of each group that stay.
        read: moments that were read, by record.
    """

    graph: Graph
    records: PublishedRecords
    repair: bool = True
    weights: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    lost: dict[str, set[int]] = field(default_factory=dict)
    kept: dict[str, Indices] = field(default_factory=dict)
    read: dict[str, OperatorMoment | None] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, records: PublishedRecords, *, repair: bool = True) -> Narrowing:
        """Nothing cut yet."""
        return cls(folded(graph), records, repair)

    def cut(self, group: ChannelGroup, keep: int) -> None:
        """Choose ``keep`` channels of a group and repair the weights that read it."""
        if keep >= group.size:
            return
        members = group.of("consumer") or group.of("producer")
        readings = [_reading(self, member, group) for member in members]
        stay = chosen([reading.reader() for reading in readings], group.size, keep)
        self.kept[group.id] = stay
        gone = np.setdiff1d(np.arange(group.size), stay)
        for reading in readings:
            self._refit(reading, set(reading.blocks[gone].reshape(-1).tolist()))

    def _refit(self, reading: _Reading, gone: set[int]) -> None:
        before = reading.features
        self.lost[reading.tensor] = self.lost.get(reading.tensor, set()) | gone
        after = np.array([place for place, feature in enumerate(before.tolist()) if feature not in gone])
        if not self.repair or reading.moment is None:
            return
        weight = reading.weight.copy()
        weight[:, before[after]] = refitted(weight[:, before], reading.moment, after)
        self.weights[reading.tensor] = reading.restored(weight)

    def present(self, name: str) -> NDArray[np.floating]:
        """A tensor with what was changed so far."""
        found: NDArray[np.floating] = self.weights.get(name, self.graph.initializers[name])
        return found

    def moment(self, entry: OperatorInput, features: int) -> OperatorMoment | None:
        """What is recorded of an operator's input; None where nothing is."""
        if features > MAX_FEATURES:
            return None
        statistic = moment_record(self.records, entry)
        if statistic is None or statistic.record in self.read:
            return self.read[statistic.record] if statistic is not None else None
        found = operator_moment(statistic)
        if features <= _REMEMBERED:
            self.read[statistic.record] = found
        return found

    def finished(self) -> Graph:
        """The narrower graph."""
        return narrowed(with_values(self.graph, self.weights), self.kept)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One weight that reads a group, as a matrix.

    Attributes:
        tensor: name of the weight.
        axis: of it, along which its inputs lie.
        shape: of it.
        weight: ``[o, d]`` float64; features in the order (channel, tap) where there is a moment.
        blocks: ``[size, b]`` features of each channel of the group.
        features: ``[k]`` features that are not gone yet.
        moment: ``[k, k]`` E[x x^T] of those; None where it is not known.
        diagonal: ``[k]`` E[x^2]; ones where it is not known.
        by_patch: whether the taps of a convolution count as features.
    """

    tensor: str
    axis: int
    shape: tuple[int, ...]
    weight: Array
    blocks: Indices
    features: Indices
    moment: Array | None
    diagonal: Array
    by_patch: bool

    def reader(self) -> Reader | DiagonalReader:
        """What cutting costs this weight."""
        place = np.full(self.weight.shape[1], -1)
        place[self.features] = np.arange(len(self.features))
        weight, blocks = self.weight[:, self.features], place[self.blocks]
        if self.moment is None:
            return DiagonalReader(weight, self.diagonal, blocks)
        return Reader(weight, self.moment, blocks)

    def restored(self, weight: Array) -> Array:
        """The matrix in the shape of the tensor."""
        if self.by_patch:
            return weight.reshape(self.shape)
        moved = [size for place, size in enumerate(self.shape) if place != self.axis]
        return np.moveaxis(weight.reshape(*moved, self.shape[self.axis]), -1, self.axis)


def _reading(state: Narrowing, member: Member, group: ChannelGroup) -> _Reading:
    """A member as a matrix, with what is recorded of its input."""
    array = np.asarray(state.present(member.tensor), dtype=np.float64)
    entries = [entry for entry in operator_inputs(state.graph) if entry.weight == member.tensor]
    found, taps = None, 1
    if len(entries) == 1 and member.role == "consumer" and entries[0].groups == 1:
        found = state.moment(entries[0], array.shape[member.axis] * entries[0].taps)
        taps = entries[0].taps if found is not None else 1
    if taps > 1:
        weight = array.reshape(len(array), -1)
    else:
        weight = np.moveaxis(array, member.axis, -1).reshape(-1, array.shape[member.axis])
    blocks = columns(member, taps)
    features = np.array(sorted(set(range(weight.shape[1])) - state.lost.get(member.tensor, set())))
    diagonal = np.ones(len(features)) if found is None else np.diagonal(found.whole[0])[features]
    moment = found.whole[0][np.ix_(features, features)] if found is not None and found.joint else None
    parts = (member.tensor, member.axis, array.shape, weight, blocks, features, moment, diagonal)
    return _Reading(*parts, by_patch=taps > 1)


def widths(graph: Graph, fraction: float) -> Mapping[ChannelGroup, int]:
    """How many channels each group that may be cut keeps: the fraction, rounded up.

    Args:
        graph: the teacher.
        fraction: above 0, up to 1.
    """
    free = [group for group in channel_groups(graph) if group.fixed is None and group.size > 1]
    return {group: width(group.size, fraction) for group in free}
