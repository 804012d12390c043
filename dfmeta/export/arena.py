"""How much memory the values of a graph need at once: a plan of one arena, as small runtimes make it.

Values that share bytes are one buffer: a view and what it views, an elementwise result and the operand that nobody
reads any more. Each buffer lives from the node that makes it to the last node that reads it, and gets an offset so that
buffers alive together do not overlap. Offsets are given greedily, the largest buffer first (Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", arXiv:2001.03288, section 5), and also in two other orders;
the smallest arena counts. What is alive together at the worst moment is a lower bound of any plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dfmeta.export._storage import Storage
from dfmeta.graph import Graph


@dataclass(frozen=True, slots=True)
class Interval:
    """Bytes that are needed from one step to another, both included.

    Attributes:
        bytes: how many; 0 or more.
        first: step that makes them.
        last: last step that reads them; not before ``first``.
    """

    bytes: int
    first: int
    last: int

    def meets(self, other: Interval) -> bool:
        """Whether both are alive at one step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Buffer:
    """One place in the arena.

    Attributes:
        values: names of the values that take turns in it, or share it, in the graph's order.
        bytes: its size.
        first: index of the node that makes it; -1 for an input.
        last: index of the last node that reads it; the number of nodes for an output.
        offset: from the start of the arena.
    """

    values: tuple[str, ...]
    bytes: int
    first: int
    last: int
    offset: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of one inference.

    Attributes:
        buffers: in the order in which they come to life.
        peak_bytes: size of the arena, inputs and outputs included.
        live_bytes: what is alive together at the worst moment; no plan needs less.
        temporaries_bytes: every value between inputs and outputs in a place of its own and of its own type, constants
            that nodes compute included: what generated C without a plan takes from the stack.
    """

    buffers: tuple[Buffer, ...]
    peak_bytes: int
    live_bytes: int
    temporaries_bytes: int

    def alive(self) -> tuple[Buffer, ...]:
        """What is alive at the (first) worst moment, the largest first."""
        step = max(sorted({one.first for one in self.buffers}), key=lambda at: _live(self.buffers, at), default=0)
        found = [one for one in self.buffers if one.first <= step <= one.last]
        return tuple(sorted(found, key=lambda one: -one.bytes))


def plan(graph: Graph, *, element_bytes: int | None = None) -> Plan:
    """Plan the arena of a graph for one item.

    Integers behind QuantizeLinear are taken to be computed as integers: a value that only a quantizer reads, directly
    or through operators that commute with rounding (Relu, MaxPool, views), is stored as the quantizer writes it, and
    DequantizeLinear is a view. Constants are not part of it.

    Args:
        graph: with known sizes, but for free axes of its inputs, which count as 1.
        element_bytes: bytes of a floating number, in place of its type's: 1 tells of a float model what it would need
            in 8 bits.

    Raises:
        GraphError: a value of unknown shape; the text names it.
    """
    storage = Storage.of(graph, element_bytes)
    groups = storage.groups()
    intervals = [Interval(group.bytes, group.first, group.last) for group in groups]
    offsets = assign(intervals)
    buffers = tuple(
        Buffer(group.values, group.bytes, group.first, group.last, offset)
        for group, offset in zip(groups, offsets, strict=True)
    )
    return Plan(buffers, arena_size(intervals, offsets), live_bound(intervals), storage.temporaries())


def assign(intervals: Sequence[Interval]) -> tuple[int, ...]:
    """An offset for each, so that those alive together do not overlap; the best of three greedy orders.

    Args:
        intervals: any; an interval without bytes is at 0.
    """
    tries = [_placed(intervals, sorted(range(len(intervals)), key=order(intervals))) for order in _ORDERS]
    return min(tries, key=lambda offsets: arena_size(intervals, offsets))


def arena_size(intervals: Sequence[Interval], offsets: Sequence[int]) -> int:
    """The end of what lies highest."""
    return max((at + one.bytes for one, at in zip(intervals, offsets, strict=True)), default=0)


def live_bound(intervals: Sequence[Interval]) -> int:
    """Bytes alive together at the worst step."""
    return max((_live(intervals, one.first) for one in intervals), default=0)


def _live(items: Sequence[Interval] | Sequence[Buffer], step: int) -> int:
    return sum(one.bytes for one in items if one.first <= step <= one.last)


Order = Callable[[Sequence[Interval]], Callable[[int], tuple[int, ...]]]

_ORDERS: tuple[Order, ...] = (
    lambda all_: lambda at: (-all_[at].bytes, all_[at].first, at),
    lambda all_: lambda at: (-all_[at].bytes * (all_[at].last - all_[at].first + 1), all_[at].first, at),
    lambda all_: lambda at: (all_[at].first, -all_[at].bytes, at),
)


def _placed(intervals: Sequence[Interval], order: Sequence[int]) -> tuple[int, ...]:
    """Each in its turn at the lowest offset that is free for as long as it lives."""
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in order:
        mine = intervals[index]
        taken = sorted(
            (offsets[other], offsets[other] + intervals[other].bytes)
            for other in placed
            if mine.meets(intervals[other])
        )
        at = 0
        for low, high in taken:
            if low - at >= mine.bytes:
                break
            at = max(at, high)
        if mine.bytes:
            offsets[index] = at
            placed.append(index)
    return tuple(offsets)
