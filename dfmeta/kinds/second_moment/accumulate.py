"""Streaming second moments, group by group, as raw sums in float64: merging is addition.

The kind is uncentred by definition, so that its numbers *are* sums over a count; a centred update would have to be
undone on publication. What a huge mean hides in a raw sum is hidden in E[x x^T] itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored
from dfmeta.kinds.second_moment.forms import Form, form_sums, state_shapes
from dfmeta.kinds.second_moment.geometry import exact_of, form_of, storage_of, window_of
from dfmeta.kinds.second_moment.products import working
from dfmeta.kinds.second_moment.spec import MATRICES
from dfmeta.numerics.correlation import correlations, encoded
from dfmeta.numerics.packed import pack


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    form, window = form_of(configuration), window_of(features, configuration)
    shapes = state_shapes(form, features, window).values()
    return groups * 8 * (1 + sum(int(np.prod(shape, dtype=object)) for shape in shapes))


class Accumulator:
    """Count, sum and sum of outer products of a weight operator's inputs for each of ``groups`` groups.

    Args:
        features: d, the length of one feature vector; of a convolution, that of one of its groups.
        groups: G, the number of groups of units; 1 for a record over all units.
        configuration: ``form``, ``storage``, the window and ``exact``, as the kind's page says.

    Attributes:
        groups: G.
        count: ``[G]`` int64, the samples seen: rows, or patches.
        sums: the form's sums, by name, each ``[G, ...]`` float64.

    Raises:
        ValueError: a configuration that cannot be read.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        self.features, self.groups, self.configuration = features, groups, dict(configuration)
        self.form = Form(form_of(configuration), features, window_of(features, configuration))
        self.storage, self.exact = storage_of(configuration), exact_of(configuration)
        self.count = torch.zeros(groups, dtype=torch.int64)
        shapes = state_shapes(self.form.name, features, self.form.window)
        self.sums = {name: torch.zeros(groups, *shape, dtype=torch.float64) for name, shape in shapes.items()}

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch.

        Args:
            samples: ``[n, d]``, or with a window the map ``[n, c, *spatial]`` that the convolution reads; any float
                dtype. Products of float32 are formed in float32 unless ``exact``, all others in float64.
            group: ``[n]`` int64, the group of each row or of each unit.

        Raises:
            ValueError: a map of other channels or axes than the window's.
        """
        self.form.require(samples)
        for row in torch.unique(group).tolist():
            part = samples if self.groups == 1 else samples[group == row]
            count, sums = form_sums(self.form, working(part.detach(), self.exact))
            self.count[row] += count
            for name, found in sums.items():
                self.sums[name][row] += found.to(self.sums[name].device)

    def merge(self, other: Accumulator) -> None:
        """Take in everything that ``other`` saw. The same as one pass over both, to rounding."""
        self.count = self.count + other.count
        self.sums = {name: total + other.sums[name] for name, total in self.sums.items()}

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all groups."""
        total = copy.copy(self)
        total.groups, total.count = 1, self.count.sum(0, keepdim=True)
        seen = self.count > 0
        total.sums = {name: values[seen].sum(0, keepdim=True) for name, values in self.sums.items()}
        return total

    def without(self, groups: Sequence[int]) -> Accumulator:
        """The same to read out, with the given groups as if they had not been observed. Not to be updated.

        The sums, which are large, are shared and not copied: those of a group whose count is 0 are never looked at.
        """
        left = copy.copy(self)
        left.count = self.count.clone()
        left.count[list(groups)] = 0
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it: ``count`` int64 ``[G]`` and the form's sums, float64."""
        return {name: values.numpy().copy() for name, values in {"count": self.count, **self.sums}.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down; ValueError if it does not fit."""
        found = restored(SimpleNamespace(count=self.count, **self.sums), ["count", *self.sums], state)
        self.count = found.pop("count")
        self.sums = found

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record; shapes as in :func:`dfmeta.kinds.second_moment.spec.layout`.

        Args:
            units: ``[G]`` int64, how many units each group holds; nothing here depends on it.
            min_units: least units behind a published extreme; this kind publishes none.
        """
        del units, min_units
        divisor = self.count.clamp(min=1).numpy().astype(np.float64)
        # What a withheld group summed up is still there.
        share = np.where(self.count.numpy() > 0, 1 / divisor, 0.0)
        means = {name: np.einsum("g...,g->g...", values.numpy(), share) for name, values in self.sums.items()}
        found = {"count": self.count.numpy(), "mean": means.pop("sum").astype(np.float32)}
        for name, values in self.form.published(means).items():
            found |= self._stored(name, values)
        return found

    def _stored(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """One matrix ``[G, ..., d, d]`` (a diagonal: ``[G, ..., d]``) as the tensors that hold it."""
        if name == "diagonal":
            return {name: values.astype(np.float32)}
        packed = name != "lags"
        if self.storage == "float32":
            return {name: (pack(values) if packed else values).astype(np.float32)}
        # The diagonal in the precision in which it is stored: its correlations are then exactly 1.
        whole = values if packed else values[..., 0, :, :]
        diagonal = np.diagonal(whole, axis1=-2, axis2=-1).astype(np.float32)
        correlation = correlations(values, diagonal if packed else diagonal[..., None, :])
        coded = encoded(pack(correlation) if packed else correlation, self.storage)
        return {name: coded, MATRICES[self.form.name][name]: diagonal}
