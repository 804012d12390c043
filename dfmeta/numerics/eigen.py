"""Leading eigenpairs and singular pairs of large matrices, the same bytes for the same matrix.

Where few pairs of a large matrix are wanted, they are sought by block Lanczos with full reorthogonalisation
(G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th edition, 2013, section 10.3) from a fixed random block. It is
wider than the number of pairs, so that repeated eigenvalues are found as often as they are wanted; C. Musco, C. Musco,
arXiv:1504.05477, has the rate of convergence. The residuals of the pairs are then measured, and the whole
decomposition is computed instead if one is too large. Residuals cannot show that a larger pair was missed; that would
take a random block with nothing in its direction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# |C v - value v| of an accepted pair, relative to the largest eigenvalue. Published vectors are float32.
RESIDUAL_TOLERANCE = 1e-10
# The search gives up once its basis is this share of the matrix, by when it has cost a tenth to a fifth of a whole
# decomposition; where that leaves it fewer blocks than these, it is not begun.
_LARGEST_BASIS = 1 / 6
_FEWEST_BLOCKS = 12


def leading_eigenpairs(covariance: Matrix, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The ``rank`` largest eigenvalues, falling, and their unit eigenvectors as rows.

    The sign of an eigenvector means nothing; its entry of largest magnitude is made positive.

    Args:
        covariance: ``[d, d]``, symmetric and positive semi-definite up to rounding.
        rank: k, at most d.

    Returns:
        ``[k]`` and ``[k, d]`` float32; what rounding made negative is 0.
    """
    found = _sought(lambda block: covariance @ block, len(covariance), len(covariance), rank)
    if found is None:
        values, vectors = np.linalg.eigh(covariance)
        leading = np.arange(len(values))[::-1][:rank]
        found = values[leading], vectors.T[leading]
    return _published(*found)


def row_eigenpairs(rows: Matrix, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As :func:`leading_eigenpairs`, of ``rows^T rows``, which is never formed.

    Args:
        rows: ``[m, d]``.
        rank: k, at most m and at most d.
    """
    # The small Gram matrix gives the space of the leading vectors at once, but small ones inexactly: a basis of it is
    # made orthonormal, and the rows are decomposed within.
    turn = np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank]
    basis = np.linalg.qr((turn.T @ rows).T)[0]
    _, values, right = np.linalg.svd(rows @ basis, full_matrices=False)
    return _published(values**2, right @ basis.T)


def leading_singular_pairs(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    """The ``rank`` largest singular values, falling, with their left and right singular vectors as rows.

    The entry of largest magnitude of each left vector is positive.

    Args:
        matrix: ``[m, n]``.
        rank: k, at most m and at most n.

    Returns:
        ``[k]``, ``[k, m]`` and ``[k, n]`` float64.
    """
    found = _sought_singular(matrix, rank)
    if found is None:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        found = values[:rank], left.T[:rank], right[:rank]
    return _signed(*found)


def product_singular_pairs(left_rows: Matrix, right_rows: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """All pairs of ``left_rows^T right_rows`` as by :func:`leading_singular_pairs`; the product is never formed.

    Args:
        left_rows: ``[r, m]``.
        right_rows: ``[r, n]``.

    Returns:
        ``[k]``, ``[k, m]`` and ``[k, n]`` float64, with k the smallest of r, m and n.
    """
    left_basis, left_triangle = np.linalg.qr(left_rows.T)
    right_basis, right_triangle = np.linalg.qr(right_rows.T)
    left, values, right = np.linalg.svd(left_triangle @ right_triangle.T, full_matrices=False)
    return _signed(values, (left_basis @ left).T, right @ right_basis.T)


def _published(values: Matrix, rows: Matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = rows * _signs(rows)
    return values.clip(min=0).astype(np.float32), rows.astype(np.float32)


def _signed(values: Matrix, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    signs = _signs(left)
    return values, left * signs, right * signs


def _signs(rows: Matrix) -> Matrix:
    largest = np.abs(rows).argmax(axis=1)
    signs: Matrix = np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)[:, None]
    return signs


def _sought_singular(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix, Matrix] | None:
    """Leading pairs by the eigenpairs of ``[[0, M], [M^T, 0]]``, whose values are plus and minus the singular ones."""
    height, width = matrix.shape

    def apply(block: Matrix) -> Matrix:
        return np.concatenate([matrix @ block[height:], matrix.T @ block[:height]])

    # A Krylov basis of the doubled matrix must be twice as large as one of either side.
    found = _sought(apply, height + width, 2 * min(height, width), rank)
    if found is None:
        return None
    # Where a singular value is small, its pair mixes with that of the opposite sign: the two halves are made
    # orthonormal each, and rotated so that they diagonalise the matrix between them.
    left_basis = np.linalg.qr(found[1][:, :height].T)[0]
    right_basis = np.linalg.qr(found[1][:, height:].T)[0]
    left, values, right = np.linalg.svd(left_basis.T @ (matrix @ right_basis))
    left, right = (left_basis @ left).T, right @ right_basis.T
    residual = max(
        np.linalg.norm(right @ matrix.T - values[:, None] * left, axis=1).max(),
        np.linalg.norm(left @ matrix - values[:, None] * right, axis=1).max(),
    )
    return (values, left, right) if residual <= 10 * RESIDUAL_TOLERANCE * values[0] else None


def _sought(apply: Callable[[Matrix], Matrix], size: int, worth: int, rank: int) -> tuple[Matrix, Matrix] | None:
    """``[k]`` values and ``[k, size]`` vectors of a symmetric operator, or None where that is not worth it.

    The whole decomposition costs about that of a ``[worth, worth]`` matrix.
    """
    width = rank + max(8, rank // 4)
    blocks = int(worth * _LARGEST_BASIS) // width
    if not rank or blocks < _FEWEST_BLOCKS:
        return None
    basis, images = np.empty((size, blocks * width)), np.empty((size, blocks * width))
    projected = np.zeros((blocks * width, blocks * width))
    block = np.linalg.qr(np.random.default_rng(0).standard_normal((size, width)))[0]
    for end in range(width, blocks * width + 1, width):
        new = slice(end - width, end)
        basis[:, new], images[:, new] = block, apply(block)
        block, projected[:end, new], beyond = _next(basis[:, :end], images[:, new])
        projected[new, :end] = projected[:end, new].T
        values, turn = np.linalg.eigh(projected[:end, :end])
        values, turn = values[::-1][:rank], turn[:, ::-1][:, :rank]
        # By the Lanczos relation this is the residual of each pair.
        if np.linalg.norm(beyond @ turn[-width:], axis=0).max() <= RESIDUAL_TOLERANCE * abs(values[0]):
            vectors = basis[:, :end] @ turn
            return (values, vectors.T) if _holds(images[:, :end] @ turn, values, vectors) else None
    return None


def _next(basis: Matrix, image: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The next orthonormal block; what of ``image`` lies along the basis, and what along that block."""
    along = basis.T @ image
    rest = image - basis @ along
    rest -= basis @ (basis.T @ rest)
    block, beyond = np.linalg.qr(rest)
    # Once more where little was left, which is then mostly rounding.
    block -= basis @ (basis.T @ block)
    return np.linalg.qr(block)[0], along, beyond


def _holds(images: Matrix, values: Matrix, vectors: Matrix) -> bool:
    """Whether these are eigenpairs and orthonormal; measured, not inferred."""
    residual = np.linalg.norm(images - vectors * values, axis=0).max()
    skew = np.abs(vectors.T @ vectors - np.eye(len(values))).max()
    return bool(residual <= 10 * RESIDUAL_TOLERANCE * abs(values[0]) and skew <= 1e-12)
