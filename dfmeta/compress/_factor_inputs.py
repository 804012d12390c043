"""What an operator reads, as factorising sees it: moments to fit weights by, and errors in units of what it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._operators import Operator, input_record
from dfmeta.numerics.damping import damped
from dfmeta.numerics.whitened_svd import centred, energy
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import moment_record

Array = NDArray[np.float64]

# Shares of a moment's diagonal. What compact records round or average away looks free, and is not: on a ResNet-20 with
# Toeplitz blocks of int8 correlations, 0.03 and 0.1 were best of 0 to 0.1; with exact moments all were as good.
RIDGE, COMPACT_RIDGE = 1e-2, 1e-1
# An approximate moment can contradict a mean: less variance than this share of the energy is not believed.
_LEAST_VARIANCE = 0.01


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known of an operator's input x.

    Attributes:
        moment: ``[d, d]`` E[x x^T] as recorded; the identity without a record.
        fit: ``[d, d]`` by which weights are fitted: with the ridge, positive definite, and about the mean where the
            bias follows and the moment is exact.
        mean: ``[d]`` E[x]; None where it is not known.
        shifts: whether the bias is refitted by it.
        damping: the ridge: what each entry of the diagonal of ``fit`` grew by, as a share of it; 0 without a record.
        further_damping: what it needed beyond that, in units of the mean of its diagonal.
        record: form of the record; empty without one.
    """

    moment: Array
    fit: Array
    mean: Array | None
    shifts: bool
    damping: float
    further_damping: float
    record: str

    def error(self, weight: Array, replaced: Array) -> float:
        """``E|W x + b - V x - b'|^2`` over the variance of W x; over its energy where no mean is known."""
        lost = energy(weight - replaced, self.moment)
        if self.mean is not None and self.shifts:
            lost -= float(np.square((weight - replaced) @ self.mean).sum())
        return max(lost, 0.0) / (self.variance(weight) or 1.0)

    def scale(self, weight: Array) -> float:
        """What turns a share of the energy by ``fit`` into a share of the variance."""
        return energy(weight, self.fit) / (self.variance(weight) or 1.0)

    def variance(self, weight: Array) -> float:
        """``E|W x - W E[x]|^2``."""
        whole = energy(weight, self.moment)
        around = 0.0 if self.mean is None else float(np.square(weight @ self.mean).sum())
        return max(whole - around, _LEAST_VARIANCE * whole)


def observed(records: PublishedRecords, operator: Operator) -> bool:
    """Whether there is a record of an operator's input that saw anything."""
    statistic = moment_record(records, operator.entry)
    return statistic is not None and int(statistic.tensors["count"].min()) > 0


def inputs(records: PublishedRecords, operator: Operator, ridge: float | None, *, affine: bool) -> Inputs:
    """What the records say of an operator's input.

    Args:
        records: of the float graph.
        operator: of one group.
        ridge: what is added to each entry of the moment's diagonal, as a share of it; None for :data:`RIDGE` where
            the record is exact (whole, in float32) and :data:`COMPACT_RIDGE` elsewhere.
        affine: whether the bias may be refitted.
    """
    record = input_record(records, operator)
    if record.moment is None or record.mean is None:
        plain = np.eye(operator.weight.shape[2])
        return Inputs(plain, plain, None, False, 0.0, 0.0, "")
    moment, mean = record.moment[0], record.mean[0]
    exact = record.form == "full" and _storage(records, operator) == "float32"
    fit = centred(moment, mean) if affine and exact else moment
    share = ridge if ridge is not None else (RIDGE if exact else COMPACT_RIDGE)
    safe = damped(fit + share * np.diag(np.diagonal(fit)))
    return Inputs(moment, safe.moment, mean, affine, share, safe.damping, record.form)


def _storage(records: PublishedRecords, operator: Operator) -> str:
    statistic = moment_record(records, operator.entry)
    return "" if statistic is None else str(statistic.configuration.get("storage", "float32"))
