"""The consumer's side: the records of a bundle, as tensors, each proven to belong to its tap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

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
        tensors: statistic to tensor, float32 but for counts; always with a leading group axis.
    """

    record: str
    site: str
    value: str
    kind: str
    by_class: bool
    features: Features
    feature_axis: int | None
    tensors: Mapping[str, Tensor]

    def distance(self, value: Tensor, labels: Tensor) -> Tensor:
        """How far a batch of the site's values is from this record, differentiably.

        Args:
            value: ``[n, ...]`` the site's values.
            labels: ``[n]`` int64 classes; not looked at by a record over all units.

        Returns:
            Scalar of the kind's own distance (see its ``match.py``), over the units whose class was observed; 0
            where none was. A withheld class says nothing, which is not to say that it is zero everywhere.
        """
        group = labels if self.by_class else torch.zeros_like(labels)
        samples, group = feature_vectors(value, group, self.features, self.feature_axis)
        unobserved = self.tensors["count"] == 0
        if bool(unobserved.any()):
            seen = ~unobserved[group]
            samples, group = samples[seen], group[seen]
            if not len(group):
                return value.new_zeros(())
        distance: Tensor = KINDS.load(self.kind, "match").distance(samples, group, self.tensors)
        return distance


@dataclass(frozen=True, slots=True)
class PublishedRecords:
    """All usable records of a bundle.

    Attributes:
        statistics: the usable records, in the manifest's order.
        skipped: ids of the others: a kind, kind version or group that this version does not know, a pair of
            sites, or a site that is not in the graph.
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
            if not _usable(record, sites[record.site]):
                skipped.append(record.id)
                continue
            arrays = bundle.record_tensors(record.id)
            problems += _problems(record, arrays)
            statistics.append(_statistic(record, sites[record.site], arrays))
        if problems:
            raise SchemaError(str(bundle.path), problems)
        return cls(tuple(statistics), tuple(skipped))

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


def _usable(record: Record, site: Site) -> bool:
    return usable(record) and record.paired_site is None and site.onnx_value() is not None


def _problems(record: Record, arrays: Mapping[str, np.ndarray]) -> list[Problem]:
    """Right digests prove that the numbers are the publisher's, not that they can be true."""
    where = f"record {record.id}"
    found: list[Problem] = KINDS.load(record.kind, "spec").check(arrays, where)
    limit = float(np.finfo(np.float32).max)
    for name, values in arrays.items():
        if values.dtype.kind == "f" and values.size and not found and np.abs(values).max() > limit:
            found.append(Problem(f"{where}.{name}", "out-of-range", "numbers beyond float32", f"at most {limit:.3g}"))
    return found


def _statistic(record: Record, site: Site, arrays: Mapping[str, np.ndarray]) -> Statistic:
    by_class = record.group.by == "class"
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    if not by_class:
        tensors = {name: tensor[None] for name, tensor in tensors.items()}
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    value = site.onnx_value()
    assert value is not None  # noqa: S101 - _usable has seen to it
    axis = site.feature_axis
    return Statistic(record.id, site.id, value, record.kind, by_class, cast("Features", record.features), axis, tensors)
