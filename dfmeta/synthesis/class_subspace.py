"""`class-subspace`: inputs straight from the class Gaussians that were recorded of the input itself.

Each class's `spectrum` of the input is its mean and the leading eigenvectors of its covariance (per-class principal
components: Turk and Pentland, "Eigenfaces for recognition", J. Cognitive Neuroscience 3(1), 1991). A sample is the
mean plus a standard normal number times the deviation along each of them. Nothing is optimised and the teacher is not
run: it is the quickest of all methods, and it knows nothing that hidden layers would tell.

Gaussian samples are greyer than images are: a pixel that is nearly always black or white in the data takes every value
between. Where the bundle has a `histogram` of the input (preset `calibration`), a rising map of values gives the
samples the distribution of values that was recorded, all features together (histogram matching); without one, samples
are clipped to the range of the input and no more.

The features must be the flattened input. An input of more than 4096 features is recorded by channel unless the
publisher asks for more (``--features flattened``); such a record says nothing of where in the input a value is, and
is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta._settings import share
from dfmeta.errors import StepError
from dfmeta.records import Statistic
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._gaussians import ClassGaussians

# Values that the map of values is built from: at most so many, whatever the input's size.
MAP_VALUES = 1 << 23
KNOTS = 4096


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the sampling.

    Attributes:
        draws: samples from which the map of values is built (fewer of large inputs).
        sharpen: share of the way from a sample's values to those of the recorded distribution; 0 leaves them.
        residual: share of the variance outside the recorded directions that samples get, as noise spread evenly over
            those other directions.
    """

    draws: int = 2000
    sharpen: float = share(1.0)
    residual: float = share(0.0)


@dataclass(frozen=True, slots=True)
class ValueMap:
    """A rising, piecewise linear map.

    Attributes:
        found: ``[m]`` rising values.
        wanted: ``[m]`` what each becomes; values outside ``found`` become the nearest end.
    """

    found: Tensor
    wanted: Tensor

    @classmethod
    def between(cls, samples: Tensor, histogram: Statistic) -> ValueMap:
        """The map that gives ``samples`` the distribution of ``histogram``, from quantile to quantile.

        Args:
            samples: values of any shape.
            histogram: a record of the kind; the classes of one by class are added up.
        """
        values = samples.flatten().sort().values.cpu()
        levels = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) / KNOTS
        found, place = torch.unique_consecutive(values[(levels * len(values)).long()], return_inverse=True)
        # A value that many samples share stands for a whole stretch of levels: it goes to that of their middle.
        middle = torch.bincount(place, levels) / torch.bincount(place)
        wanted = recorded_quantiles(histogram, middle).to(found.dtype)
        return cls(found.to(samples.device), wanted.to(samples.device))

    def __call__(self, values: Tensor) -> Tensor:
        """Mapped, in the shape given; subnormal numbers, with which networks take ten times as long, are 0."""
        mapped = interpolated(values, self.found, self.wanted)
        return torch.where(mapped.abs() < torch.finfo(torch.float32).tiny, 0.0, mapped)


def interpolated(values: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    """``wanted`` at ``values`` between the rising points ``found``; the nearest end outside of them."""
    if len(found) == 1:
        return wanted.expand(values.shape).clone()
    above = torch.searchsorted(found, values.contiguous()).clamp(1, len(found) - 1)
    low, high = found[above - 1], found[above]
    part = ((values - low) / (high - low)).clamp(0, 1)
    return torch.lerp(wanted[above - 1], wanted[above], part)


def recorded_quantiles(histogram: Statistic, levels: Tensor) -> Tensor:
    """The values below which shares ``levels`` of the recorded values lie, linear within a bin.

    Args:
        histogram: a record of the kind.
        levels: ``[m]`` float64, 0 to 1, on the CPU.

    Returns:
        ``[m]`` float64, in the site's units.
    """
    counts = histogram.tensors["counts"].sum(0).double().cpu()
    lower, upper = KINDS.load("histogram", "spec").bin_edges(histogram.tensors["bins"].cpu().numpy())
    limit = float(torch.finfo(torch.float32).max)  # below the outermost edges
    edges = [torch.from_numpy(side).clamp(-limit, limit) for side in (lower, upper)]
    filled = counts > 0
    counts, low, high = counts[filled], edges[0][filled], edges[1][filled]
    total = counts.cumsum(0)
    wanted = levels * total[-1]
    place = torch.searchsorted(total, wanted).clamp(max=len(total) - 1)
    part = ((wanted - (total - counts)[place]) / counts[place]).clamp(0, 1)
    return torch.lerp(low[place], high[place], part)


class ClassSubspace:
    """Draws inputs, each class as often as any other; made afresh for every call."""

    steps = 0

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self._gaussians = ClassGaussians.of(_spectrum(task))
        self._classes = torch.nonzero(self._gaussians.count > 0).flatten()
        if not len(self._classes):
            raise StepError("records", "no class that was published", "at least one", "Use the method noise.")
        self._map = self._value_map()

    def advance(self) -> float:
        """Nothing to optimise."""
        return 0.0

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Fresh samples; the label is the class whose Gaussian it came from."""
        labels = self._classes[self._task.integers(len(self._classes), count)]
        values = self._draw(labels)
        if self._map is not None:
            values = torch.lerp(values, self._map(values), self._config.sharpen)
        return self._task.clamp(values.reshape(count, *self._task.item_shape)), labels

    def _draw(self, labels: Tensor) -> Tensor:
        """``[n, d]``, neither mapped nor clipped."""
        gaussians, residual = self._gaussians, self._config.residual
        if residual:
            return gaussians.colour(self._task.normal(len(labels), gaussians.features), labels, residual)
        return gaussians.along(self._task.normal(len(labels), gaussians.rank), labels)

    def _value_map(self) -> ValueMap | None:
        """From samples with the classes' own frequencies, since the histogram is of all units."""
        records, name = self._task.records, self._task.input_name
        found = records.of(name, "histogram", by_class=False) or records.of(name, "histogram", by_class=True)
        if found is None or not self._config.sharpen or not int(found.tensors["count"].sum()):
            return None
        draws = max(1, min(self._config.draws, MAP_VALUES // math.prod(self._task.item_shape)))
        shares = self._gaussians.count[self._classes].double()
        often = (draws * shares / shares.sum()).round().long().clamp(min=1)
        return ValueMap.between(self._draw(self._classes.repeat_interleave(often)), found)


def _spectrum(task: Task) -> Statistic:
    found = task.records.need(task.input_name, "spectrum", by_class=True, preset="spectral")
    if found.features == "flattened":
        return found
    raise StepError(
        f"records of {task.input_name!r}",
        f"a 'spectrum' of {found.features} features, which does not say where in the input they are",
        "one of the flattened input",
        "Use another method, or a bundle recorded with the preset 'spectral' and --features flattened.",
    )


def build(task: Task, config: Config) -> ClassSubspace:
    """The method for ``task``.

    Raises:
        StepError: the bundle holds no spectrum of each class for the flattened input, or withholds every class.
    """
    return ClassSubspace(task, config)
