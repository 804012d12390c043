"""What a kind is tried with: one configuration, made-up activations for it, and how two states are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS


@dataclass(frozen=True, slots=True)
class Stream:
    """Made-up activations.

    Attributes:
        samples: ``[n, *item_shape]`` float64.
        group: ``[n]`` int64.
        paired: ``[n, *paired_shape]`` float64, for kinds that relate two sites.
        groups: number of groups.
    """

    samples: Tensor
    group: Tensor
    paired: Tensor | None
    groups: int

    def __len__(self) -> int:
        return len(self.group)

    def part(self, rows: slice | Tensor) -> Stream:
        """Some of the rows."""
        paired = None if self.paired is None else self.paired[rows]
        return Stream(self.samples[rows], self.group[rows], paired, self.groups)

    def as_type(self, dtype: torch.dtype) -> Stream:
        """The same in another precision."""
        paired = None if self.paired is None else self.paired.to(dtype)
        return Stream(self.samples.to(dtype), self.group, paired, self.groups)


@dataclass(frozen=True, slots=True)
class KindCase:
    """One kind in one configuration.

    Attributes:
        kind: its name in the catalogue.
        features: the record's ``feature_count``.
        configuration: the kind's own parameters.
        item_shape: one sample as the accumulator is given it; ``(features,)`` unless told.
        paired_shape: one sample of the other site, for kinds that relate two.
        tolerance: how far two states may lie apart that saw the same, relative to each array's largest entry; 0 for
            kinds that count and must agree to the bit.
        compare: instead of comparing states array by array, for states of which only a function is determined: it is
            given two accumulators and raises AssertionError if they disagree by more than they may.
    """

    kind: str
    features: int
    configuration: Mapping[str, Any] = field(default_factory=dict)
    item_shape: tuple[int, ...] = ()
    paired_shape: tuple[int, ...] | None = None
    tolerance: float = 1e-9
    compare: Callable[[Any, Any], None] | None = None

    def __str__(self) -> str:
        words = [str(value) for value in self.configuration.values() if isinstance(value, (str, int))]
        return "-".join([self.kind, *words])

    @property
    def spec(self) -> ModuleType:
        """The kind's ``spec`` module."""
        return KINDS.load(self.kind, "spec")

    @property
    def gathering(self) -> ModuleType:
        """The kind's ``accumulate`` module."""
        return KINDS.load(self.kind, "accumulate")

    def accumulator(self, groups: int) -> Any:
        """An empty one."""
        return self.gathering.Accumulator(self.features, groups, self.configuration)

    def stream(self, seed: int, count: int, groups: int, offset: float = 0.0) -> Stream:
        """``count`` correlated samples around ``offset``; the last group stays empty if there are several."""
        generator = np.random.default_rng(seed)
        shape = self.item_shape or (self.features,)
        made = _correlated(generator, count, shape, offset)
        paired = None
        if self.paired_shape is not None:
            paired = _correlated(generator, count, self.paired_shape, -offset)
            width = min(made[0].numel(), paired[0].numel()) if count else 0
            if width:
                paired.view(count, -1)[:, :width] += made.reshape(count, -1)[:, :width]
        used = max(groups - 1, 1)
        return Stream(made, torch.from_numpy(generator.integers(0, used, count)), paired, groups)

    def gathered(self, stream: Stream, cuts: Sequence[int] = ()) -> Any:
        """An accumulator fed with a stream, cut into batches at ``cuts``; without cuts it is one batch."""
        made = self.accumulator(stream.groups)
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for start, end in pairwise(edges):
            if end > start:
                feed(made, stream.part(slice(start, end)))
        return made

    def agree(self, one: Any, other: Any) -> None:
        """Raise AssertionError unless two accumulators hold the same, within the case's tolerance."""
        np.testing.assert_array_equal(one.count.numpy(), other.count.numpy())
        if self.compare is not None:
            self.compare(one, other)
            return
        left, right = one.state(), other.state()
        assert left.keys() == right.keys()
        for name, values in left.items():
            if values.dtype.kind in "iu" or not self.tolerance:
                np.testing.assert_array_equal(values, right[name], err_msg=name)
                continue
            scale = np.abs(values).max(initial=0.0)
            np.testing.assert_allclose(values, right[name], rtol=0, atol=self.tolerance * scale, err_msg=name)


def feed(accumulator: Any, stream: Stream) -> None:
    """Give an accumulator one batch."""
    if stream.paired is None:
        accumulator.update(stream.samples, stream.group)
    else:
        accumulator.update(stream.samples, stream.group, stream.paired)


def _correlated(generator: np.random.Generator, count: int, shape: tuple[int, ...], offset: float) -> Tensor:
    size = int(np.prod(shape))
    mixing = generator.normal(size=(size, size)) / size**0.5
    rows = generator.normal(size=(count, size)) @ mixing + offset + generator.normal(size=size)
    return torch.from_numpy(rows.reshape(count, *shape))
