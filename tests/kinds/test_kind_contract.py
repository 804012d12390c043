"""Every kind of the catalogue, in every form, held to the laws that anybody's kind is held to."""

from __future__ import annotations

import pytest

from dfmeta._catalog import KINDS
from dfmeta.testing import KindCase, KindContract

CASES = [
    KindCase("histogram", features=6, tolerance=0),
    KindCase("cross-spectrum", features=4, configuration={"rank": 2, "paired_feature_count": 3}, paired_shape=(3,)),
    KindCase("moments", features=3),
    KindCase(
        "second-moment",
        features=9,
        configuration={
            "form": "toeplitz",
            "storage": "float32",
            "kernel": [3, 3],
            "strides": [1, 1],
            "dilations": [1, 1],
            "pads": [1, 1, 1, 1],
            "groups": 2,
        },
        item_shape=(2, 4, 4),
    ),
    KindCase("spectrum", features=4, configuration={"rank": 2}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestKinds(KindContract):
    pass


def test_no_kind_is_left_out():
    assert {case.kind for case in CASES} == set(KINDS.names())
