"""A ridge on a second moment: no more than it takes, told in units of the mean of the moment's diagonal.

Recorded moments are often of low rank, where there were fewer samples than features, and may be indefinite by
rounding. Whatever inverts or factorises one first adds to its diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DAMPING = 1e-6
# What damping is raised to where a factorisation fails without any, and by what factor from then on. The most is far
# beyond the moment itself; only numbers that are no moment at all need more.
_FIRST, _RAISED, _MOST = 1e-6, 10.0, 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Damped:
    """A moment with what was added to make it positive definite.

    Attributes:
        moment: ``[d, d]``.
        lower: ``[d, d]`` lower triangular L, ``L L^T`` being that moment.
        damping: what was added to the diagonal, in units of its mean; of 1 where that is 0.
    """

    moment: Array
    lower: Array
    damping: float


def require_moment(moment: Array, damping: float) -> None:
    """Refuse numbers that are no second moment, and damping that adds nothing.

    Raises:
        ValueError: numbers that are not finite, below 0 on the diagonal, or damping that is not above 0.
    """
    if not damping > 0 or not np.isfinite(moment).all() or float(np.diagonal(moment).min(initial=0.0)) < 0:
        raise ValueError(f"damping {damping:g} and a moment that is not one")


def unit(moment: Array) -> float:
    """What damping is told in: the mean of the diagonal's absolute values; 1 where that is 0."""
    return (float(np.abs(np.diagonal(moment)).mean()) if len(moment) else 0.0) or 1.0


def ridged(moment: Array, ridge: float) -> Array:
    """A copy with ``ridge`` added to the diagonal."""
    found = np.array(moment, np.float64)
    found.flat[:: len(found) + 1] += ridge
    return found


def damped(moment: Array, damping: float = DAMPING) -> Damped:
    """Add to a moment's diagonal until a Cholesky factorisation goes through.

    Args:
        moment: ``[d, d]``, symmetric.
        damping: the least, in units of the mean of its diagonal, above 0; ten times as much at each further try.

    Raises:
        ValueError: numbers that are no second moment.
    """
    require_moment(moment, damping)
    return factorised(moment, damping, unit(moment))


def factorised(moment: Array, damping: float, scale: float) -> Damped:
    """As :func:`damped`, of any symmetric matrix and from any damping of 0 or more, told in units of ``scale``.

    Raises:
        ValueError: a matrix that no ridge makes positive definite.
    """
    while damping <= _MOST:
        found = ridged(moment, damping * scale)
        lower = _lower(found)
        if lower is not None:
            return Damped(found, lower, damping)
        damping = max(damping * _RAISED, _FIRST)
    raise ValueError(f"a second moment that is not positive definite with {_MOST:g} times its mean diagonal")


def _lower(moment: Array) -> Array | None:
    """L of ``moment = L L^T``; None where that is not positive definite."""
    try:
        found = np.asarray(np.linalg.cholesky(moment), np.float64)
    except np.linalg.LinAlgError:
        return None
    scale = np.diagonal(found)
    return found if bool(np.isfinite(scale).all() and (scale > 0).all()) else None
