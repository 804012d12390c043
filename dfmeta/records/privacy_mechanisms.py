"""Which sums over units each kind is made of, how far one unit moves them, and the kind from the noised sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dfmeta._catalog import KINDS
from dfmeta.numerics.zcdp import NoiseSource, discrete_variance, gaussian_sigma, positive_part
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.samples import Features

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Quantity = Literal["mean", "squares", "second-moment", "lags", "channels", "taps", "bins"]


# How likely it may be that noise alone fills a bin that no value fell into.
FALSE_BINS = 0.05


@dataclass(frozen=True, slots=True)
class Sum:
    """One sum over units that is noised, once, for all records that read it.

    Attributes:
        site: where.
        features: how the site's axes become feature vectors.
        by_class: one sum for each class, or one over all units.
        quantity: ``mean``: the units' means over their positions; ``second-moment``: their mean outer products;
            ``squares``: the diagonal of those; ``lags``, ``channels`` and ``taps``: sums of their blocks, as the forms
            of second moments have them; ``bins``: how many values fell into each bin.
        window: of the convolution whose patches are the samples, as :mod:`dfmeta.kinds.second_moment.geometry` has
            it; None for other samples.
    """

    site: SitePlan
    features: Features
    by_class: bool
    quantity: Quantity
    window: Any = None

    @property
    def whole(self) -> Sum:
        """The sum of which this one is a part: squares are the diagonal of second moments."""
        return replace(self, quantity="second-moment") if self.quantity == "squares" else self

    def sensitivity(self, limit: float) -> float:
        """The L2 distance by which one unit can move it: R, R^2 or P, as :mod:`dfmeta.records.privacy` proves.

        Args:
            limit: largest root mean square of a unit's elements at the site.
        """
        if self.quantity == "bins":
            return float(elements_of(self.site))
        square = limit**2 * self._share()
        return math.sqrt(square) if self.quantity == "mean" else square

    def _share(self) -> float:
        """R^2 for a limit of 1: d, and for patches as many elements as they read at most, over their number."""
        if self.window is None:
            return float(self.site.feature_count(self.features))
        sizes = _spatial(self.site)
        # On each axis: how many taps read the position that is read most often.
        reads: int = math.prod(int(self.window.tap_use(axis, size).sum(0).max()) for axis, size in enumerate(sizes))
        patches: int = math.prod(self.window.output_sizes(sizes))
        return reads * elements_of(self.site) / max(patches, 1)

    @property
    def noise(self) -> Literal["gaussian", "discrete-gaussian"]:
        """Whole numbers get noise in whole numbers."""
        return "discrete-gaussian" if self.quantity == "bins" else "gaussian"

    def noised(self, exact: Array, sensitivity: float, rho: float, source: NoiseSource) -> Array:
        """The sum with noise.

        Args:
            exact: ``[G, ..., d]``; ``[G, ..., d, d]`` for matrices; ``[G, ..., lags, d, d]``, of which the first is
                symmetric, for lags; ``[G, bins]`` whole numbers for bins.
            sensitivity: of the whole array to one unit.
            rho: what this may cost.
            source: of the noise.

        Returns:
            The same shape. Bins are 0 where the noised number is not above a threshold that noise alone passes
            in no bin at all in nineteen cases of twenty.
        """
        sigma = gaussian_sigma(sensitivity, rho)
        if self.quantity == "bins":
            counts = exact + source.discrete_gaussian(exact.shape, discrete_variance(sensitivity, rho))
            # A normal tail: P(any of n above t sigma) <= n exp(-t^2 / 2) / 2.
            threshold = sigma * math.sqrt(2 * math.log(exact.size / (2 * FALSE_BINS)))
            return np.where(counts > threshold, counts, 0)
        if self.quantity in ("mean", "squares"):
            return exact + source.gaussian(exact.shape, sigma)
        noise = source.gaussian(exact.shape, sigma) if self.quantity == "lags" else np.empty_like(exact)
        symmetric = noise[..., 0, :, :] if self.quantity == "lags" else noise
        for place in np.ndindex(symmetric.shape[:-2]):
            symmetric[place] = source.symmetric_gaussian(symmetric.shape[-1], sigma)
        return exact + noise


def sum_of(entry: RecordPlan, quantity: Quantity) -> Sum:
    """The sum of that quantity which a record reads."""
    return Sum(entry.site, entry.features, entry.gathered_by_class, quantity, _window(entry))


def positions_of(entry: RecordPlan) -> int:
    """P, how many samples one unit is at this record: fixed by the graph, the same for every unit."""
    window = _window(entry)
    if window is not None:
        return math.prod(window.output_sizes(_spatial(entry.site)))
    return elements_of(entry.site) // entry.feature_count


def elements_of(site: SitePlan) -> int:
    """How many elements one unit has at a site."""
    return math.prod(int(size) for size in site.shape[1:])


def _spatial(site: SitePlan) -> list[int]:
    return [int(size) for size in site.shape[2:]]


def _window(entry: RecordPlan) -> Any:
    if entry.features != "patch":
        return None
    return KINDS.load("second-moment", "geometry").window_of(entry.feature_count, entry.configuration)


class Mechanism(Protocol):
    """How one kind is noised."""

    def quantities(self, entry: RecordPlan) -> tuple[Quantity, ...]:
        """The sums that it is made of."""

    def exact(self, entry: RecordPlan, state: Mapping[str, np.ndarray], quantity: Quantity) -> Array:
        """One of those sums, over units, from an accumulator's state."""

    def state(self, entry: RecordPlan, units: Rows, sums: Mapping[Quantity, Array]) -> dict[str, Any]:
        """An accumulator's state that noised sums and noised numbers of units imply."""


class _Moments:
    """Means from the noised sums; a variance below zero is zero."""

    def quantities(self, entry: RecordPlan) -> tuple[Quantity, ...]:
        del entry
        return ("mean", "squares")

    def exact(self, entry: RecordPlan, state: Mapping[str, np.ndarray], quantity: Quantity) -> Array:
        sums = state["mean"] * state["count"][:, None]
        exact: Array = sums if quantity == "mean" else state["squares"] + sums * state["mean"]
        return exact / positions_of(entry)

    def state(self, entry: RecordPlan, units: Rows, sums: Mapping[Quantity, Array]) -> dict[str, Any]:
        mean = _per_unit(sums["mean"], units)
        variance = (_per_unit(sums["squares"], units) - mean**2).clip(min=0)
        count = units * positions_of(entry)
        return {"count": count, "mean": mean, "squares": variance * count[:, None]}


class _Spectrum:
    """The covariance of the noised second moment and mean, each brought back to the positive semi-definite."""

    def quantities(self, entry: RecordPlan) -> tuple[Quantity, ...]:
        del entry
        return ("mean", "second-moment")

    def exact(self, entry: RecordPlan, state: Mapping[str, np.ndarray], quantity: Quantity) -> Array:
        mean, count = state["mean"], state["count"]
        if quantity == "mean":
            exact: Array = mean * count[:, None]
        else:
            exact = state["comoment"] + mean[:, :, None] * mean[:, None, :] * count[:, None, None]
        return exact / positions_of(entry)

    def state(self, entry: RecordPlan, units: Rows, sums: Mapping[Quantity, Array]) -> dict[str, Any]:
        count = units * positions_of(entry)
        mean = _per_unit(sums["mean"], units)
        comoment = np.zeros_like(sums["second-moment"])
        for row in np.flatnonzero(units):
            second = positive_part(sums["second-moment"][row] / units[row])
            comoment[row] = positive_part(second - np.outer(mean[row], mean[row])) * count[row]
        return {"count": count, "mean": mean, "comoment": comoment}


class _SecondMoment:
    """The form's own sums; every symmetric matrix brought back to the positive semi-definite."""

    _BY_FORM: ClassVar[Mapping[str, Mapping[Quantity, str]]] = {
        "full": {"second-moment": "matrix"},
        "diagonal": {"squares": "diagonal"},
        "toeplitz": {"lags": "lags"},
        "kronecker": {"channels": "channels", "taps": "taps"},
    }

    def quantities(self, entry: RecordPlan) -> tuple[Quantity, ...]:
        return ("mean", *self._BY_FORM[entry.configuration["form"]])

    def exact(self, entry: RecordPlan, state: Mapping[str, np.ndarray], quantity: Quantity) -> Array:
        sums: Array = state["sum" if quantity == "mean" else self._BY_FORM[entry.configuration["form"]][quantity]]
        return sums / positions_of(entry) / (self._weights(entry) if quantity == "lags" else 1)

    def state(self, entry: RecordPlan, units: Rows, sums: Mapping[Quantity, Array]) -> dict[str, Any]:
        count = units * positions_of(entry)
        found = {"count": count, "sum": _per_unit(sums["mean"], units, count)}
        for quantity, name in self._BY_FORM[entry.configuration["form"]].items():
            values = _per_unit(sums[quantity], units)
            if quantity == "lags":
                values = self._lags(entry, values * self._weights(entry))
            elif quantity == "squares":
                values = values.clip(min=0)
            else:
                values = _positive_parts(values)
            found[name] = values * count.reshape(-1, *[1] * (values.ndim - 1))
        return found

    def _weights(self, entry: RecordPlan) -> Array:
        """``[lags, 1, 1]``: the root of how many pairs of taps each lag adds up."""
        window = _window(entry)
        pairs = np.array([window.pairs(lag) for lag in window.lags()], np.float64)
        return np.sqrt(pairs)[:, None, None]

    def _lags(self, entry: RecordPlan, lags: Array) -> Array:
        """Lag 0 made positive semi-definite, and no other larger than it allows; readers repair the whole matrix."""
        pairs = self._weights(entry) ** 2
        means = lags / pairs
        means[..., 0, :, :] = _positive_parts(means[..., 0, :, :])
        roots = np.sqrt(np.diagonal(means[..., 0, :, :], axis1=-2, axis2=-1))
        bound = (roots[..., :, None] * roots[..., None, :])[..., None, :, :]
        clipped: Array = np.clip(means, -bound, bound) * pairs
        return clipped


class _Histogram:
    """Noised whole numbers in a fixed set of bins; no unit is counted bin by bin."""

    def quantities(self, entry: RecordPlan) -> tuple[Quantity, ...]:
        del entry
        return ("bins",)

    def exact(self, entry: RecordPlan, state: Mapping[str, np.ndarray], quantity: Quantity) -> Array:
        del entry, quantity
        exact: Array = state["counts"][:, self._bins()]
        return exact

    def state(self, entry: RecordPlan, units: Rows, sums: Mapping[Quantity, Array]) -> dict[str, Any]:
        del entry
        counts = np.zeros((len(units), KINDS.load("histogram", "spec").PATTERNS), np.int64)
        counts[:, self._bins()] = np.where(units[:, None] > 0, sums["bins"], 0)
        # The threshold has judged the bins: every one that is left counts as touched by all units of its group.
        return {"count": units, "counts": counts, "units": np.where(counts > 0, units[:, None], 0)}

    def _bins(self) -> Rows:
        found: Rows = KINDS.load("histogram", "spec").BINS_BY_VALUE
        return found


def _per_unit(sums: Array, units: Rows, times: Rows | None = None) -> Array:
    """``[G, ...]`` sums over how many units there are, by group; 0 where there are none."""
    share = np.where(units > 0, (1 if times is None else times) / units.clip(min=1), 0.0)
    found: Array = sums * share.reshape(-1, *[1] * (sums.ndim - 1))
    return found


def _positive_parts(matrices: Array) -> Array:
    """:func:`positive_part` of each of ``[..., d, d]``."""
    found = np.empty_like(matrices)
    for place in np.ndindex(matrices.shape[:-2]):
        found[place] = positive_part(matrices[place])
    return found


MECHANISMS: Mapping[str, Mechanism] = {
    "moments": _Moments(),
    "spectrum": _Spectrum(),
    "second-moment": _SecondMoment(),
    "histogram": _Histogram(),
}
"""Kind to mechanism. A kind that is not here cannot be published with differential privacy."""
