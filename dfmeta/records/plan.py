"""What will be recorded where: the lines of a plan, and what they will take of disk and memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from dfmeta._catalog import KINDS
from dfmeta.bundle.safetensors_strict import LENGTH_BYTES, METADATA_KEY, NUMPY_DTYPES
from dfmeta.records.samples import Features

# The bundle's id stands in the sidecar, and every one is as long as this one.
_BUNDLE_ID = "urn:uuid:00000000-0000-0000-0000-000000000000"
# What a kind's configuration says of precision, and not of what was counted.
_QUALITY = frozenset({"rank", "sketch", "form", "storage", "exact"})
_CODES = {dtype.name: code for code, dtype in NUMPY_DTYPES.items()}


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
        if features != "flattened" and self.feature_axis is not None:
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
        paired: the other site, for kinds that relate two.
        gathered_by_class: whether the classes are kept apart while gathering, even if only their sum is published:
            only then can a class be withheld once all has been seen.
    """

    site: SitePlan
    kind: str
    by_class: bool
    features: Features
    configuration: Mapping[str, Any] = field(default_factory=dict)
    paired: SitePlan | None = None
    gathered_by_class: bool = True

    @property
    def feature_count(self) -> int:
        """d, the length of one feature vector."""
        if self.features == "patch":
            # One convolution group: its channels, at every place that the kernel covers.
            channels = self.site.feature_count("channel") // int(self.configuration["groups"])
            return channels * math.prod(int(size) for size in self.configuration["kernel"])
        return self.site.feature_count(self.features)

    @property
    def identity(self) -> tuple[str, str | None, str, Features, str]:
        """What no two records of a plan have in common: where and of what, but not how much of it is kept."""
        unfolding = {key: value for key, value in self.configuration.items() if key not in _QUALITY}
        paired = self.paired.id if self.paired else None
        return self.site.id, paired, self.kind, self.features, json.dumps(unfolding, sort_keys=True)

    @property
    def sites(self) -> tuple[SitePlan, ...]:
        """The site, and its pair if there is one."""
        return (self.site,) if self.paired is None else (self.site, self.paired)


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the sidecar before it is there.

    Attributes:
        dtype: numpy name.
        shape: its sizes.
        exact: whether the plan alone settles them; otherwise a length that the data decides has its typical value.
    """

    dtype: str
    shape: tuple[int, ...]
    exact: bool

    @property
    def bytes(self) -> int:
        """What its numbers take."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def planned_records(entry: RecordPlan, classes: int | None) -> tuple[Mapping[str, PlannedTensor], ...]:
    """The tensors of the records that one line of a plan ends in.

    Args:
        entry: the line.
        classes: number of classes; None records over all units only.

    Returns:
        The record over all units, then the one by class if there will be one; each by statistic.
    """
    pooled = _tensors(entry, None)
    return (pooled, _tensors(entry, classes)) if classes and entry.by_class else (pooled,)


def planned_bytes(plan: Sequence[RecordPlan], classes: int | None) -> int:
    """Size of the sidecar that a plan will write, its header included.

    It is the size of the file to the byte where the plan settles every shape. Lengths that the data decides have
    their kind's ``TYPICAL_LENGTHS``.

    Args:
        plan: what will be recorded.
        classes: number of classes; None records over all units only.
    """
    records = [tensors for entry in plan for tensors in planned_records(entry, classes)]
    named = {f"r{n:04d}.{name}": tensor for n, tensors in enumerate(records) for name, tensor in tensors.items()}
    header: dict[str, object] = {"__metadata__": {METADATA_KEY: _BUNDLE_ID}}
    cursor = 0
    for name, tensor in sorted(named.items(), key=lambda item: (-np.dtype(item[1].dtype).itemsize, item[0])):
        offsets = [cursor, cursor + tensor.bytes]
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": offsets}
        cursor += tensor.bytes
    text = len(json.dumps(header, separators=(",", ":")))
    return LENGTH_BYTES + text + -text % 8 + cursor


def record_bytes(entry: RecordPlan, classes: int | None) -> int:
    """What the numbers of one line's records take in the sidecar.

    Args:
        entry: the line.
        classes: number of classes; None records over all units only.
    """
    return sum(tensor.bytes for tensors in planned_records(entry, classes) for tensor in tensors.values())


def gathering_bytes(entry: RecordPlan, classes: int | None) -> int:
    """Memory that the statistics of one line hold while they are gathered, what one batch adds to them included.

    Args:
        entry: the line.
        classes: number of classes; None gathers over all units only.
    """
    groups = (classes or 1) if entry.gathered_by_class else 1
    # Kinds that look at a batch before they take it in hold what it adds, which is as large as they are.
    copies = 2 if hasattr(_kind(entry.kind, "accumulate").Accumulator, "reduced") else 1
    return copies * _accumulator_bytes(entry, groups)


def peak_bytes(plan: Sequence[RecordPlan], classes: int | None) -> int:
    """Memory for all statistics of a plan, and for the largest one of all classes together when they are published."""
    pooled = (_accumulator_bytes(entry, 1) for entry in plan if classes and entry.gathered_by_class)
    return sum(gathering_bytes(entry, classes) for entry in plan) + max(pooled, default=0)


def _accumulator_bytes(entry: RecordPlan, groups: int) -> int:
    module = _kind(entry.kind, "accumulate")
    return int(module.accumulator_bytes(entry.feature_count, groups, entry.configuration))


def _tensors(entry: RecordPlan, groups: int | None) -> Mapping[str, PlannedTensor]:
    spec = _kind(entry.kind, "spec")
    typical = getattr(spec, "TYPICAL_LENGTHS", {})
    found = {}
    for name, layout in spec.layout(entry.feature_count, groups, entry.configuration).items():
        # Accumulators count in float64, and publish in the smallest type that their kind allows.
        dtype = min(layout.dtypes, key=lambda each: (np.dtype(each).itemsize, each))
        shape = tuple(typical[size] if isinstance(size, str) else size for size in layout.shape)
        found[name] = PlannedTensor(dtype, shape, exact=shape == layout.shape)
    return found


@lru_cache(maxsize=64)
def _kind(name: str, part: str) -> ModuleType:
    """The catalogue looks through every installed package, which is too slow to do for each line of a plan."""
    return KINDS.load(name, part)
