"""Frequent Directions: a few rows whose Gram matrix stands for that of a long stream of rows.

E. Liberty, "Simple and deterministic matrix sketching", KDD 2013, arXiv:1206.0594; M. Ghashami, E. Liberty,
J. M. Phillips, D. P. Woodruff, "Frequent Directions: simple and deterministic matrix sketching", SIAM Journal on
Computing 45(5), 2016, arXiv:1501.01711: the bound below and that it survives merging.

A sketch of ``l`` directions is a buffer of ``2 l`` rows. When it is full, it is rotated so that its rows are
orthogonal, and ``t``, its (l + 1)-th largest squared singular value, is taken from every squared singular value: at
most ``l`` rows are left. With ``A`` all rows that ever came in, ``B`` the rows held and ``T`` the sum of all ``t``:

1. ``0 <= A^T A - B^T B <= T`` (as symmetric matrices, between 0 and T times the identity): each shrinking lowers
   ``B^T B`` by a matrix that lies between 0 and ``t``.
2. ``T <= |A - A_k|_F^2 / (l + 1 - k)`` for every ``k <= l``, with ``A_k`` the best approximation of rank k. Each
   shrinking takes at least ``(l + 1) t`` from ``|B|_F^2``, so ``(l + 1) T <= |A|_F^2 - |B|_F^2``; and by 1,
   ``|B|_F^2`` is at least the sum over the k leading right singular vectors v of A of ``|A v|^2 - T``. This is
   slightly better than the published ``1 / (l - k)``, which takes the l-th value and keeps ``l - 1`` rows.
3. A stream of rank ``l`` or less loses nothing: every ``t`` is 0.
4. Appending the rows of one sketch to another and adding their ``T`` gives a sketch of both streams: the proofs of 1
   and 2 do not ask where a row came from.

``T`` is known afterwards, and is often far below the right side of 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def append(buffer: Rows, filled: int, rows: Rows) -> tuple[int, float]:
    """Take rows into a sketch, in place, shrinking it each time that it is full.

    One shrinking makes room for l rows or more, so that a row costs about ``6 l d`` multiplications.

    Args:
        buffer: ``[2 l, d]``; the first ``filled`` rows are the sketch, the rest is 0.
        filled: rows in use.
        rows: ``[n, d]`` to take in, any n.

    Returns:
        Rows in use now, and by how much more ``B^T B`` may lie below ``A^T A`` (what was subtracted; see above).
    """
    capacity, subtracted, taken = len(buffer), 0.0, 0
    while taken < len(rows):
        if filled == capacity:
            left, loss = shrunk(buffer, capacity // 2)
            filled, subtracted = len(left), subtracted + loss
            buffer[:filled], buffer[filled:] = left, 0
        step = min(capacity - filled, len(rows) - taken)
        buffer[filled : filled + step] = rows[taken : taken + step]
        filled, taken = filled + step, taken + step
    return filled, subtracted


def shrunk(rows: Rows, kept: int) -> tuple[Rows, float]:
    """At most ``kept`` orthogonal rows in place of these.

    The rotation comes from the small matrix ``rows rows^T``. Its eigenvectors are off by rounding only, and what that
    adds to the Gram matrix of the result is about 1e-16 times its largest eigenvalue, no more than a co-moment that is
    summed without any sketch loses: small singular values come out wrong, but they are small.

    Args:
        rows: ``[m, d]``.
        kept: l, below m.

    Returns:
        ``[l or fewer, d]``, falling in length; and the squared length t that every direction lost at most.
    """
    values, vectors = np.linalg.eigh(rows @ rows.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    loss = max(float(values[kept]), 0.0)
    # The k-th new row is u_k^T rows, shortened from the square root of values[k] to that of values[k] - loss.
    count = int((values > loss).sum())
    scale = np.sqrt(1 - loss / values[:count])
    short: Rows = (vectors[:, :count] * scale).T @ rows
    return short, loss
