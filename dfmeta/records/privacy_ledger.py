"""What the manifest says of the noise: every mechanism, what it cost, and what the whole means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dfmeta.numerics.zcdp import epsilon, epsilon_simple, gaussian_sigma

DELTAS = (1e-5, 1e-6)
NEIGHBOURS = "add or remove one unit, with its class"
COMPOSITION = (
    "rho adds over the mechanisms (Bun and Steinke, arXiv:1605.02658, lemma 1.7); each covers the sums of all classes "
    "at once, since a unit is in one class only (parallel composition)"
)
ACCOUNTANT = (
    "rho-zCDP to (epsilon, delta): Canonne, Kamath and Steinke, arXiv:2004.00010, corollary 13, minimised over alpha; "
    "epsilon_simple: Bun and Steinke, proposition 1.3"
)
POST_PROCESSING = (
    "counts rounded to whole units and cut off at 0; means are sums over counts",
    "second moments brought back to the nearest positive semi-definite matrix, variances cut off at 0",
    "spectra from the covariance that the noised second moment and mean imply",
    "records over all units from the noised classes where classes were kept apart",
    "classes whose noised count is below the minimum withheld",
)
FLOATING_POINT = (
    "Gaussian noise is sampled in float64, whose lowest bits the proof does not cover (Mironov, CCS 2012); "
    "integer noise is exact"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One noised quantity.

    Attributes:
        statistic: what was noised.
        rho: what it cost.
        sensitivity: how far one unit can move it, in L2.
        sigma: standard deviation of the noise; of the parameter, where the noise is whole numbers.
        noise: ``gaussian`` or ``discrete-gaussian``.
        site: the site's id, or None for the counts.
        features: how the site's axes became feature vectors.
        by_class: whether each class has a row of its own.
        kinds: the kinds of the records that read it.
        clip: largest root mean square of a unit's elements at the site.
    """

    statistic: str
    rho: float
    sensitivity: float
    noise: str
    site: str | None = None
    features: str | None = None
    by_class: bool | None = None
    kinds: tuple[str, ...] = ()
    clip: float | None = None

    @property
    def sigma(self) -> float:
        """The noise's deviation, which follows from sensitivity and rho."""
        return gaussian_sigma(self.sensitivity, self.rho)

    def plain(self) -> dict[str, Any]:
        """The entry in JSON types; what does not apply to it is left out."""
        known = {
            "statistic": self.statistic,
            "site": self.site,
            "features": self.features,
            "by_class": self.by_class,
            "kinds": list(self.kinds) or None,
            "noise": self.noise,
            "clip": self.clip,
            "sensitivity": self.sensitivity,
            "sigma": self.sigma,
            "rho": self.rho,
        }
        return {name: value for name, value in known.items() if value is not None}


def ledger(rho: float, entries: Sequence[Entry], left_out: Sequence[str]) -> dict[str, Any]:
    """The manifest's ``privacy.differential_privacy``.

    Args:
        rho: the whole budget.
        entries: what it was spent on; their rho add up to it.
        left_out: what could not be noised, and was not published.
    """
    statistics = list(dict.fromkeys(entry.statistic for entry in entries))
    allocation = {name: math.fsum(entry.rho for entry in entries if entry.statistic == name) for name in statistics}
    return {
        "definition": "zCDP",
        "rho": rho,
        "neighbours": NEIGHBOURS,
        "composition": COMPOSITION,
        "clipping": "each unit scaled to a root mean square of at most clip over its elements at the site",
        "mechanisms": [entry.plain() for entry in entries],
        "allocation": {**allocation, "total": math.fsum(allocation.values())},
        "approximate_dp": [
            {"delta": delta, "epsilon": epsilon(rho, delta), "epsilon_simple": epsilon_simple(rho, delta)}
            for delta in DELTAS
        ],
        "accountant": ACCOUNTANT,
        "post_processing": list(POST_PROCESSING),
        "floating_point": FLOATING_POINT,
        "left_out": list(left_out),
        # Noise on the records says nothing of what the weights remember.
        "covers_teacher": False,
    }
