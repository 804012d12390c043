"""The recorder: runs the shipped graph over batches and keeps statistics, in memory that does not grow.

with Recorder(graph, make_plan(graph, ["all-layers"]), classes=10) as recorder:
    for images, labels in loader:
        recorder.update(images, labels)
recording = recorder.finish()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records.presets import RecordPlan, SitePlan
from dfmeta.records.samples import feature_vectors

DEFAULT_MIN_UNITS = 10
# Co-moments grow with classes times features squared: better refused at once than killed by the system later.
DEFAULT_MEMORY_LIMIT = 12 * 2**30


@dataclass(frozen=True, slots=True)
class Taken:
    """One finished record: numbers and how to read them.

    Attributes:
        plan: what was asked.
        by_class: one row a class, or one record over all units.
        tensors: statistic to array, as the kind's specification lays out.
        unit_count: units that went in.
        position_count: feature vectors that went in.
        suppressed: classes withheld for having too few units; their rows are zero.
    """

    plan: RecordPlan
    by_class: bool
    tensors: Mapping[str, np.ndarray]
    unit_count: int
    position_count: int
    suppressed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything one pass over a data set left behind.

    Attributes:
        sites: the values at which records were taken.
        records: the finished records, in the plan's order.
        unit_count: units that went into what is published.
        batch_size: units in the largest batch, but no more than ``unit_count``.
        min_units: the smallest class that was published.
        suppression: ``none``, or ``complementary`` when classes were withheld.
    """

    sites: tuple[SitePlan, ...]
    records: tuple[Taken, ...]
    unit_count: int
    batch_size: int
    min_units: int
    suppression: Literal["none", "complementary"]


class Recorder:
    """Takes the planned records while one's own loop feeds it.

    Args:
        graph: the very graph that ships.
        plan: what to record (see :func:`dfmeta.records.make_plan`).
        classes: number of classes; None records over all units only.
        min_units: classes with fewer units are not published.
        suppress: withhold such classes (with complementary suppression) instead of refusing to finish.
        threads: onnxruntime threads; None for its own choice.
        memory_limit: bytes that the statistics may take while they are gathered; 12 GiB unless told.

    Raises:
        DataError: the statistics would need more memory than that.
        GraphError: a graph that does not run, or without a planned site.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Sequence[RecordPlan],
        *,
        classes: int | None = None,
        min_units: int = DEFAULT_MIN_UNITS,
        suppress: bool = False,
        threads: int | None = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        _require_memory(plan, classes, memory_limit)
        self.graph, self.plan, self.classes = graph, tuple(plan), classes
        self.min_units, self.suppress = min_units, suppress
        self.sites = tuple({entry.site.id: entry.site for entry in self.plan}.values())
        self._given = {value.name for value in graph.inputs}
        tapped = [site.value for site in self.sites if site.value not in self._given]
        self._session: OrtGraph | None = OrtGraph(graph, tapped, threads=threads, dynamic_batch=True)
        groups = classes or 1
        self._accumulators = [
            _kind(entry).Accumulator(entry.feature_count, groups, entry.configuration) for entry in self.plan
        ]
        self._units = torch.zeros(groups, dtype=torch.int64)
        self._largest_batch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def update(self, inputs: np.ndarray | Mapping[str, np.ndarray], labels: np.ndarray | None = None) -> None:
        """Run one batch through the graph and take it in.

        Args:
            inputs: the model's input ``[n, ...]``, or one array for each input by name.
            labels: ``[n]`` int class indices; needed when there are classes.

        Raises:
            DataError: no units; labels missing, of the wrong length or out of range; inputs of different lengths.
            GraphError: inputs that do not fit the graph.
            StepError: a NaN or infinity at a site; or the recorder's ``with`` block has been left.
        """
        if self._session is None:
            raise StepError("recorder", "a batch after it was closed", "batches inside its with block")
        given = inputs if isinstance(inputs, Mapping) else {self.graph.inputs[0].name: inputs}
        units = _units(given)
        group = self._groups(labels, units)
        values = {**self._session.run(given), **given}
        tensors = {site.id: self._finite(site, values[site.value]) for site in self.sites}
        for entry, accumulator in zip(self.plan, self._accumulators, strict=True):
            site = entry.site
            accumulator.update(*feature_vectors(tensors[site.id], group, entry.features, site.feature_axis))
        self._units += torch.bincount(group, minlength=len(self._units))
        self._largest_batch = max(self._largest_batch, units)

    def finish(self) -> Recording:
        """The records of everything seen so far.

        Raises:
            DataError: nothing was seen; or a class has fewer than ``min_units`` units and ``suppress`` is off.
        """
        total = int(self._units.sum())
        if total < self.min_units:
            raise DataError("records", f"{total} units", f"at least {self.min_units}", "Feed the recorder more data.")
        hidden = self._small_classes()
        published = total - int(self._units[list(hidden)].sum())
        records = [
            record for pair in zip(self.plan, self._accumulators, strict=True) for record in self._taken(*pair, hidden)
        ]
        return Recording(
            self.sites,
            tuple(records),
            # Withheld units are not told of: their number is what the total would give away, and so would a
            # batch that held everything.
            published,
            min(self._largest_batch, published),
            self.min_units,
            "complementary" if hidden else "none",
        )

    def _taken(self, entry: RecordPlan, accumulator: Any, hidden: tuple[int, ...]) -> list[Taken]:
        if hidden:
            # Withheld classes leave the pooled record too: "all minus the rest" must not give them back. The
            # recorder itself keeps them: with more data they may become large enough.
            accumulator = accumulator.without(hidden)
        units = self._units.clone()
        units[list(hidden)] = 0
        kept, positions = int(units.sum()), int(accumulator.count.sum())
        total = units.sum()[None]
        pooled = accumulator.pooled() if self.classes else accumulator
        flat = {name: array[0] for name, array in pooled.tensors(total).items()}
        taken = [Taken(entry, False, flat, kept, positions)]
        if self.classes and entry.by_class:
            taken.append(Taken(entry, True, accumulator.tensors(units), kept, positions, hidden))
        return taken

    def _small_classes(self) -> tuple[int, ...]:
        if self.classes is None:
            return ()
        small = [row for row, units in enumerate(self._units.tolist()) if units < self.min_units]
        if small and not self.suppress:
            row = small[0]
            raise DataError(
                f"class {row}",
                f"{int(self._units[row])} units",
                f"at least {self.min_units}, since a statistic of few is close to publishing them",
                "Record more units (a higher --limit), leave the class out, record without classes (--no-classes), "
                "or withhold small classes (--suppress-small).",
            )
        if len(small) == len(self._units):
            raise DataError("records", "no class large enough", f"one with {self.min_units} units or more")
        return tuple(small)

    def _groups(self, labels: np.ndarray | None, units: int) -> Tensor:
        if self.classes is None:
            return torch.zeros(units, dtype=torch.int64)
        if labels is None:
            raise DataError(
                "labels",
                "none",
                f"one class in 0..{self.classes - 1} for each unit",
                "Give labels, or record without classes (--no-classes).",
            )
        group = np.asarray(labels)
        if group.shape != (units,) or group.dtype.kind not in "iu":
            raise DataError("labels", f"{group.dtype} {list(group.shape)}", f"integers [{units}]")
        if not 0 <= group.min() <= group.max() < self.classes:
            raise DataError(
                "labels",
                f"values in {group.min()}..{group.max()}",
                f"0..{self.classes - 1}",
                "Check that the labels are those of this model.",
            )
        return torch.from_numpy(group.astype(np.int64))

    def _finite(self, site: SitePlan, value: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(value)
        if not bool(torch.isfinite(tensor).all()):
            raise StepError(
                f"site {site.label!r} ({site.value})",
                "NaN or infinity in its activations",
                "finite numbers",
                "Check the input's preprocessing and the model's weights.",
            )
        return tensor


def _units(inputs: Mapping[str, np.ndarray]) -> int:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
        raise DataError("inputs", f"units {found}", "the same number in each input")
    units = next(iter(counts.values()))
    if not units:
        raise DataError("inputs", "a batch of 0 units", "at least one", "Leave empty batches out.")
    return units


def _require_memory(plan: Sequence[RecordPlan], classes: int | None, limit: int) -> None:
    """Refuse a plan whose accumulators, with one more for the classes together, would not fit."""

    def needed(entry: RecordPlan, groups: int) -> int:
        return int(_kind(entry).accumulator_bytes(entry.feature_count, groups, entry.configuration))

    total = sum(needed(entry, classes or 1) for entry in plan)
    total += max((needed(entry, 1) for entry in plan), default=0) if classes else 0
    if total <= limit:
        return
    largest = max(plan, key=lambda entry: needed(entry, 1))
    raise DataError(
        "records",
        f"a plan that needs {total / 1e9:.1f} GB of memory, most of it for {largest.kind!r} of "
        f"{largest.feature_count} features at {largest.site.label!r}",
        f"at most {limit / 1e9:.1f} GB",
        "Record without classes (--no-classes), at fewer sites (--at), or without covariances (--preset all-layers).",
    )


def _kind(entry: RecordPlan) -> ModuleType:
    return KINDS.load(entry.kind, "accumulate")
