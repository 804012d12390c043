"""What a pass over data has gathered so far: every planned statistic, whole, in float64.

This is the publisher's private state. It merges, and can be written down and taken up again; what leaves the
house is made from it by :mod:`dfmeta.records.publication`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.errors import DataError
from dfmeta.records.plan import RecordPlan
from dfmeta.records.samples import feature_vectors

# Co-moments grow with classes times features squared: better refused at once than killed by the system later.
DEFAULT_MEMORY_LIMIT = 12 * 2**30


class Gathered:
    """The accumulators of a plan, fed with the values of its sites.

    Args:
        plan: what to gather.
        classes: number of classes; None gathers over all units only.
        memory_limit: bytes that the statistics may take.

    Attributes:
        plan, classes: as given.
        accumulators: one of each planned record's kind, in the plan's order.
        units: ``[classes or 1]`` int64, the units seen.
        largest_batch: units in the largest batch seen.

    Raises:
        DataError: the statistics would need more memory than that.
    """

    def __init__(
        self, plan: Sequence[RecordPlan], *, classes: int | None = None, memory_limit: int = DEFAULT_MEMORY_LIMIT
    ) -> None:
        _require_memory(plan, classes, memory_limit)
        self.plan, self.classes = tuple(plan), classes
        self.accumulators: list[Any] = [
            accumulate(entry).Accumulator(entry.feature_count, self._groups(entry), entry.configuration)
            for entry in self.plan
        ]
        self.units = torch.zeros(classes or 1, dtype=torch.int64)
        self.largest_batch = 0

    def update(self, values: Mapping[str, Tensor], group: Tensor) -> None:
        """Take in one batch.

        Args:
            values: ``[n, ...]`` for each site, by site id.
            group: ``[n]`` int64, each unit's class; zeros without classes.
        """
        for entry, accumulator in zip(self.plan, self.accumulators, strict=True):
            rows = group if accumulator.groups > 1 else torch.zeros_like(group)
            samples, of_samples = feature_vectors(values[entry.site.id], rows, entry.features, entry.site.feature_axis)
            if entry.paired is None:
                accumulator.update(samples, of_samples)
            else:
                axis = entry.paired.feature_axis
                others, _ = feature_vectors(values[entry.paired.id], rows, entry.features, axis)
                accumulator.update(samples, of_samples, others)
        self.units += torch.bincount(group, minlength=len(self.units))
        self.largest_batch = max(self.largest_batch, len(group))

    def merge(self, other: Gathered) -> None:
        """Take in everything that ``other``, of the same plan and classes, saw."""
        for mine, theirs in zip(self.accumulators, other.accumulators, strict=True):
            mine.merge(theirs)
        self.units += other.units
        self.largest_batch = max(self.largest_batch, other.largest_batch)

    def state(self) -> dict[str, np.ndarray]:
        """All of it as arrays, by ``<number in the plan>.<name>``."""
        arrays = {"units": self.units.numpy().copy(), "largest_batch": np.asarray(self.largest_batch, np.int64)}
        for number, accumulator in enumerate(self.accumulators):
            arrays |= {f"a{number:04d}.{name}": array for name, array in accumulator.state().items()}
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down.

        Raises:
            ValueError: arrays of another plan.
        """
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            owner, dot, rest = name.partition(".")
            if dot:
                parts.setdefault(owner, {})[rest] = array
        names = [f"a{number:04d}" for number in range(len(self.accumulators))]
        units = arrays.get("units")
        if units is None or units.shape != tuple(self.units.shape) or not set(parts) <= set(names):
            raise ValueError("statistics of another plan")
        for name, accumulator in zip(names, self.accumulators, strict=True):
            accumulator.restore(parts.get(name, {}))
        self.units = torch.from_numpy(units.astype(np.int64))
        self.largest_batch = int(arrays.get("largest_batch", 0))

    def _groups(self, entry: RecordPlan) -> int:
        return (self.classes or 1) if entry.gathered_by_class else 1


def accumulate(entry: RecordPlan) -> ModuleType:
    """The module that gathers this record's kind."""
    return KINDS.load(entry.kind, "accumulate")


def _require_memory(plan: Sequence[RecordPlan], classes: int | None, limit: int) -> None:
    """Refuse a plan whose accumulators, with one more for the classes together, would not fit."""

    def needed(entry: RecordPlan, groups: int) -> int:
        return int(accumulate(entry).accumulator_bytes(entry.feature_count, groups, entry.configuration))

    def groups(entry: RecordPlan) -> int:
        return (classes or 1) if entry.gathered_by_class else 1

    total = sum(needed(entry, groups(entry)) for entry in plan)
    total += max((needed(entry, 1) for entry in plan if groups(entry) > 1), default=0)
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
