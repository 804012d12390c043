"""A graph and its records, from one step of a recipe to the next.

What a step leaves of the records is carried over exactly where that is possible, and taken anew from synthetic inputs
where it is not, but only when a later step asks for it. Which values stay exact:

* equalize: all of them, scaled; histograms of scaled values are lost;
* prune: all up to the first weight that was refitted, and what that weight reads, for the channels that stay. Whatever
  follows it is close to what was recorded, and not the same;
* factorize: all up to the first operator that became a chain, what it reads included;
* finetune, distill: what no weight has touched, such as the graph's inputs. All else is taken anew.

So the first cut in front of a layer has exact records, and one behind other changes has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from dfmeta.compress import equalize
from dfmeta.compress._recorded_anew import Watch, joined, missing, recorded
from dfmeta.compress._restricted_records import carried
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.records import PublishedRecords
from dfmeta.records.published import Statistic


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of a value that weights read.

    Attributes:
        value: its name.
        kind: of the record.
        origin: ``recorded``, by the publisher; or ``anew``, from synthetic inputs.
        transformed: what became of it since, each exactly: ``restricted`` to the channels that stay, ``scaled``.
        count: samples that went in.
    """

    value: str
    kind: str
    origin: str
    transformed: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class _Past:
    """Where a record comes from; members as of :class:`Site`."""

    origin: str = "recorded"
    transformed: tuple[str, ...] = ()

    def then(self, word: str) -> _Past:
        return self if word in self.transformed else replace(self, transformed=(*self.transformed, word))


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A graph with its records.

    Attributes:
        graph: as the steps so far have left it.
        records: those that hold of it.
        changed: whether any step has run; before that, what the bundle lacks is an error of the step that wants it.
    """

    graph: Graph
    records: PublishedRecords
    changed: bool = False
    _past: Mapping[str, _Past] = field(default_factory=dict)

    def sites(self, kinds: Sequence[str]) -> tuple[Site, ...]:
        """Where the records of some kinds come from, at the values that weights read."""
        found, read = [], self._read()
        for statistic in self.records:
            if statistic.kind in kinds and not statistic.by_class and statistic.value in read:
                past = self._past.get(statistic.record, _Past())
                found.append(Site(statistic.value, statistic.kind, past.origin, past.transformed, _count(statistic)))
        return tuple(found)

    def after(self, graph: Graph) -> State:
        """A step has made another graph: the records that still hold of it."""
        found = carried(without_batch_norm(self.graph), graph, self.records)
        return State(graph, found.records, True, self._then(found.restricted, "restricted"))

    def equalized(self, result: equalize.Result) -> State:
        """The step that transforms records itself."""
        scaled = {one.record for one in result.records if not result.scales.keys().isdisjoint(one.values)}
        return State(result.graph, result.records, True, self._then(scaled, "scaled"))

    def renewed(self, kinds: Sequence[str], inputs: Callable[[], Tensor], watch: Watch | None = None) -> State:
        """With records of these kinds, taken from synthetic inputs where there are none for what weights read.

        Args:
            kinds: that the next step reads.
            inputs: makes the synthetic inputs, when they are first needed.
            watch: called with ``record``, inputs done, and inputs in all.
        """
        if not self.changed or not kinds:
            return self
        graph = without_batch_norm(self.graph)
        read = self._read()
        plan = tuple(entry for entry in missing(graph, self.records, kinds) if entry.site.value in read)
        if not plan:
            return self
        taken = recorded(graph, plan, inputs(), watch)
        # Ids of an earlier round, of a graph that was another one, must not be those of this round.
        more = [replace(one, record=f"{one.record}-{len(self._past)}") for one in taken]
        past = {**self._past, **{one.record: _Past("anew") for one in more}}
        return State(self.graph, joined(self.records, more), True, past)

    def _then(self, ids: frozenset[str] | set[str], word: str) -> dict[str, _Past]:
        return {**self._past, **{name: self._past.get(name, _Past()).then(word) for name in ids}}

    def _read(self) -> set[str]:
        """Values that weights multiply."""
        return {entry.value for entry in operator_inputs(without_batch_norm(self.graph))}


def _count(statistic: Statistic) -> int:
    name = "counts" if statistic.kind == "histogram" else "count"
    counts = statistic.tensors[name]
    return int(counts.sum()) if name == "counts" else int(counts.min())
