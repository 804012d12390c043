"""What a pass over data has gathered so far: every planned statistic, whole, in float64.

This is the publisher's private state. It merges, and can be written down and taken up again; what leaves the
house is made from it by :mod:`dfmeta.records.publication`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.errors import DataError, MergeError, StepError
from dfmeta.records.plan import RecordPlan, SitePlan, gathering_bytes
from dfmeta.records.samples import feature_vectors, positioned
from dfmeta.records.workers import Workers

# Co-moments grow with classes times features squared: better refused at once than killed by the system later.
DEFAULT_MEMORY_LIMIT = 12 * 2**30
# Bins are counted as they are: what a unit adds to them does not depend on its values.
UNCLIPPED_KINDS = frozenset({"histogram"})
Clip = float | Mapping[str, float]


class Gathered:
    """The accumulators of a plan, fed with the values of its sites.

    Args:
        plan: what to gather.
        classes: number of classes; None gathers over all units only.
        memory_limit: bytes that the statistics may take.
        clip: scale every unit down, at each site, to at most this root mean square over its elements there: one
            number for all sites, or one for each by label, value or id. Only statistics gathered in this way
            can be noised (:mod:`dfmeta.records.privacy`); None leaves the units as they are.

    Attributes:
        plan, classes, clip: as given.
        accumulators: one of each planned record's kind, in the plan's order.
        units: ``[classes or 1]`` int64, the units seen.
        largest_batch: units in the largest batch seen.

    Raises:
        DataError: the statistics would need more memory than that; or a ``clip`` that is not above 0, or that
            says nothing of a site.
    """

    def __init__(
        self,
        plan: Sequence[RecordPlan],
        *,
        classes: int | None = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        clip: Clip | None = None,
    ) -> None:
        # What is noised stands beside what was gathered.
        _require_memory(plan, classes, memory_limit, copies=1 if clip is None else 2)
        self.plan, self.classes, self.clip = tuple(plan), classes, clip
        self._limits = {} if clip is None else {entry.site.id: limit_at(entry.site, clip) for entry in plan}
        self.accumulators: list[Any] = [
            accumulate(entry).Accumulator(entry.feature_count, self._groups(entry), entry.configuration)
            for entry in self.plan
        ]
        self.units = torch.zeros(classes or 1, dtype=torch.int64)
        self.largest_batch = 0

    def update(self, values: Mapping[str, Tensor], group: Tensor, workers: Workers | None = None) -> None:
        """Take in one batch; nothing of it if a value is not finite.

        Args:
            values: ``[n, ...]`` for each site, by site id.
            group: ``[n]`` int64, each unit's class; zeros without classes.
            workers: threads to spread the statistics over.

        Raises:
            StepError: a NaN or an infinity at a site.
        """
        run = Workers(1).run if workers is None else workers.run
        clipped = {site: clipped_units(values[site], limit) for site, limit in self._limits.items()}
        batch = _Batch(values, {**values, **clipped}, group)
        # Long work first, so that no thread is left with it at the end.
        numbers = sorted(range(len(self.plan)), key=lambda number: -values[self.plan[number].site.id].numel())
        # Those that look at every value do so before any other takes something in.
        looking = [number for number in numbers if hasattr(self.accumulators[number], "reduced")]
        self._require_finite_elsewhere(values, {self.plan[number].site.id for number in looking})
        reduced = run([partial(self._reduced, number, batch) for number in looking])
        run([partial(self._taken, number, batch) for number in numbers if number not in looking])
        for number, found in zip(looking, reduced, strict=True):
            self.accumulators[number].take(found)
        self.units += torch.bincount(group, minlength=len(self.units))
        self.largest_batch = max(self.largest_batch, len(group))

    def merge(self, other: Gathered) -> None:
        """Take in everything that ``other``, of the same plan and classes, saw.

        Raises:
            MergeError: the two clipped their units differently.
        """
        if self._limits != other._limits:
            found = f"units clipped to {other.clip} and to {self.clip}"
            raise MergeError("statistics", found, "the same clipping in all parts", "Record the parts alike.")
        for mine, theirs in zip(self.accumulators, other.accumulators, strict=True):
            mine.merge(theirs)
        self.units += other.units
        self.largest_batch = max(self.largest_batch, other.largest_batch)

    def state(self) -> dict[str, np.ndarray]:
        """All of it as arrays, by ``<number in the plan>.<name>``."""
        arrays = {"units": self.units.numpy().copy(), "largest_batch": np.asarray(self.largest_batch, np.int64)}
        if self._limits:
            arrays["clip"] = self._clip_array()
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
        if not np.array_equal(arrays.get("clip", np.empty(0)), self._clip_array()):
            raise ValueError("statistics of units that were clipped otherwise")
        for name, accumulator in zip(names, self.accumulators, strict=True):
            accumulator.restore(parts.get(name, {}))
        self.units = torch.from_numpy(units.astype(np.int64))
        self.largest_batch = int(arrays.get("largest_batch", 0))

    def _reduced(self, number: int, batch: _Batch) -> Any:
        entry = self.plan[number]
        try:
            return self.accumulators[number].reduced(*_samples(batch, entry, self.accumulators[number]))
        except StepError:
            require_finite(entry.site, batch.values[entry.site.id])
            raise

    def _taken(self, number: int, batch: _Batch) -> None:
        entry, accumulator = self.plan[number], self.accumulators[number]
        samples, of_samples = _samples(batch, entry, accumulator)
        if entry.paired is None:
            accumulator.update(samples, of_samples)
            return
        other = batch.values[entry.paired.id]
        others, _ = feature_vectors(other, batch.group, entry.features, entry.paired.feature_axis)
        accumulator.update(samples, of_samples, others)

    def _require_finite_elsewhere(self, values: Mapping[str, Tensor], done: Collection[str]) -> None:
        sites = {site.id: site for entry in self.plan for site in entry.sites}
        for site in sites.values():
            if site.id not in done:
                require_finite(site, values[site.id])

    def _clip_array(self) -> np.ndarray:
        return np.array(list(self._limits.values()), np.float64)

    def _groups(self, entry: RecordPlan) -> int:
        return (self.classes or 1) if entry.gathered_by_class else 1


@dataclass(frozen=True, slots=True)
class _Batch:
    """The values of each site, as they are and clipped (the same without clipping), and each unit's class."""

    values: Mapping[str, Tensor]
    clipped: Mapping[str, Tensor]
    group: Tensor


def _samples(batch: _Batch, entry: RecordPlan, accumulator: Any) -> tuple[Tensor, Tensor]:
    """As :func:`feature_vectors`; to a kind that takes units whole, ``[n, *positions, d]`` without a copy."""
    value = (batch.values if entry.kind in UNCLIPPED_KINDS else batch.clipped)[entry.site.id]
    group = batch.group if accumulator.groups > 1 else torch.zeros_like(batch.group)
    if getattr(accumulator, "takes_positions", False):
        return positioned(value, entry.features, entry.site.feature_axis), group
    return feature_vectors(value, group, entry.features, entry.site.feature_axis)


def require_finite(site: SitePlan, value: Tensor) -> None:
    """Refuse a NaN or an infinity, naming the site.

    Raises:
        StepError: there is one.
    """
    # One number tells of all, unless they overflow together.
    if math.isfinite(value.sum()) or bool(torch.isfinite(value).all()):
        return
    raise StepError(
        f"site {site.label!r} ({site.value})",
        "NaN or infinity in its activations",
        "finite numbers",
        "Check the input's preprocessing and the model's weights.",
    )


def limit_at(site: SitePlan, clip: Clip) -> float:
    """The largest root mean square of a unit's elements at this site.

    Raises:
        DataError: no positive, finite number, or none for this site.
    """
    names = (site.label, site.value, site.id)
    limit = next((clip[name] for name in names if name in clip), None) if isinstance(clip, Mapping) else clip
    if limit is None:
        fix = f"Name {site.label!r} too, or give one number for all sites."
        raise DataError("clipping norm", f"none for site {site.label!r}", "one for each site", fix)
    if not (0 < limit < math.inf):
        raise DataError("clipping norm", f"{limit} at site {site.label!r}", "a finite number above 0")
    return float(limit)


def clipped_units(value: Tensor, limit: float) -> Tensor:
    """Each unit scaled down to a root mean square of at most ``limit``; smaller ones stay as they are.

    Args:
        value: ``[n, ...]``, any float dtype.
        limit: above 0.

    Returns:
        ``[n, ...]`` float64, so that the bound holds to 1e-15 and not only to the precision of the activations.
    """
    units = value.to(torch.float64)
    size = units.flatten(1).square().mean(1).sqrt()
    factor = (limit / size.clamp(min=limit)).reshape(-1, *[1] * (units.dim() - 1))
    return units * factor


def accumulate(entry: RecordPlan) -> ModuleType:
    """The module that gathers this record's kind."""
    return KINDS.load(entry.kind, "accumulate")


def _require_memory(plan: Sequence[RecordPlan], classes: int | None, limit: int, copies: int) -> None:
    """Refuse a plan whose accumulators, with one more for the classes together, would not fit."""

    def needed(entry: RecordPlan, groups: int) -> int:
        return int(accumulate(entry).accumulator_bytes(entry.feature_count, groups, entry.configuration))

    def groups(entry: RecordPlan) -> int:
        return (classes or 1) if entry.gathered_by_class else 1

    total = copies * sum(gathering_bytes(entry, classes) for entry in plan)
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
