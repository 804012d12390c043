"""The graph: what its gate lets through, and where the manifest speaks of another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from vectors.drafts import Draft, Json, before, cases_of, put
from vectors.gate_cases import ADD, EIGHT, graph_of, plus_weight
from vectors.kind_records import image, windowed, with_record
from vectors.manifests import grouped, probed, site, small
from vectors.onnx_bytes import (
    FLOAT,
    around,
    message,
    relu,
    tensor,
    value,
)

_case, _good = cases_of("graph", level="graph", base=small)
_fit, _valid = partial(_case, clause="8.2"), partial(_good, clause="8.1")


def _shapes(dims: list[int | str], dtype: int = FLOAT) -> Callable[[Draft], None]:
    """A graph of other shapes, which the manifest does not know of."""
    return graph_of(relu(dims, dtype=dtype))


def _probe(**changed: np.ndarray) -> Callable[[Draft], None]:
    named = {name.replace("_", ".", 1): each for name, each in changed.items()}
    return lambda draft: draft.sidecars["probe"].update(named)


def _two_groups(draft: Draft) -> None:
    tensors, more = windowed("kronecker")
    both_groups = {name: each if name == "count" else np.repeat(each, 2, axis=0) for name, each in tensors.items()}
    more["configuration"]["groups"] = 2
    with_record("second-moment", (both_groups, more))(draft)


def _labels(manifest: Json) -> None:
    manifest["model"]["label_sets"][0]["names"].append("two")
    manifest["records"], manifest["files"] = [], manifest["files"][:1]


def _site_of_input(draft: Draft) -> None:
    draft.manifest["sites"].append(site("s1", "x"))


CASES = (
    _fit(
        "other-input",
        code="interface-differs",
        comment="An input that the graph does not have.",
        change=put("model/inputs/0/name", "image"),
    ),
    _fit(
        "other-output",
        code="interface-differs",
        comment="An output that the graph does not have.",
        change=put("model/outputs/0/name", "logits"),
    ),
    _fit(
        "input-too-many",
        code="interface-differs",
        comment="Two inputs of one.",
        change=put("model/inputs/1", {"name": "z", "dtype": "float32", "shape": ["batch"]}),
    ),
    _fit(
        "other-input-dtype",
        code="interface-differs",
        comment="float64 of float32.",
        change=put("model/inputs/0/dtype", "float64"),
    ),
    _fit(
        "other-input-size",
        code="interface-differs",
        comment="Three features of two.",
        change=put("model/inputs/0/shape/1", 3),
    ),
    _fit(
        "free-size-of-a-fixed-one",
        code="interface-differs",
        comment="Only the batch may be free where the graph's is not.",
        change=put("model/inputs/0/shape/1", "n"),
    ),
    _fit(
        "other-output-rank",
        code="interface-differs",
        comment="Rank 3 of 2.",
        change=put("model/outputs/0/shape", ["batch", 2, 1]),
    ),
    _fit(
        "site-not-in-the-graph",
        code="site-differs",
        comment="A value that the graph does not have.",
        change=put("sites/0/addresses/0/value", "hidden"),
    ),
    _fit(
        "other-site-dtype", code="site-differs", comment="float64 of float32.", change=put("sites/0/dtype", "float64")
    ),
    _fit(
        "other-site-size",
        code="site-differs",
        comment="A size that is not the graph's.",
        change=put("sites/0/shape", ["batch", 2, 1]),
    ),
    _fit(
        "labels-too-many",
        code="wrong-label-count",
        base=grouped,
        comment="Three labels of two classes.",
        draft=before(_labels),
    ),
    _fit(
        "features-of-nothing",
        code="wrong-feature-count",
        comment="Three features of a site that has two.",
        draft=lambda draft: draft.sidecars["records"].update(
            {"r0.mean": np.zeros(3, np.float32), "r0.var": np.zeros(3, np.float32)}
        ),
        change=put("records/0/feature_count", 3),
    ),
    _fit(
        "patches-of-another-kernel",
        code="wrong-feature-count",
        base=image,
        comment="Four channels in two groups, in a site of two channels.",
        draft=_two_groups,
    ),
    _fit(
        "probe-output-differs",
        code="probe-differs",
        clause="6",
        base=probed,
        comment="Another output than the graph gives.",
        draft=_probe(output_0=np.array([[1, 0], [0.5, 4.5]], np.float32)),
    ),
    _fit(
        "probe-mean-differs",
        code="probe-differs",
        clause="6",
        base=probed,
        comment="Another mean than the site has.",
        draft=_probe(s0_mean=np.array(2, np.float32)),
    ),
    _fit(
        "probe-norm-differs",
        code="probe-differs",
        clause="6",
        base=probed,
        comment="Another norm than the site has.",
        draft=_probe(s0_l2=np.array(2, np.float32)),
    ),
    _valid("probe-agrees", clause="6", base=probed, comment="The graph gives what the probe says."),
    _valid("operator-set-9", comment="The oldest that is allowed.", draft=graph_of(relu(opset=9), 9)),
    _valid("operator-set-24", comment="The newest that is allowed.", draft=graph_of(relu(opset=24, ir=10), 24)),
    _valid(
        "fixed-batch-in-the-graph",
        clause="8.2",
        comment="A graph exported for four units: the batch is free all the same.",
        draft=_shapes([4, 2]),
    ),
    _valid("initializers", comment="y = x + w.", draft=plus_weight([2], EIGHT)),
    _valid(
        "initializer-as-input",
        comment="As old exporters list them.",
        draft=graph_of(around(ADD, fields=[(5, tensor("w", [2], EIGHT)), (11, value("w", [2]))])),
    ),
    _valid(
        "metadata-of-the-graph",
        clause="12.2",
        comment="Any metadata of the file.",
        draft=graph_of(
            relu()
            + message((14, message((1, "dfmeta.bundle_id"), (2, "urn:uuid:6f1c2f0e-8a44-4c53-9d0b-2f3d5a7c9e10"))))
        ),
    ),
    _valid("site-at-an-input", clause="4.6", comment="An input is a value like any other.", draft=_site_of_input),
)
