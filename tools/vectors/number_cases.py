"""Moments and the probe: which tensors there are, and which numbers may stand in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vectors.drafts import Draft, before, both, cases_of, put
from vectors.kind_records import F32, floats
from vectors.manifests import grouped, probed, small

_invalid, _valid = cases_of("numbers", clause="5.4", base=small)
_NAN, _INF = float("nan"), float("inf")


def _tensors(file: str = "records", **changed: np.ndarray) -> Callable[[Draft], None]:
    """Other numbers in the first record, or with ``file`` in the probe (a name's first ``_`` is its dot)."""
    head = "r0." if file == "records" else ""
    named = {head + (name if head else name.replace("_", ".", 1)): each for name, each in changed.items()}
    return lambda draft: draft.sidecars[file].update(named)


def _less(draft: Draft) -> None:
    """A statistic less."""
    del draft.manifest["records"][0]["tensors"]["var"], draft.sidecars["records"]["r0.var"]


def _more(draft: Draft) -> None:
    """A statistic more."""
    draft.manifest["records"][0]["tensors"]["skew"] = {"name": "r0.skew"}
    draft.sidecars["records"]["r0.skew"] = floats(0, 0)


def _claim(**members: object) -> Callable[[Draft], None]:
    return before(both(*(put(f"records/0/{name}", value) for name, value in members.items())))


CASES = (
    _invalid("mean-of-nan", code="not-finite", comment="NaN.", draft=_tensors(mean=floats(1, _NAN))),
    _invalid("variance-of-infinity", code="not-finite", comment="Infinity.", draft=_tensors(var=floats(_INF, 1))),
    _invalid("negative-variance", code="negative", comment="A variance below 0.", draft=_tensors(var=floats(-1e-6, 1))),
    _invalid("negative-count", code="negative", comment="A count below 0.", draft=_tensors(count=np.array(-1))),
    _invalid(
        "filler-mean",
        code="filler",
        comment="A mean of nothing.",
        draft=_tensors(count=np.array(0), mean=floats(1, 1), var=floats(0, 0)),
    ),
    _invalid(
        "filler-by-class",
        code="filler",
        base=grouped,
        comment="A variance of 1 in a class that was not seen.",
        draft=_tensors(var=np.array([[1, 1], [1, 0]], F32)),
    ),
    _invalid(
        "suppressed-and-there",
        code="not-suppressed",
        clause="4.7",
        base=grouped,
        comment="A suppressed group that has a count.",
        draft=_tensors(count=np.array([40, 1])),
    ),
    _invalid("missing-statistic", code="missing-statistic", comment="Moments without a variance.", draft=_less),
    _invalid(
        "unknown-statistic", code="unknown-statistic", comment="A tensor that the kind does not have.", draft=_more
    ),
    _invalid(
        "count-of-floats", code="wrong-dtype", comment="Counts are integers.", draft=_tensors(count=np.array(40.0))
    ),
    _invalid(
        "mean-of-halves",
        code="wrong-dtype",
        comment="F16 is no dtype of a mean.",
        draft=_tensors(mean=np.array([0.75, 1], np.float16)),
    ),
    _invalid(
        "mean-too-long",
        code="wrong-shape",
        comment="Three means of two features.",
        draft=_tensors(mean=floats(1, 1, 1)),
    ),
    _invalid("count-of-rank-one", code="wrong-shape", comment="[1] is not [].", draft=_tensors(count=np.array([40]))),
    _invalid(
        "classes-too-few",
        code="wrong-shape",
        base=grouped,
        comment="One row for two classes.",
        draft=_tensors(mean=np.ones((1, 2), F32)),
    ),
    _invalid(
        "transposed",
        code="wrong-shape",
        base=grouped,
        comment="Three features by two classes.",
        draft=_tensors(mean=np.zeros((3, 2), F32)),
    ),
    _invalid(
        "wrong-centering",
        code="wrong-convention",
        comment="Moments are central.",
        draft=_claim(conventions={"centering": "raw"}),
    ),
    _invalid(
        "wrong-normalization",
        code="wrong-convention",
        comment="Not the sample variance.",
        draft=_claim(conventions={"normalization": "sample"}),
    ),
    _invalid(
        "probe-of-nan",
        code="not-finite",
        clause="6",
        base=probed,
        comment="NaN.",
        draft=_tensors("probe", output_0=np.array([[1, 0], [0.5, _NAN]], F32)),
    ),
    _invalid(
        "probe-of-another-rank",
        code="wrong-shape",
        clause="6",
        base=probed,
        comment="An input without a batch.",
        draft=_tensors("probe", input_0=floats(1, 2)),
    ),
    _invalid(
        "probe-of-another-size",
        code="wrong-shape",
        clause="6",
        base=probed,
        comment="Three features of two.",
        draft=_tensors("probe", input_0=np.ones((2, 3), F32)),
    ),
    _invalid(
        "summary-of-rank-one",
        code="wrong-shape",
        clause="6",
        base=probed,
        comment="[1] is not [].",
        draft=_tensors("probe", s0_mean=floats(1)),
    ),
    _invalid(
        "summary-of-integers",
        code="wrong-dtype",
        clause="6",
        base=probed,
        comment="A mean is a float.",
        draft=_tensors("probe", s0_l2=np.array(4)),
    ),
    _valid(
        "moments-in-f64",
        comment="Any dtype that the page allows.",
        draft=_tensors(mean=np.array([0.75, 1.0]), var=np.array([0.0625, 9.0])),
    ),
    _valid(
        "own-conventions",
        clause="4.7",
        comment="Conventions that the page does not name.",
        draft=_claim(conventions={"centering": "central", "colour": "blue"}),
    ),
    _valid(
        "own-configuration",
        clause="4.7",
        comment="A configuration that the page does not name.",
        draft=_claim(configuration={"colour": ["blue", None]}),
    ),
)
