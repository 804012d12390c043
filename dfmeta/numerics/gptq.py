"""Rounding a weight to few levels so that its product with what it reads changes least.

A linear map ``W [o, d]`` reads x with second moment ``H = E[x x^T]``; a rounded map ``V`` then errs by
``E|W x - V x|^2 = tr((W - V) H (W - V)^T)``. Columns are rounded one after the other, and each later column makes up
for the errors of the earlier ones (Frantar et al., "GPTQ", 2023, arXiv:2210.17323). The recursion used here is that of
Chee et al., "QuIP", 2023, arXiv:2307.13304, section 3: with ``H = U D U^T``, U unit upper triangular and D diagonal,
the error is ``sum_k D_kk |sum_{j <= k} (W - V)_j U_jk|^2``, so that column k is rounded from
``W_k + sum_{j < k} (W - V)_j U_jk``. Their theorem 6 says that this gives GPTQ's own numbers; it needs one Cholesky
factorisation and no inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics import damping as ridge

Array = NDArray[np.float64]
Codes = NDArray[np.int8]
Indices = NDArray[np.int64]

DAMPING = 0.01
# Columns that are gathered at once, and those that are rounded one by one.
_BLOCK, _FEW = 64, 8


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A second moment, ordered, damped and factorised.

    Attributes:
        order: ``[d]`` the columns, last to be rounded first.
        lower: ``[d, d]`` L of the moment in that order, ``L L^T`` with the damping: lower triangular. Turned around by
            both axes, and each column over its diagonal, it is the module's U.
        damping: what was added to the diagonal, in units of its mean.
    """

    order: Indices
    lower: Array
    damping: float


def code_range(bits: int) -> tuple[int, int]:
    """Lowest and highest code: -127 to 127 for 8 bits, as integer kernels want it, all of them for fewer.

    Raises:
        ValueError: bits other than 2 to 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits, not 2 to 8")
    half = 1 << (bits - 1)
    return (1 - half if bits == 8 else -half), half - 1


def factorised(moment: Array, damping: float = DAMPING, *, ordered: bool = True) -> Factor:
    """What :func:`rounded` needs of a second moment.

    Args:
        moment: ``[d, d]``, symmetric.
        damping: ridge in units of the mean of the diagonal. A moment that is not positive definite then is damped ten
            times more, again and again, until it is.
        ordered: round the columns of large ``E[x^2]`` first, while there are others left to make up for them; those
            that are equal but for rounding by rising place. Else as they come.

    Raises:
        ValueError: another shape, numbers that are not finite, or damping below 0.
    """
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1]:
        raise ValueError(f"a second moment of shape {moment.shape}")
    if not np.isfinite(moment).all() or not 0 <= damping < np.inf:
        raise ValueError("a second moment or a damping that is not finite, or damping below 0")
    diagonal = np.diagonal(moment)
    order = _order(diagonal) if ordered else np.arange(len(moment))
    turned = order[::-1].copy()
    arranged = moment[np.ix_(turned, turned)]
    # A moment of nothing but zeros is damped as if it were the identity.
    found = ridge.factorised(arranged, damping, ridge.unit(moment))
    return Factor(turned, found.lower, found.damping)


def _order(energies: Array) -> Indices:
    """Falling; energies that are equal but for rounding, to four digits of the largest, by rising place."""
    largest = float(energies.max(initial=0.0)) or 1.0
    return np.argsort(-np.round(energies / largest, 4), kind="stable")


def rounded(weight: Array, factor: Factor, scales: Array, low: int, high: int) -> Codes:
    """Codes with error feedback, column by column.

    Args:
        weight: ``[o, d]``.
        factor: of the moment of what it reads (:func:`factorised`).
        scales: ``[o]``, each above 0: a row's weight is its scale times its codes.
        low: least code.
        high: largest code.

    Returns:
        ``[o, d]`` int8; halves are rounded to the even code.

    Raises:
        ValueError: sizes that do not fit, or scales that are not above 0.
    """
    _check(weight, scales)
    if len(factor.order) != weight.shape[1]:
        raise ValueError(f"a moment of {len(factor.order)} features for a weight of shape {weight.shape}")
    given = np.empty(weight.shape[::-1])
    for start in range(0, len(given), _BLOCK):
        part = slice(start, start + _BLOCK)
        # In units of the scales, and features first, so that a column is one run of memory.
        given[part] = (weight[:, factor.order[part]] / scales[:, None]).T
    target, wrong = given.copy(), np.empty_like(given)
    _round(target, given, factor.lower, wrong, (low, high))
    codes = np.empty(weight.shape, np.int8)
    codes[:, factor.order] = target.T
    return codes


def _round(target: Array, given: Array, lower: Array, wrong: Array, limits: tuple[int, int]) -> None:
    """Round ``target [b, o]`` row by row, the last one first: half of them, what these leave to the rest, and the rest.

    Halving makes nearly all of the work products of large matrices.

    Args:
        target: to be rounded, but for the errors of these rows themselves; the codes are written there.
        given: what it was before any error.
        lower: ``[b, b]``, the factor of these rows.
        wrong: ``[b, o]``, what is missing to ``given``, written.
        limits: of the codes.
    """
    inverse = 1 / np.diagonal(lower)
    if len(target) > _FEW:
        half = len(target) // 2
        _round(target[half:], given[half:], lower[half:, half:], wrong[half:], limits)
        left = lower[half:, :half].T @ wrong[half:]
        left *= inverse[:half, None]
        target[:half] += left
        _round(target[:half], given[:half], lower[:half, :half], wrong[:half], limits)
        return
    back = np.ascontiguousarray((lower * inverse).T)
    for place in reversed(range(len(target))):
        row = target[place]
        row += back[place, place + 1 :] @ wrong[place + 1 :]
        np.rint(row, out=row)
        np.maximum(row, limits[0], out=row)
        np.minimum(row, limits[1], out=row)
        np.subtract(given[place], row, out=wrong[place])


def nearest(weight: Array, scales: Array, low: int, high: int) -> Codes:
    """Each entry rounded by itself: ``[o, d]`` int8.

    Raises:
        ValueError: as :func:`rounded`.
    """
    _check(weight, scales)
    return np.clip(np.rint(weight / scales[:, None]), low, high).astype(np.int8)


def error(difference: Array, moment: Array) -> Array:
    """``[o]``: E of the squared change of each output, ``dW_o H dW_o^T``.

    Args:
        difference: ``[o, d]``, the weight less its replacement.
        moment: ``[d, d]``, or its diagonal ``[d]``.
    """
    if moment.ndim == 1:
        weighed: Array = np.square(difference) @ moment
        return weighed
    found: Array = np.einsum("oi,oi->o", difference @ moment, difference)
    return found


def _check(weight: Array, scales: Array) -> None:
    if weight.ndim != 2 or scales.shape != weight.shape[:1]:
        raise ValueError(f"scales of shape {scales.shape} for a weight of shape {weight.shape}")
    if not np.isfinite(weight).all() or not np.isfinite(scales).all() or not (scales > 0).all():
        raise ValueError("weights or scales that are not finite, or scales that are not above 0")
