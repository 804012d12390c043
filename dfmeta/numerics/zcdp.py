"""Zero-concentrated differential privacy: noise, what it costs, and what that means as (epsilon, delta).

A mechanism M is rho-zCDP when for all neighbouring data sets and every order alpha > 1 the Rényi divergence obeys
``D_alpha(M(x) || M(x')) <= rho * alpha`` (M. Bun, T. Steinke, "Concentrated differential privacy", arXiv:1605.02658,
definition 1.1). Costs add over mechanisms that see the same data (lemma 1.7), and what is computed from a result
costs nothing more (lemma 1.8).

Floating point: a float64 Gaussian is not the real one, and its lowest bits can tell neighbours apart (I. Mironov,
"On significance of the least significant bits for differential privacy", CCS 2012). The integer noise below has no
such gap; it is sampled with whole numbers only.
"""

from __future__ import annotations

import math
import random
import secrets
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


class NoiseSource:
    """Where random numbers come from: the operating system's generator, or a seed.

    Args:
        seed: for tests and for nothing else: who knows it can take the noise off again. None asks the operating
            system (:mod:`secrets`), once for the floats' generator and anew for every integer.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._floats = np.random.default_rng(secrets.randbits(256) if seed is None else seed)
        self._whole: random.Random = secrets.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311

    def gaussian(self, shape: tuple[int, ...], sigma: float) -> NDArray[np.float64]:
        """Independent normal noise of standard deviation ``sigma``, float64."""
        return self._floats.normal(0.0, sigma, shape)

    def symmetric_gaussian(self, size: int, sigma: float) -> NDArray[np.float64]:
        """``[size, size]`` symmetric noise that hides a symmetric matrix of Frobenius sensitivity D.

        Entries on and above the diagonal are independent: variance ``sigma**2`` on it, ``sigma**2 / 2`` above it,
        mirrored below. Proof that this is the Gaussian mechanism with standard deviation ``sigma``: write a
        symmetric A as the vector v(A) of its diagonal and of sqrt(2) times its entries above it. Then
        ``|v(A) - v(B)|_2 = |A - B|_F``, so the sensitivity of v is D; noise of deviation ``sigma`` on each entry of
        v(A) is noise of deviation ``sigma / sqrt(2)`` on each entry above the diagonal; and A is computed from v(A).
        """
        noise = self.gaussian((size, size), sigma / math.sqrt(2))
        upper = np.triu(noise, 1)
        return upper + upper.T + np.diag(np.diag(noise) * math.sqrt(2))

    def discrete_gaussian(self, shape: tuple[int, ...], variance: Fraction) -> NDArray[np.int64]:
        """Integer noise with probabilities proportional to ``exp(-x**2 / (2 * variance))``, sampled exactly.

        C. L. Canonne, G. Kamath, T. Steinke, "The discrete Gaussian for differential privacy", arXiv:2004.00010,
        algorithms 1 to 3: whole numbers only, so no rounding tells anything. Tens of microseconds a number.

        Args:
            shape: of the result.
            variance: the parameter sigma squared, above 0.
        """
        total = math.prod(shape)
        scale = math.isqrt(variance.numerator // variance.denominator) + 1
        found = [self._discrete_gaussian(variance, scale) for _ in range(total)]
        return np.array(found, np.int64).reshape(shape)

    def _discrete_gaussian(self, variance: Fraction, scale: int) -> int:
        above, below = variance.numerator, variance.denominator
        while True:
            drawn = self._discrete_laplace(scale)
            # (|y| - variance / scale)^2 / (2 variance) as one fraction of whole numbers
            gap = abs(drawn) * scale * below - above
            if self._bernoulli_exp(gap * gap, 2 * above * below * scale * scale):
                return drawn

    def _discrete_laplace(self, scale: int) -> int:
        while True:
            rest = self._whole.randrange(scale)
            if not self._bernoulli_exp(rest, scale):
                continue
            whole = 0
            while self._bernoulli_exp(1, 1):
                whole += 1
            magnitude = rest + scale * whole
            negative = self._whole.randrange(2)
            if magnitude or not negative:
                return -magnitude if negative else magnitude

    def _bernoulli_exp(self, above: int, below: int) -> bool:
        """True with probability ``exp(-above / below)``."""
        while above > below:
            if not self._bernoulli_exp(1, 1):
                return False
            above -= below
        step = 1
        while self._whole.randrange(below * step) < above:
            step += 1
        return step % 2 == 1


def gaussian_sigma(sensitivity: float, rho: float) -> float:
    """Standard deviation of the noise with which a sum of that L2 sensitivity is rho-zCDP.

    ``sigma**2 = sensitivity**2 / (2 * rho)``: Bun and Steinke, proposition 1.6; the same for the discrete Gaussian on
    integer vectors (Canonne, Kamath and Steinke, theorem 14).

    Args:
        sensitivity: largest L2 distance between the sums of neighbouring data sets.
        rho: the budget, above 0.
    """
    return sensitivity / math.sqrt(2 * rho)


def discrete_variance(sensitivity: float, rho: float) -> Fraction:
    """Parameter of the discrete Gaussian with which integer sums of that L2 sensitivity are rho-zCDP.

    The square of :func:`gaussian_sigma`, computed exactly and rounded up to a multiple of 2**-20, so that the whole
    numbers in sampling stay short.
    """
    exact = Fraction(sensitivity) ** 2 / (2 * Fraction(rho))
    return Fraction(max(1, math.ceil(exact * 2**20)), 2**20)


def epsilon_simple(rho: float, delta: float) -> float:
    """An epsilon for which rho-zCDP is (epsilon, delta)-DP: ``rho + 2 sqrt(rho ln(1 / delta))``.

    Bun and Steinke, proposition 1.3.
    """
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def epsilon(rho: float, delta: float) -> float:
    """The smallest epsilon that corollary 13 of Canonne, Kamath and Steinke gives for rho-zCDP and this delta.

    rho-zCDP is (epsilon, delta)-DP with ``delta = inf over alpha > 1 of
    exp((alpha - 1)(alpha rho - epsilon)) / (alpha - 1) * (1 - 1 / alpha) ** alpha``. Solved for epsilon, each alpha
    gives a valid one, so that the search over alpha need only be good, not perfect.

    Args:
        rho: the budget, above 0.
        delta: above 0 and below 1.

    Returns:
        Epsilon, at least 0, never above :func:`epsilon_simple`.
    """
    # The optimum lies near 1 + sqrt(ln(1 / delta) / rho); the grid is wide around it, then closes in.
    centre, width = math.log(max(math.sqrt(math.log(1 / delta) / rho), 1e-12)), 8.0
    best = math.inf
    for _ in range(12):
        exponents = np.linspace(centre - width, centre + width, 129)
        values = [_epsilon_at(1 + math.exp(exponent), rho, delta) for exponent in exponents]
        least = int(np.argmin(values))
        best = min(best, values[least])
        centre, width = float(exponents[least]), width / 16
    return max(0.0, min(best, epsilon_simple(rho, delta)))


def _epsilon_at(alpha: float, rho: float, delta: float) -> float:
    less = alpha - 1
    return alpha * rho + (math.log(1 / delta) - math.log(alpha)) / less + math.log(less / alpha)


def positive_part(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest positive semi-definite matrix in Frobenius norm: negative eigenvalues become 0.

    N. J. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra and its Applications
    103, 1988, theorem 2.1.

    Args:
        matrix: ``[d, d]``, symmetric.
    """
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 0
    part = vectors[:, kept]
    product: NDArray[np.float64] = (part * values[kept]) @ part.T
    return (product + product.T) / 2
