"""What two readers written apart from each other did not do alike, until the text said it or one of them was mended."""

from __future__ import annotations

from functools import partial

import numpy as np

from vectors.container_edits import entry, weights
from vectors.drafts import Case, Draft, both, put
from vectors.kind_records import (
    F32,
    crossed,
    image,
    second,
    second_moment,
    spectral,
    windowed,
    with_configuration,
    with_record,
)
from vectors.manifests import add, full, grouped, moments, probed, small

_invalid = partial(Case, base=small)
_schema = partial(_invalid, area="schema", clause="3.1")
_numbers = partial(_invalid, area="numbers", clause="5.4")
_merging = partial(_invalid, area="references", clause="4.7", code="not-mergeable")
_container = partial(_invalid, area="safetensors", clause="5.1")
_absent = partial(_schema, code="", folder="valid", verdict="valid")
_NOISED = {
    "unit": "image",
    "min_unit_count": 1,
    "suppression": "none",
    "extremes_policy": "noised",
    "differential_privacy": {"definition": "zCDP", "rho": 0.5},
    "attestation": "declared-by-publisher",
}


def _lags_of_eight_bits(draft: Draft) -> None:
    """Correlations by lag, with a block of lag 0 that is not symmetric."""
    tensors, more = windowed("toeplitz")
    lags = np.zeros((1, 5, 2, 2), np.int8)
    lags[0, 0] = [[127, 64], [0, 127]]
    more["configuration"]["storage"] = "int8"
    add(draft, "second-moment", tensors | {"lags": lags, "diagonal": np.array([[2, 2]], F32)}, **more)


CASES = (
    _absent(
        "null-is-absence-of-preprocessing",
        base=full,
        comment="Null for a list that may be absent.",
        change=put("model/inputs/0/preprocessing", None),
    ),
    _absent(
        "null-is-absence-of-conventions",
        comment="Null for an object that may be absent.",
        change=put("records/0/conventions", None),
    ),
    _absent(
        "null-is-absence-of-a-word", comment="Null for a word that may be absent.", change=put("runs/0/mode", None)
    ),
    _absent(
        "null-is-absence-of-a-number",
        comment="Null for a number that may be absent.",
        change=put("records/0/kind_version", None),
    ),
    _schema(
        "mode-as-number",
        code="wrong-type",
        clause="4.8",
        comment="A word of a closed list is text.",
        change=put("runs/0/mode", 1),
        schema="invalid",
    ),
    _schema(
        "null-of-a-closed-list",
        code="wrong-type",
        comment="Null for a required word.",
        change=put("datasets/0/contains_personal_data", None),
        schema="invalid",
    ),
    _schema(
        "too-many-addresses",
        code="wrong-length",
        clause="4.6",
        comment="65 addresses.",
        change=lambda manifest: manifest["sites"][0]["addresses"].extend(
            {"scheme": "torch-module", "module": f"m{number}"} for number in range(64)
        ),
        schema="invalid",
    ),
    _invalid(
        "dangling-label-set-unused",
        area="references",
        code="dangling-reference",
        clause="4",
        comment="A group of all needs no label set, and names one that is not there.",
        change=put("records/0/group/label_set", "nowhere"),
    ),
    _invalid(
        "suppressed-unsorted-by-region",
        area="references",
        code="out-of-range",
        clause="4.7",
        comment="Groups that this version does not know, in falling order.",
        change=both(
            put("records/0/group", {"by": "region"}),
            put("records/0/suppressed_groups", [3, 1]),
            put("records/0/mergeable", False),
        ),
    ),
    _merging("mergeable-though-noised", comment="Noise would add up.", change=put("privacy", _NOISED)),
    _merging(
        "mergeable-beside-suppressed",
        base=grouped,
        comment="What was withheld from a class is missing over all units.",
        draft=lambda draft: add(draft, "moments", moments()),
    ),
    _numbers(
        "probe-of-another-dtype",
        code="wrong-dtype",
        clause="6",
        base=probed,
        comment="F64 for a float32 input.",
        draft=lambda draft: draft.sidecars["probe"].update(
            {"input.0": draft.sidecars["probe"]["input.0"].astype(np.float64)}
        ),
    ),
    _numbers(
        "sketch-of-null",
        code="bad-configuration",
        comment="Inside a configuration null is not absence.",
        draft=spectral(),
        change=put("records/1/configuration", {"rank": 1, "sketch": None}),
    ),
    _numbers(
        "paired-features-as-text",
        code="bad-configuration",
        comment="A number of features is an integer.",
        draft=crossed(),
        change=put("records/1/configuration", {"rank": 1, "paired_feature_count": "2"}),
    ),
    _numbers(
        "mean-observed-as-number",
        code="bad-configuration",
        comment="1 is not true.",
        draft=with_configuration("second-moment", second_moment(), mean_observed=1),
    ),
    _numbers(
        "window-without-patches",
        code="bad-configuration",
        base=image,
        comment="A kernel, and features that are channels.",
        draft=with_record("second-moment", windowed("toeplitz")),
        change=put("records/1/features", "channel"),
    ),
    _numbers(
        "patches-without-a-window",
        code="bad-configuration",
        comment="Patches of which kernel?",
        draft=second(),
        change=put("records/1/features", "patch"),
    ),
    _numbers(
        "lag-zero-not-symmetric-in-i8",
        code="not-symmetric",
        base=image,
        comment="Correlations of lag 0 are symmetric too.",
        draft=_lags_of_eight_bits,
    ),
    _numbers(
        "cauchy-schwarz-by-a-little",
        code="not-a-moment",
        comment="1.0015 times the bound.",
        draft=second(matrix=np.array([2, 2.003, 2], F32)),
    ),
    _container(
        "shape-of-65",
        code="too-many-items",
        comment="65 items in an array of a header.",
        draft=entry("r0.mean", shape=[1] * 64 + [2]),
    ),
    _container(
        "nothing-inside-something",
        code="overlap",
        comment="A tensor without elements among the bytes of another.",
        draft=weights(
            {
                "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                "b": {"dtype": "U8", "shape": [0], "data_offsets": [4, 4]},
            },
            bytes(8),
        ),
    ),
    _container(
        "weights-of-no-name",
        code="bad-tensor-name",
        comment="An empty name.",
        draft=weights({"": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
    ),
    _container(
        "weights-of-four-bits",
        code="bad-dtype",
        comment="A dtype that is not in the list.",
        draft=weights({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}, bytes(8)),
    ),
)
