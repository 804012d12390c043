"""Which records speak of what one weight operator reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.graph.operator_inputs import OperatorInput
from dfmeta.kinds.second_moment.reading import matrix
from dfmeta.records.published import PublishedRecords, Statistic

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OperatorMoment:
    """What is recorded of an operator's input x.

    Attributes:
        whole: ``[g, d, d]`` E[x x^T], one for each convolution group; g is 1 for anything else.
        mean: ``[g, d]`` E[x].
        count: samples that went in.
        form: ``full``, ``toeplitz``, ``kronecker`` or ``diagonal``.
        record: id of the record.
        exact: whether its entries are those of the data, to float32: in full, and not as correlations of few bits.
    """

    whole: Array
    mean: Array
    count: int
    form: str
    record: str
    exact: bool = False

    @property
    def joint(self) -> bool:
        """Whether it says how entries go together, not only how large each is."""
        return self.form != "diagonal"


def moment_record(records: PublishedRecords, entry: OperatorInput) -> Statistic | None:
    """The second moment of what this very operator multiplies with its weight, observed or not; None without one.

    Args:
        records: of a bundle.
        entry: an operator of the bundle's graph. A record of the same value through another window is none of it.
    """
    if entry.left_out or entry.feature_axis is None:
        return None
    return next((statistic for statistic in records if _belongs(statistic, entry)), None)


def operator_moment(statistic: Statistic) -> OperatorMoment | None:
    """The numbers of a record of :func:`moment_record`, whole; None where nothing was observed.

    Args:
        statistic: a ``second-moment`` over all units.

    Raises:
        ValueError: more features than fit (:func:`dfmeta.kinds.second_moment.reading.matrix`).
    """
    tensors = {name: tensor.numpy() for name, tensor in statistic.tensors.items()}
    count = int(tensors["count"].min())
    if count <= 0:
        return None
    features = tensors["mean"].shape[-1]
    whole = matrix(tensors, features, statistic.configuration).reshape(-1, features, features)
    mean = tensors["mean"].astype(np.float64).reshape(-1, features)
    form = str(statistic.configuration["form"])
    exact = form == "full" and statistic.configuration["storage"] == "float32"
    return OperatorMoment(whole, mean, count, form, statistic.record, exact)


def observed(records: PublishedRecords, entry: OperatorInput) -> bool:
    """Whether there are numbers for :func:`operator_moment`, without reading them."""
    found = moment_record(records, entry)
    return found is not None and bool(found.tensors["count"].min() > 0)


def histogram_record(records: PublishedRecords, value: str) -> Statistic | None:
    """The histogram over all units of a value of the graph; None without one."""
    return records.of(value, "histogram", by_class=False)


def _belongs(statistic: Statistic, entry: OperatorInput) -> bool:
    if statistic.kind != "second-moment" or statistic.by_class or statistic.value != entry.value:
        return False
    window, configuration = entry.window, statistic.configuration
    if window is None or "kernel" not in configuration:
        same_axis = statistic.feature_axis is None or statistic.feature_axis == entry.feature_axis
        return window is None and "kernel" not in configuration and same_axis
    expected = {
        "kernel": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": (*window.before, *window.after),
        "groups": (entry.groups,),
    }
    return all(tuple(np.atleast_1d(configuration[name]).tolist()) == value for name, value in expected.items())
