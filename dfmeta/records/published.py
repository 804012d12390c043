"""The consumer's side: the records of a bundle, as tensors, each proven to belong to its tap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.bundle import Bundle, usable
from dfmeta.errors import Problem, SchemaError, StepError
from dfmeta.records.samples import Features, feature_vectors
from dfmeta.schema.v1 import Record, Site


@dataclass(frozen=True, slots=True)
class Statistic:
    """One published record.

    Attributes:
        record: its id.
        site: its site's id.
        value: the site's name in the graph.
        kind: its kind.
        by_class: whether there is a row for each class.
        features: how the site's axes become a feature vector.
        feature_axis: the site's channel axis.
        tensors: statistic to tensor, float32 but for counts and stored correlations; with a leading group axis,
            unless the kind says that all groups share the tensor.
        configuration: the kind's own parameters.
        paired_value, paired_feature_axis: the same of the other site, for kinds that relate two.
    """

    record: str
    site: str
    value: str
    kind: str
    by_class: bool
    features: Features
    feature_axis: int | None
    tensors: Mapping[str, Tensor]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    paired_value: str | None = None
    paired_feature_axis: int | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """The graph's values that it speaks of: one, or two."""
        return (self.value,) if self.paired_value is None else (self.value, self.paired_value)

    @property
    def matchable(self) -> bool:
        """Whether the kind says how far a batch is from a record."""
        return _match(self.kind) is not None

    def distance(self, values: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """How far a batch of the sites' values is from this record, differentiably.

        Args:
            values: ``[n, ...]`` for each of :attr:`values`, by name.
            labels: ``[n]`` int64 classes; not looked at by a record over all units.

        Returns:
            Scalar of the kind's own distance (see its ``match.py``), over the units whose class was observed; 0
            where none was. A withheld class says nothing, which is not to say that it is zero everywhere.

        Raises:
            StepError: a kind that is not matchable.
        """
        group = labels if self.by_class else torch.zeros_like(labels)
        samples, of_samples = feature_vectors(values[self.value], group, self.features, self.feature_axis)
        parts = [samples]
        if self.paired_value is not None:
            paired = values[self.paired_value]
            parts.append(feature_vectors(paired, group, self.features, self.paired_feature_axis)[0])
        unobserved = self.tensors["count"] == 0
        if bool(unobserved.any()):
            seen = ~unobserved[of_samples]
            parts, of_samples = [part[seen] for part in parts], of_samples[seen]
            if not len(of_samples):
                return samples.new_zeros(())
        match = _match(self.kind)
        if match is None:
            raise StepError(f"record {self.record}", f"kind {self.kind!r}, which nothing is matched to", "another kind")
        distance: Tensor = match.distance(parts[0], of_samples, self.tensors, *parts[1:])
        return distance


@dataclass(frozen=True, slots=True)
class PublishedRecords:
    """All usable records of a bundle.

    Attributes:
        statistics: the usable records, in the manifest's order.
        skipped: ids of the others: a kind, kind version, group or features that this version does not know, or a
            site that is not in the graph.
    """

    statistics: tuple[Statistic, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def read(cls, bundle: Bundle) -> PublishedRecords:
        """Read and verify every usable record.

        Raises:
            BundleError: bytes that are not what the manifest pins.
            SchemaError: tensors that do not fit their kind, or numbers that contradict it.
        """
        sites = {site.id: site for site in bundle.manifest.sites}
        statistics, skipped, problems = [], [], list[Problem]()
        for record in bundle.manifest.records:
            pair = [sites[name] for name in (record.site, record.paired_site) if name is not None]
            if not usable(record) or any(site.onnx_value() is None for site in pair):
                skipped.append(record.id)
                continue
            arrays = bundle.record_tensors(record.id)
            problems += _problems(record, arrays)
            statistics.append(_statistic(record, pair, arrays))
        if problems:
            raise SchemaError(str(bundle.path), problems)
        return cls(tuple(statistics), tuple(skipped))

    def to(self, device: torch.device) -> PublishedRecords:
        """The same records with their tensors on another device."""
        moved = [
            replace(entry, tensors={name: tensor.to(device) for name, tensor in entry.tensors.items()})
            for entry in self.statistics
        ]
        return PublishedRecords(tuple(moved), self.skipped)

    def __iter__(self) -> Iterator[Statistic]:
        return iter(self.statistics)

    def of(self, value: str, kind: str, *, by_class: bool) -> Statistic | None:
        """The statistic of that kind at the graph's value ``value``, or None."""
        for entry in self.statistics:
            if (entry.value, entry.kind, entry.by_class) == (value, kind, by_class):
                return entry
        return None

    def need(self, value: str, kind: str, *, by_class: bool, preset: str) -> Statistic:
        """As :meth:`of`, but a missing record is an error.

        Raises:
            StepError: the bundle lacks it; the text names the preset that would have recorded it.
        """
        found = self.of(value, kind, by_class=by_class)
        if found is None:
            grouping = "each class" if by_class else "all units"
            raise StepError(
                f"records of {value!r}",
                f"no {kind!r} of {grouping}",
                "one",
                f"Use a method that does without it, or a bundle recorded with the preset {preset!r}.",
            )
        return found


@lru_cache(maxsize=64)
def _match(kind: str) -> ModuleType | None:
    """The catalogue looks through every installed package, which is too slow to do in each step."""
    return KINDS.load(kind, "match") if KINDS.has(kind, "match") else None


def _problems(record: Record, arrays: Mapping[str, np.ndarray]) -> list[Problem]:
    """Right digests prove that the numbers are the publisher's, not that they can be true."""
    where = f"record {record.id}"
    found: list[Problem] = KINDS.load(record.kind, "spec").check(arrays, where)
    limit = float(np.finfo(np.float32).max)
    for name, values in arrays.items():
        if values.dtype.kind == "f" and values.size and not found and np.abs(values).max() > limit:
            found.append(Problem(f"{where}.{name}", "out-of-range", "numbers beyond float32", f"at most {limit:.3g}"))
    return found


def _statistic(record: Record, pair: Sequence[Site], arrays: Mapping[str, np.ndarray]) -> Statistic:
    by_class = record.group.by == "class"
    shared: frozenset[str] = getattr(KINDS.load(record.kind, "spec"), "SHARED", frozenset())
    tensors = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array.copy())
        tensor = tensor if by_class or name in shared else tensor[None]
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    names = [str(site.onnx_value()) for site in pair]
    return Statistic(
        record.id,
        record.site,
        names[0],
        record.kind,
        by_class,
        cast("Features", record.features),
        pair[0].feature_axis,
        tensors,
        record.configuration,
        *((names[1], pair[1].feature_axis) if len(pair) > 1 else ()),
    )
