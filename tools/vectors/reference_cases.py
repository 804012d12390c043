"""What must resolve, be unique, or agree with something else in the manifest."""

from __future__ import annotations

import numpy as np

from vectors.drafts import Case, Change, Draft, both, cases_of, drop, put
from vectors.manifests import SIDECAR, add, full, grouped, member, minimal, moments, probed, run, site, small

_invalid, _valid = cases_of("references", base=small)


def _dangling(id: str, clause: str, change: Change) -> Case:
    return _invalid(id, code="dangling-reference", clause=clause, comment="Nothing has that id.", change=change)


def _twice(draft: Draft) -> None:
    """A second record that names a tensor of the first."""
    add(draft, "moments", moments())
    del draft.sidecars["records"]["r1.mean"]
    draft.manifest["records"][1]["tensors"]["mean"]["name"] = "r0.mean"


def _weights_only(draft: Draft) -> None:
    """No graph: the site is addressed in the PyTorch model alone."""
    manifest = draft.manifest
    manifest["files"][0] = member("weights", "model.weights", "model.safetensors", SIDECAR)
    del manifest["model"]["graph"]
    manifest["model"]["weights"] = {"files": ["weights"]}
    manifest["sites"][0]["addresses"] = [{"scheme": "torch-module", "module": "relu"}]
    draft.members.clear()


def _two_sidecars(draft: Draft) -> None:
    """A second record in a file of its own."""
    add(draft, "moments", moments(), file="more")
    tensors = draft.sidecars["records"]
    draft.sidecars["more"] = {name: tensors.pop(name) for name in list(tensors) if name.startswith("r1.")}
    draft.manifest["files"].append(member("more", "records", "dfmeta/more.safetensors", SIDECAR))


def _no_model(draft: Draft) -> None:
    del draft.manifest["model"]["graph"]
    draft.manifest["sites"], draft.manifest["records"], draft.sidecars = [], [], {}


_CLASS = {"by": "class"}
_PAIR_OF_SITES = put("sites/1", site("s1", "x") | {"id": "s0"})

CASES = (
    _dangling("dangling-site", "4.7", put("records/0/site", "s9")),
    _dangling("dangling-paired-site", "4.7", put("records/0/paired_site", "s9")),
    _dangling("dangling-file", "4.7", put("records/0/file", "nowhere")),
    _dangling("dangling-run", "4.7", put("records/0/run", "run9")),
    _dangling("dangling-dataset", "4.8", put("runs/0/dataset", "ds9")),
    _dangling("dangling-labels", "4.4", put("model/outputs/0/labels", "none")),
    _dangling("dangling-label-set", "4.7", put("records/0/group", {"by": "class", "label_set": "none"})),
    _dangling("dangling-graph", "4.4", put("model/graph/file", "nowhere")),
    _dangling("dangling-weights", "4.4", put("model/weights", {"files": ["nowhere"]})),
    _dangling("dangling-probe", "4.4", put("model/probe", {"file": "nowhere", "atol": 0, "rtol": 0})),
    _dangling("dangling-address", "4.6", put("sites/0/addresses/0/file", "nowhere")),
    _dangling("site-probe-without-probe", "4.6", put("sites/0/probe", {"mean": "s0.mean", "l2": "s0.l2"})),
    _invalid(
        "records-in-the-graph",
        code="wrong-role",
        clause="4.7",
        comment="A file of another role.",
        change=put("records/0/file", "graph"),
    ),
    _invalid(
        "graph-in-the-records",
        code="wrong-role",
        clause="4.4",
        comment="A file of another role.",
        change=put("model/graph/file", "records"),
    ),
    _invalid(
        "probe-in-the-records",
        code="wrong-role",
        clause="4.4",
        comment="A file of another role.",
        change=put("model/probe", {"file": "records", "atol": 0, "rtol": 0}),
    ),
    _invalid(
        "weights-in-the-graph",
        code="wrong-role",
        clause="4.4",
        comment="A file of another role.",
        change=put("model/weights", {"files": ["graph"]}),
    ),
    _invalid(
        "duplicate-file-id",
        code="duplicate-id",
        clause="4",
        comment="An id twice.",
        base=minimal,
        draft=lambda draft: draft.manifest["files"].append(member("graph", "notes", "notes.txt", "text/plain")),
    ),
    _invalid("duplicate-site-id", code="duplicate-id", clause="4", comment="An id twice.", change=_PAIR_OF_SITES),
    _invalid("duplicate-run-id", code="duplicate-id", clause="4", comment="An id twice.", change=put("runs/1", run())),
    _invalid(
        "duplicate-input",
        code="duplicate-id",
        clause="4.4",
        comment="A name twice.",
        change=put("model/inputs/1", {"name": "x", "dtype": "float32", "shape": []}),
    ),
    _invalid("no-model", code="no-model", clause="4.4", comment="Neither graph nor weights.", draft=_no_model),
    _invalid(
        "no-onnx-value",
        code="no-onnx-value",
        clause="4.6",
        comment="A site that is not in the graph.",
        change=put("sites/0/addresses", [{"scheme": "torch-module", "module": "relu"}]),
    ),
    _invalid(
        "two-onnx-values",
        code="no-onnx-value",
        clause="4.6",
        comment="A site in two places.",
        change=put("sites/0/addresses/1", {"scheme": "onnx-value", "file": "graph", "value": "x"}),
    ),
    _invalid(
        "duplicate-tensor",
        code="duplicate-tensor",
        clause="5.2",
        comment="One tensor for two statistics.",
        draft=_twice,
    ),
    _invalid(
        "duplicate-probe-tensor",
        code="duplicate-tensor",
        clause="5.2",
        comment="One tensor for mean and norm.",
        base=probed,
        change=put("sites/0/probe/l2", "s0.mean"),
    ),
    _invalid(
        "bad-tensor-name",
        code="bad-tensor-name",
        clause="5.2",
        comment="A path is no name.",
        schema="invalid",
        change=put("records/0/tensors/mean/name", "../mean"),
    ),
    _invalid(
        "tensor-name-too-long",
        code="bad-tensor-name",
        clause="5.2",
        comment="129 bytes.",
        schema="invalid",
        change=put("records/0/tensors/mean/name", f"r0.{'m' * 126}"),
    ),
    _invalid(
        "bad-statistic",
        code="bad-id",
        clause="4.7",
        comment="A statistic is an id.",
        schema="invalid",
        change=both(put("records/0/tensors/Mean", {"name": "r0.mean2", "sha256": "0" * 64})),
    ),
    _invalid(
        "more-units-than-positions",
        code="wrong-count",
        clause="4.7",
        comment="A unit has at least one position.",
        change=put("records/0/unit_count", 41),
    ),
    _invalid(
        "class-without-labels",
        code="missing-member",
        clause="4.7",
        comment="Which classes?",
        change=put("records/0/group", _CLASS),
    ),
    _invalid(
        "suppressed-beyond-the-classes",
        code="out-of-range",
        clause="4.7",
        comment="Group 2 of two.",
        base=grouped,
        change=put("records/0/suppressed_groups", [2]),
    ),
    _invalid(
        "suppressed-unsorted",
        code="out-of-range",
        clause="4.7",
        comment="A group twice.",
        base=grouped,
        change=put("records/0/suppressed_groups", [1, 1]),
    ),
    _invalid(
        "suppressed-without-groups",
        code="out-of-range",
        clause="4.7",
        comment="There is one group only.",
        change=both(put("records/0/suppressed_groups", [0]), put("records/0/mergeable", False)),
    ),
    _invalid(
        "mergeable-though-suppressed",
        code="not-mergeable",
        clause="4.7",
        comment="Nobody else has what was withheld.",
        base=grouped,
        change=put("records/0/mergeable", True),
    ),
    _valid("no-records", clause="4.1", base=minimal, comment="A model alone.", change=put("records", [])),
    _valid("weights-only", clause="4.4", comment="Without a graph a site needs no value of one.", draft=_weights_only),
    _valid("two-sidecars", clause="2.1", comment="Records in several files.", draft=_two_sidecars),
    _valid(
        "unused-parts",
        clause="4",
        base=full,
        comment="Sites, runs and label sets that nothing uses.",
        change=both(put("sites/1", site("s1", "x")), put("model/label_sets/1", {"id": "spare", "names": ["a"]})),
    ),
    _valid(
        "unit-count-of-nothing",
        clause="4.7",
        comment="A record of no units: nothing was observed.",
        draft=lambda draft: draft.sidecars["records"].update(
            {name: np.zeros_like(each) for name, each in draft.sidecars["records"].items()}
        ),
        change=both(put("records/0/unit_count", 0), put("records/0/position_count", 0), drop("records/0/kind_version")),
    ),
)
