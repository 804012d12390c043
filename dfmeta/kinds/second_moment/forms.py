"""What each form sums up over a batch, and how its published matrices come from the sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.products import batches, gram, patches, sums, tap_sums
from dfmeta.kinds.second_moment.toeplitz import lag_sums

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Form:
    """One form over one operator's input.

    Attributes:
        name: of the form.
        features: d.
        window: of a convolution; None for a matrix product.
    """

    name: str
    features: int
    window: Window | None

    def require(self, samples: Tensor) -> None:
        """ValueError for samples that this operator does not read."""
        wanted: list[int | str] = ["n", self.features]
        if self.window is not None:
            channels = self.features // self.window.taps * self.window.groups
            wanted = ["n", channels, *("size" for _ in self.window.kernel)]
        if samples.dim() != len(wanted) or samples.shape[1] != wanted[1]:
            raise ValueError(f"samples {list(samples.shape)}, not [{', '.join(map(str, wanted))}]")

    def published(self, means: Mapping[str, Array]) -> dict[str, Array]:
        """The form's matrices from the sums over the count: ``[..., d, d]``, or ``[..., d]`` for a diagonal."""
        if self.name == "kronecker":
            return _factors(means["channels"], means["taps"])
        if self.name == "toeplitz" and self.window is not None:
            pairs = np.array([self.window.pairs(lag) for lag in self.window.lags()], np.float64)
            lags = means["lags"] / pairs[:, None, None]
            # Equal to its own transpose but for rounding, and readers rely on it.
            lags[..., 0, :, :] = (lags[..., 0, :, :] + lags[..., 0, :, :].swapaxes(-2, -1)) / 2
            return {"lags": lags}
        return {name: values for name, values in means.items() if name != "sum"}


def state_shapes(form: str, features: int, window: Window | None) -> dict[str, tuple[int, ...]]:
    """The sums that a form keeps for one group of units, and their shapes."""
    lead = () if window is None else (window.groups,)
    shapes: dict[str, tuple[int, ...]] = {"sum": (*lead, features)}
    if form == "diagonal":
        return shapes | {"diagonal": (*lead, features)}
    if form == "full" or window is None:
        return shapes | {"matrix": (*lead, features, features)}
    channels = features // window.taps
    if form == "toeplitz":
        return shapes | {"lags": (*lead, window.lag_count, channels, channels)}
    return shapes | {"channels": (*lead, channels, channels), "taps": (*lead, window.taps, window.taps)}


def form_sums(form: Form, value: Tensor) -> tuple[int, dict[str, Tensor]]:
    """Samples in a batch, and the form's sums over them.

    Args:
        form: which.
        value: ``[n, d]`` rows, or the map ``[n, c, *spatial]``; float32 or float64.

    Returns:
        The count, and float64 tensors of the shapes that :func:`state_shapes` gives.
    """
    if form.window is None:
        squares = sums(value * value) if form.name == "diagonal" else gram(value)
        return len(value), {"sum": sums(value), "diagonal" if form.name == "diagonal" else "matrix": squares}
    window = form.window
    found = {"sum": tap_sums(sums(value), window)}
    if form.name == "diagonal":
        found["diagonal"] = tap_sums(sums(value * value), window)
    elif form.name == "toeplitz":
        found["lags"] = lag_sums(value, window)
    elif form.name == "kronecker":
        found |= _kronecker_sums(value, window)
    else:
        found["matrix"] = _full_sums(value, window)
    return len(value) * math.prod(window.output_sizes(value.shape[2:])), found


def _full_sums(value: Tensor, window: Window) -> Tensor:
    """``[g, d, d]``: every pair of features of a patch."""
    positions = math.prod(window.output_sizes(value.shape[2:]))
    parts = batches(value, value.shape[1] * window.taps * positions)
    total = gram(patches(next(parts), window))
    for part in parts:
        total += gram(patches(part, window))
    return total


def _kronecker_sums(value: Tensor, window: Window) -> dict[str, Tensor]:
    """Sums over taps of the products of channels ``[g, C, C]``, and over channels of those of taps ``[g, K, K]``."""
    positions = math.prod(window.output_sizes(value.shape[2:]))
    channels = value.shape[1] // window.groups
    found: dict[str, Tensor] = {}
    for part in batches(value, value.shape[1] * window.taps * positions):
        rows = patches(part, window)
        rows = rows.reshape(*rows.shape[:2], channels, window.taps)
        sums_of = {"channels": gram(rows.transpose(2, 3).flatten(1, 2)), "taps": gram(rows.flatten(1, 2))}
        found = {name: values + found[name] if found else values for name, values in sums_of.items()}
    return found


def _factors(channels: Array, taps: Array) -> dict[str, Array]:
    """Both partial traces, scaled so that the trace of their Kronecker product is that of the whole matrix.

    Args:
        channels: ``[..., C, C]``, summed over taps.
        taps: ``[..., K, K]``, summed over channels; of the same trace.
    """
    trace = np.trace(channels, axis1=-2, axis2=-1)[..., None, None]
    size = taps.shape[-1]
    share = np.divide(size, trace, out=np.zeros_like(trace), where=trace > 0)
    return {"channels": channels / size, "taps": taps * share}
