"""What a record's configuration says: the form, and the window of a convolution. Nothing of it is trusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMS = ("full", "toeplitz", "kronecker", "diagonal")
STORAGES = ("float32", "float16", "int8")
WINDOW_KEYS = ("kernel", "strides", "dilations", "pads", "groups")
# Larger than any that exists, and small enough that products of a few of them are cheap to form.
MAX_EXTENT = 65_535
MAX_GROUPS = 2**20

Lag = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's kernel over one to three spatial axes; one entry for each axis.

    Attributes:
        kernel: size.
        strides: step.
        dilations: distance between taps.
        before: zero padding at the start.
        after: zero padding at the end.
        groups: convolution groups.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int

    @property
    def taps(self) -> int:
        """K, the number of kernel positions."""
        return math.prod(self.kernel)

    @property
    def lag_count(self) -> int:
        """How many lags :meth:`lags` lists, without listing them."""
        return (math.prod(2 * size - 1 for size in self.kernel) + 1) // 2

    def lags(self) -> list[Lag]:
        """Distances between two taps, in taps: zero, and of each two opposite ones that which is larger in order.

        By rising order, the first axis first: for a 3x3 kernel (0,0), (0,1), (0,2), (1,-2), (1,-1), ... (2,2).
        """
        every = itertools.product(*(range(1 - size, size) for size in self.kernel))
        return [lag for lag in every if lag >= (0,) * len(lag)]

    def pairs(self, lag: Lag) -> int:
        """How many pairs of taps lie that far apart."""
        return math.prod(size - abs(step) for size, step in zip(self.kernel, lag, strict=True))

    def output_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Output positions on each axis, for an input of these spatial sizes; none is below 0."""
        axes = zip(sizes, self.kernel, self.strides, self.dilations, self.before, self.after, strict=True)
        return tuple(max((n + b + a - (k - 1) * d - 1) // s + 1, 0) for n, k, s, d, b, a in axes)

    def tap_use(self, axis: int, size: int) -> NDArray[np.bool_]:
        """``[kernel, size]``: whether a tap meets that input position at some output position, on one axis."""
        outputs = self.output_sizes([size] * len(self.kernel))[axis]
        use = np.zeros((self.kernel[axis], size), np.bool_)
        for tap in range(self.kernel[axis]):
            met = np.arange(outputs) * self.strides[axis] + tap * self.dilations[axis] - self.before[axis]
            use[tap, met[(met >= 0) & (met < size)]] = True
        return use

    def lag_weight(self, axis: int, size: int, step: int) -> NDArray[np.float64]:
        """``[size]``: at how many pairs of taps ``step`` apart the first tap meets each input position, on one axis.

        Where the second one then falls into the padding, its value is 0: such positions weigh nothing.
        """
        use = self.tap_use(axis, size)
        first = use[max(-step, 0) : len(use) - max(step, 0)]
        weight: NDArray[np.float64] = first.sum(0).astype(np.float64)
        met = np.arange(size) + step * self.dilations[axis]
        weight[(met < 0) | (met >= size)] = 0
        return weight


def form_of(configuration: Mapping[str, Any]) -> str:
    """``form``; ValueError for an unknown one."""
    return _one_of(configuration, "form", FORMS)


def storage_of(configuration: Mapping[str, Any]) -> str:
    """``storage``; ValueError for an unknown one, or for one that the form does not have."""
    storage = _one_of(configuration, "storage", STORAGES)
    if form_of(configuration) == "diagonal" and storage != "float32":
        raise ValueError(f"storage {storage!r} of a form that has no correlations, not 'float32'")
    return storage


def exact_of(configuration: Mapping[str, Any]) -> bool:
    """``exact``, false where it is not given; ValueError for what is not true or false."""
    exact = configuration.get("exact", False)
    if type(exact) is not bool:
        raise ValueError(f"exact {ascii(exact)[:40]}, not true or false")
    return exact


def window_of(features: int, configuration: Mapping[str, Any]) -> Window | None:
    """The convolution's window; None for the input of a matrix product.

    Args:
        features: d; the channels of one convolution group times its taps.
        configuration: of the record.

    Raises:
        ValueError: members that are missing, of another type, out of range or that contradict each other or d.
    """
    given = [key for key in WINDOW_KEYS if key in configuration]
    if not given:
        if form_of(configuration) in ("toeplitz", "kronecker"):
            raise ValueError(f"form {configuration['form']!r} without a kernel")
        return None
    if len(given) < len(WINDOW_KEYS):
        missing = [key for key in WINDOW_KEYS if key not in configuration]
        raise ValueError(f"a window without {', '.join(missing)}")
    kernel = _integers(configuration, "kernel", None, 1)
    axes = len(kernel)
    strides, dilations = (_integers(configuration, key, axes, 1) for key in ("strides", "dilations"))
    pads = _integers(configuration, "pads", 2 * axes, 0)
    groups = configuration["groups"]
    if type(groups) is not int or not 1 <= groups <= MAX_GROUPS:
        raise ValueError(f"groups {ascii(groups)[:40]}, not an integer from 1 to {MAX_GROUPS}")
    if features % math.prod(kernel):
        raise ValueError(f"kernel {list(kernel)}, whose positions do not divide {features} features")
    return Window(kernel, strides, dilations, pads[:axes], pads[axes:], groups)


def _one_of(configuration: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
    value = configuration.get(key)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key} {ascii(value)[:40]}, not one of {', '.join(known)}")
    return value


def _integers(configuration: Mapping[str, Any], key: str, length: int | None, least: int) -> tuple[int, ...]:
    values = configuration[key]
    if not isinstance(values, (list, tuple)) or not (
        1 <= len(values) <= 3 if length is None else len(values) == length
    ):
        raise ValueError(f"{key} {ascii(values)[:40]}, not a list of {length or '1 to 3'} integers")
    for value in values:
        # True is an int to Python.
        if type(value) is not int or not least <= value <= MAX_EXTENT:
            raise ValueError(f"{key} with {ascii(value)[:40]}, not an integer from {least} to {MAX_EXTENT}")
    return tuple(values)
