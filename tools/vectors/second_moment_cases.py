"""Second moments: their configurations and their numbers."""

from __future__ import annotations

import numpy as np

from vectors.drafts import Draft, cases_of
from vectors.kind_records import (
    F32,
    correlations,
    diagonal,
    floats,
    image,
    second,
    second_moment,
    three,
    windowed,
    with_configuration,
    with_record,
)
from vectors.manifests import add, small

_invalid, _valid = cases_of("numbers", clause="5.4", base=small)
_NAN = np.float32("nan")


def _indefinite(draft: Draft) -> None:
    """Each entry is within the Cauchy-Schwarz bound, and an eigenvalue is -0.8 all the same."""
    add(
        draft,
        "second-moment",
        {"count": np.array(40), "mean": floats(0, 0, 0), "matrix": floats(1, 0.9, 1, 0.9, -0.9, 1)},
        **second_moment()[1],
        feature_count=3,
    )


CASES = (
    _invalid(
        "unknown-form",
        code="bad-configuration",
        comment="A closed list.",
        draft=with_configuration("second-moment", second_moment(), form="banded"),
    ),
    _invalid(
        "window-by-halves",
        code="bad-configuration",
        base=image,
        comment="A kernel without strides.",
        draft=with_configuration("second-moment", windowed("toeplitz"), strides=None),
    ),
    _invalid(
        "kernel-that-does-not-divide",
        code="bad-configuration",
        base=image,
        comment="Nine taps of eight features.",
        draft=with_configuration("second-moment", windowed("toeplitz"), kernel=[3, 3]),
    ),
    _invalid(
        "negative-diagonal", code="negative", comment="A mean square below 0.", draft=second(matrix=floats(2, 0, -1))
    ),
    _invalid(
        "cauchy-schwarz",
        code="not-a-moment",
        comment="An entry above the root of the two diagonal entries' product.",
        draft=second(matrix=floats(2, 2.1, 2)),
    ),
    _invalid(
        "cauchy-schwarz-zero",
        code="not-a-moment",
        comment="An entry beside a diagonal entry of 0.",
        draft=second(matrix=floats(2, 1e-3, 0)),
    ),
    _invalid(
        "not-semi-definite",
        code="not-semi-definite",
        base=three,
        comment="Every entry is possible, and all of them together are not.",
        draft=_indefinite,
    ),
    _invalid(
        "correlation-above-one",
        code="not-a-correlation",
        comment="1.5 in F16.",
        draft=with_record("second-moment", correlations("float16"), matrix=np.array([1, 1.5, 1], np.float16)),
    ),
    _invalid(
        "correlation-of-minus-128",
        code="not-a-correlation",
        comment="A magnitude that I8 has on one side only.",
        draft=with_record("second-moment", correlations("int8"), matrix=np.array([127, -128, 127], np.int8)),
    ),
    _invalid(
        "correlation-of-nan",
        code="not-finite",
        comment="NaN in F16.",
        draft=with_record("second-moment", correlations("float16"), matrix=np.array([1, _NAN, 1], np.float16)),
    ),
    _invalid(
        "correlations-as-floats",
        code="wrong-dtype",
        comment="F32 where the storage says F16.",
        draft=with_record("second-moment", correlations("float16"), matrix=floats(1, 0.5, 1)),
    ),
    _invalid(
        "lag-zero-not-symmetric",
        code="not-symmetric",
        base=image,
        comment="The block of lag 0 is a second moment.",
        draft=with_record(
            "second-moment", windowed("toeplitz"), lags=np.array([[[2, 1], [0, 2]], *np.zeros((4, 2, 2))], F32)[None]
        ),
    ),
    _invalid(
        "lags-too-few",
        code="wrong-shape",
        base=image,
        comment="Four lags of five.",
        draft=with_record("second-moment", windowed("toeplitz"), lags=np.zeros((1, 4, 2, 2), F32)),
    ),
    _invalid(
        "factor-not-a-moment",
        code="not-a-moment",
        base=image,
        comment="A factor is held to the same.",
        draft=with_record("second-moment", windowed("kronecker"), channels=floats(2, 3, 2)[None]),
    ),
    _valid("kind-second-moment", comment="The whole matrix.", draft=second()),
    _valid(
        "kind-second-moment-f64", comment="F64 where F32 is enough.", draft=second(matrix=np.array([2.0, 1.0, 2.0]))
    ),
    _valid(
        "kind-second-moment-f16",
        comment="Correlations in F16.",
        draft=with_record("second-moment", correlations("float16")),
    ),
    _valid(
        "kind-second-moment-i8", comment="Correlations in I8.", draft=with_record("second-moment", correlations("int8"))
    ),
    _valid(
        "kind-second-moment-diagonal", comment="The diagonal alone.", draft=with_record("second-moment", diagonal())
    ),
    _valid(
        "kind-second-moment-toeplitz",
        base=image,
        comment="Lags of a convolution's window.",
        draft=with_record("second-moment", windowed("toeplitz")),
    ),
    _valid(
        "kind-second-moment-kronecker",
        base=image,
        comment="Two factors of a convolution's window.",
        draft=with_record("second-moment", windowed("kronecker")),
    ),
    _valid(
        "semi-definite-on-the-edge", comment="A matrix of rank 1, rounded.", draft=second(matrix=floats(0.1, 0.3, 0.9))
    ),
)
