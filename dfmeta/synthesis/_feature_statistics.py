"""Mean and variance of a network's features over the training data: stored by batch normalisation, or recorded.

Per value of the graph there is one pair of vectors:

* a graph with BatchNormalization: the stored statistics of every such node, of the value that it normalises, by
  channel. Records are then not looked at;
* a graph without: the `moments` records. At each site where there are any, the record over all units is taken; where
  only classes were recorded, those that were published are pooled with equal weights, since the batches that are
  compared with them hold each class equally often, by the law of total variance: the mean of the classes' variances
  plus the variance of their means. The features are those of the record, by channel or by position (flattened); where
  a site has both, by position, which says more. The input and the output are sites like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.records import Statistic, feature_vectors
from dfmeta.records.samples import Features
from dfmeta.synthesis._contract import Task

# Features that hardly vary in the data, such as a dead corner, count as if they varied by this share of the mean.
LEAST_VARIANCE = 0.01


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """The statistics of one value.

    Attributes:
        value: its name in the graph.
        features: ``channel`` or ``flattened``.
        feature_axis: the channel axis.
        mean, variance: ``[d]``, in the value's units and their square.
    """

    value: str
    features: Features
    feature_axis: int | None
    mean: Tensor
    variance: Tensor

    def distance(self, values: Mapping[str, Tensor]) -> Tensor:
        """Norm of the means' difference plus norm of the variances', neither squared (arXiv:1912.08795, eq. 4)."""
        rows = self._rows(values)
        off = rows.mean(0) - self.mean
        spread = rows.var(0, unbiased=False) - self.variance
        distance: Tensor = torch.linalg.vector_norm(off) + torch.linalg.vector_norm(spread)
        return distance

    def relative_distance(self, values: Mapping[str, Tensor]) -> Tensor:
        """Mean over the features of the squared differences of mean and of deviation, in units of the variance."""
        rows = self._rows(values)
        unit = self.variance + LEAST_VARIANCE * self.variance.mean() + 1e-12
        # A deviation has no derivative at 0.
        deviation = (rows.var(0, unbiased=False) + 1e-6 * unit).sqrt()
        mean_off = (rows.mean(0) - self.mean).square() / unit
        distance: Tensor = (mean_off + (deviation - self.variance.sqrt()).square() / unit).mean()
        return distance

    def _rows(self, values: Mapping[str, Tensor]) -> Tensor:
        """``[n, d]`` its features in a batch."""
        value = values[self.value]
        groups = torch.zeros(len(value), dtype=torch.int64, device=value.device)
        return feature_vectors(value, groups, self.features, self.feature_axis)[0]


def feature_statistics(task: Task) -> tuple[FeatureStatistics, ...]:
    """All statistics of the teacher's features, in the graph's order or the manifest's.

    Raises:
        StepError: neither BatchNormalization nor `moments`; the text names the preset that records them.
    """
    found = _of_batch_normalization(task) or _of_moments(task)
    if not found:
        raise StepError(
            "model and records",
            "no BatchNormalization and no 'moments'",
            "one or the other",
            "Use a method that does without, or a bundle recorded with the preset 'all-layers'.",
        )
    return found


def _of_batch_normalization(task: Task) -> tuple[FeatureStatistics, ...]:
    found = []
    for node in task.teacher.graph.model.graph.node:
        if node.op_type == "BatchNormalization":
            value, _, _, mean, variance = node.input
            stored = task.teacher.run({}, [mean, variance])
            found.append(FeatureStatistics(value, "channel", 1, stored[mean].float(), stored[variance].float()))
    return tuple(found)


def _of_moments(task: Task) -> tuple[FeatureStatistics, ...]:
    entries = [entry for entry in task.records if entry.kind == "moments" and bool((entry.tensors["count"] > 0).any())]
    best: dict[str, Statistic] = {}
    for entry in entries:
        if entry.value not in best or _rank(entry) > _rank(best[entry.value]):
            best[entry.value] = entry
    return tuple(
        FeatureStatistics(entry.value, entry.features, entry.feature_axis, *_pooled(entry)) for entry in best.values()
    )


def _rank(entry: Statistic) -> tuple[bool, bool]:
    return not entry.by_class, entry.features == "flattened"


def _pooled(entry: Statistic) -> tuple[Tensor, Tensor]:
    """Mean and variance over the groups that were published, all with the same weight."""
    seen = entry.tensors["count"] > 0
    means, variances = entry.tensors["mean"][seen], entry.tensors["var"][seen]
    return means.mean(0), variances.mean(0) + means.var(0, unbiased=False)
