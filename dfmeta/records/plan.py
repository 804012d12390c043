"""What will be recorded where: the lines of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfmeta.records.samples import Features


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
    def sites(self) -> tuple[SitePlan, ...]:
        """The site, and its pair if there is one."""
        return (self.site,) if self.paired is None else (self.site, self.paired)
