"""Spectra, pairs and histograms: their configurations and their numbers."""

from __future__ import annotations

import numpy as np

from vectors.drafts import Draft, cases_of, drop, put
from vectors.kind_records import (
    F32,
    binned,
    cross_spectrum,
    crossed,
    floats,
    histogram,
    second_moment,
    spectral,
    spectrum,
    with_configuration,
    with_grouped,
)
from vectors.manifests import add, grouped, small

_invalid, _valid = cases_of("numbers", clause="5.4", base=small)
_NAN = np.float32("nan")


def _by_class(draft: Draft) -> None:
    """Every kind by class."""
    made = {
        "spectrum": spectrum(),
        "cross-spectrum": cross_spectrum(),
        "histogram": histogram(),
        "second-moment": second_moment(),
    }
    for kind, each in made.items():
        with_grouped(kind, each)(draft)


CASES = (
    _invalid(
        "spectrum-that-merges",
        code="not-mergeable",
        clause="4.7",
        comment="What was truncated is missing.",
        draft=spectral(),
        change=put("records/1/mergeable", True),
    ),
    _invalid(
        "pair-without-partner",
        code="missing-member",
        clause="4.7",
        comment="A kind that relates two sites.",
        draft=crossed(),
        change=drop("records/1/paired_site"),
    ),
    _invalid(
        "spectrum-without-rank",
        code="bad-configuration",
        comment="How many pairs?",
        draft=with_configuration("spectrum", spectrum(), rank=None),
    ),
    _invalid(
        "rank-above-features",
        code="bad-configuration",
        comment="Three pairs of two features.",
        draft=with_configuration("spectrum", spectrum(), rank=3),
    ),
    _invalid(
        "rank-is-true",
        code="bad-configuration",
        comment="True is not 1.",
        draft=with_configuration("spectrum", spectrum(), rank=True),
    ),
    _invalid(
        "sketch-below-rank",
        code="bad-configuration",
        comment="A sketch of fewer directions than pairs.",
        draft=with_configuration("spectrum", spectrum(), sketch=1),
    ),
    _invalid(
        "paired-features-of-nothing",
        code="bad-configuration",
        comment="A site without features.",
        draft=with_configuration("cross-spectrum", cross_spectrum(), paired_feature_count=0),
    ),
    _invalid(
        "rising-eigenvalues",
        code="unsorted",
        comment="The largest comes first.",
        draft=spectral(eigenvalues=floats(1, 2)),
    ),
    _invalid(
        "negative-eigenvalue",
        code="negative",
        comment="A covariance has none.",
        draft=spectral(eigenvalues=floats(1, -1)),
    ),
    _invalid(
        "negative-residual",
        code="negative",
        comment="A trace below 0.",
        draft=spectral(residual_trace=np.array(-1, F32)),
    ),
    _invalid(
        "long-eigenvector",
        code="not-orthonormal",
        comment="A vector of length 2.",
        draft=spectral(eigenvectors=np.array([[2, 0], [0, 1]], F32)),
    ),
    _invalid(
        "skew-eigenvectors",
        code="not-orthonormal",
        comment="Two vectors that are not orthogonal.",
        draft=spectral(eigenvectors=np.array([[1, 0], [0.6, 0.8]], F32)),
    ),
    _invalid(
        "endless-eigenvector",
        code="not-orthonormal",
        comment="A square that overflows.",
        draft=spectral(eigenvectors=np.array([[1e38, 0], [0, 1]], F32)),
    ),
    _invalid(
        "eigenvector-of-nan",
        code="not-finite",
        comment="NaN.",
        draft=spectral(eigenvectors=np.array([[1, 0], [0, _NAN]], F32)),
    ),
    _invalid(
        "spectrum-of-nothing",
        code="filler",
        comment="Eigenvalues of no units.",
        draft=spectral(count=np.array(0), mean=floats(0, 0), eigenvectors=np.zeros((2, 2), F32)),
    ),
    _invalid(
        "rising-singular-values",
        code="unsorted",
        comment="The largest comes first.",
        draft=crossed(singular_values=floats(1, 2)),
    ),
    _invalid(
        "half-a-pair",
        code="incomplete-pair",
        comment="A left vector without a right one.",
        draft=crossed(singular_values=floats(2, 0), right=np.array([[1, 0], [0, 0]], F32)),
    ),
    _invalid(
        "value-without-vectors",
        code="incomplete-pair",
        comment="A singular value of no vectors.",
        draft=crossed(left=np.array([[1, 0], [0, 0]], F32), right=np.array([[1, 0], [0, 0]], F32)),
    ),
    _invalid(
        "skew-right-vectors",
        code="not-orthonormal",
        comment="Two vectors that are not orthogonal.",
        draft=crossed(right=np.array([[1, 0], [0.6, 0.8]], F32)),
    ),
    _invalid(
        "negative-bin",
        code="negative",
        comment="Fewer values than none.",
        draft=binned(count=np.array(79), counts=np.array([60, -1, 20])),
    ),
    _invalid(
        "bin-of-infinity",
        code="unknown-bin",
        comment="Infinity has no bin.",
        draft=binned(bins=np.array([6144, 0, 4080])),
    ),
    _invalid(
        "bin-of-denormals",
        code="unknown-bin",
        comment="Denormals are in bin 0.",
        draft=binned(bins=np.array([6144, 0, 1])),
    ),
    _invalid(
        "bins-by-pattern",
        code="unsorted",
        comment="By pattern and not by value.",
        draft=binned(bins=np.array([0, 2032, 6144])),
    ),
    _invalid("bin-twice", code="unsorted", comment="A bin twice.", draft=binned(bins=np.array([6144, 0, 0]))),
    _invalid("counts-do-not-add-up", code="not-a-sum", comment="One value too few.", draft=binned(count=np.array(81))),
    _invalid(
        "counts-wrap-round",
        code="not-a-sum",
        comment="A sum that is right modulo 2^64 only.",
        draft=binned(bins=np.array([6144, 0, 16, 2032]), counts=np.array([2**62, 2**62, 2**62, 2**62 + 80])),
    ),
    _invalid(
        "bins-and-counts",
        code="wrong-shape",
        comment="Three bins, two counts.",
        draft=binned(count=np.array(70), counts=np.array([60, 10])),
    ),
    _valid("kind-spectrum", comment="A spectrum.", draft=spectral()),
    _valid(
        "kind-spectrum-sketch",
        comment="A sketched spectrum has a bound.",
        draft=lambda draft: add(
            draft,
            "spectrum",
            spectrum()[0] | {"error_bound": np.array(0.5, F32)},
            configuration={"rank": 2, "sketch": 2},
        ),
    ),
    _valid(
        "kind-spectrum-of-fewer",
        comment="A group may keep fewer pairs than there is room for.",
        draft=spectral(eigenvalues=floats(2, 0), eigenvectors=np.array([[1, 0], [0, 0]], F32)),
    ),
    _valid("kind-cross-spectrum", comment="A pair of sites.", draft=crossed()),
    _valid("kind-histogram", comment="A histogram.", draft=binned()),
    _valid(
        "kind-histogram-of-nothing",
        comment="No bin in use.",
        draft=binned(count=np.array(0), bins=np.zeros(0, np.int64), counts=np.zeros(0, np.int64)),
    ),
    _valid(
        "every-kind-by-class",
        base=grouped,
        comment="A row for each class, zeros for what was not seen.",
        draft=_by_class,
    ),
)
