"""The manifest's members: types, grammars and ranges."""

from __future__ import annotations

from vectors.drafts import DIGEST, Case, Change, before, both, cases_of, drop, put
from vectors.manifests import full, minimal, small

_case, _valid = cases_of("schema", base=small)
_ADDRESS = {"scheme": "onnx-value", "file": "graph"}


def _invalid(id: str, code: str, clause: str, comment: str, change: Change, *, seen: bool = True) -> Case:
    """A small bundle with one wrong member; ``seen``: the JSON Schema sees it too."""
    return _case(id, code=code, clause=clause, comment=comment, change=change, schema="invalid" if seen else "valid")


def _operation(**members: object) -> Change:
    return put("model/inputs/0/preprocessing", [members])


CASES = (
    _invalid("wrong-format", "wrong-format", "4.1", "Another format.", put("format", "dfmeto")),
    _invalid("no-format", "wrong-format", "4.1", "No format.", drop("format")),
    _invalid("no-version", "bad-version", "4.1", "No version.", drop("format_version")),
    _invalid("version-without-minor", "bad-version", "4.1", "Half a version.", put("format_version", "1")),
    _invalid("version-of-three", "bad-version", "4.1", "Three numbers.", put("format_version", "1.0.0")),
    _invalid("version-with-zero", "bad-version", "4.1", "A leading zero.", put("format_version", "1.01")),
    _invalid("version-as-number", "bad-version", "4.1", "A version is text.", put("format_version", 1.0)),
    _invalid("missing-bundle", "missing-member", "4.1", "No bundle.", drop("bundle")),
    _invalid("missing-id", "missing-member", "4.2", "No id.", drop("bundle/id")),
    _invalid("missing-sha256", "missing-member", "4.3", "A file that is not pinned.", drop("files/0/sha256")),
    _invalid("missing-inputs", "missing-member", "4.4", "No inputs.", drop("model/inputs")),
    _invalid("missing-engine-version", "missing-member", "4.8", "Half an engine.", drop("runs/0/engine/version")),
    _invalid("missing-mergeable", "missing-member", "4.7", "Mergeable or not?", drop("records/0/mergeable")),
    _invalid("null-is-not-a-value", "wrong-type", "4.1", "Null for a required member.", put("bundle", None)),
    _invalid("size-as-text", "wrong-type", "4.3", "A size is an integer.", put("files/0/size", "79")),
    _invalid("size-as-boolean", "wrong-type", "4.3", "True is not 1.", put("files/0/size", True)),
    _invalid("files-as-object", "wrong-type", "4.1", "Files are a list.", put("files", {"graph": {}})),
    _invalid("mergeable-as-number", "wrong-type", "4.7", "1 is not true.", put("records/0/mergeable", 1)),
    _invalid("feature-as-number", "wrong-type", "4.1", "A feature is text.", put("required_features", [1])),
    _invalid("convention-as-number", "wrong-type", "4.7", "Strings only.", put("records/0/conventions/bits", 8)),
    _invalid("no-uuid", "bad-uuid", "4.2", "Any text is no id of a bundle.", put("bundle/id", "two-features")),
    _invalid(
        "upper-case-uuid",
        "bad-uuid",
        "4.2",
        "Upper case.",
        put("bundle/id", f"urn:uuid:{'6F1C2F0E-8A44-4C53-9D0B-2F3D5A7C9E10'}"),
    ),
    _invalid("bad-sha256", "bad-sha256", "4.3", "40 digits.", put("files/0/sha256", DIGEST[:40])),
    _invalid("upper-case-sha256", "bad-sha256", "4.3", "Upper case.", put("files/0/sha256", DIGEST.upper())),
    _invalid(
        "sha256-and-newline",
        "bad-sha256",
        "4.3",
        "A line break after the digits.",
        put("files/0/sha256", f"{DIGEST}\n"),
    ),
    _invalid("bad-id", "bad-id", "4", "Upper case.", put("sites/0/id", "S0")),
    _invalid("long-id", "bad-id", "4", "33 characters.", put("runs/0/id", "r" * 33)),
    _invalid("bad-role", "bad-name", "4.3", "A space.", put("files/0/role", "model graph")),
    _invalid("bad-dtype-name", "bad-name", "4.4", "Upper case.", put("model/inputs/0/dtype", "FLOAT")),
    _invalid("time-without-zone", "bad-time", "4", "No Z.", put("bundle/created", "2026-01-31T09:00:00")),
    _invalid("time-with-offset", "bad-time", "4", "An offset.", put("bundle/created", "2026-01-31T09:00:00+01:00")),
    _invalid("thirteenth-month", "bad-time", "4", "Month 13.", put("bundle/created", "2026-13-01T09:00:00Z")),
    _invalid("twenty-fourth-hour", "bad-time", "4", "Hour 24.", put("runs/0/started", "2026-01-31T24:00:00Z")),
    _invalid(
        "empty-dimension", "bad-dimension", "4", "A free dimension without a name.", put("model/inputs/0/shape/0", "")
    ),
    _invalid(
        "dimension-not-ascii", "bad-dimension", "4", "A name outside ASCII.", put("model/inputs/0/shape/0", "größe")
    ),
    _invalid("zero-dimension", "out-of-range", "4", "No extent.", put("model/inputs/0/shape/1", 0)),
    _invalid(
        "minus-one-dimension", "out-of-range", "4", "Free dimensions have names.", put("model/inputs/0/shape/1", -1)
    ),
    _invalid("nine-dimensions", "wrong-length", "4", "Rank 9.", put("model/outputs/0/shape", ["batch", *[1] * 8])),
    _invalid(
        "fixed-batch-of-a-site", "bad-dimension", "4.6", "Axis 0 is a number.", put("sites/0/shape/0", 4), seen=False
    ),
    _invalid("site-without-shape", "wrong-length", "4.6", "A site has a batch.", put("sites/0/shape", [])),
    _invalid("no-files", "wrong-length", "4.1", "No file at all.", put("files", [])),
    _invalid("no-outputs", "wrong-length", "4.4", "No output.", put("model/outputs", [])),
    _invalid("no-addresses", "wrong-length", "4.6", "A site that is nowhere.", put("sites/0/addresses", [])),
    _invalid("no-tensors", "wrong-length", "4.7", "A record of nothing.", put("records/0/tensors", {})),
    _invalid("empty-text", "wrong-length", "4", "A name without a letter.", put("model/name", "")),
    _invalid("negative-size", "out-of-range", "4.3", "A size below 0.", put("files/0/size", -1)),
    _invalid("no-batch-size", "out-of-range", "4.8", "Batches of nothing.", put("runs/0/batch_size", 0)),
    _invalid("negative-seed", "out-of-range", "4.8", "A seed below 0.", put("runs/0/seed", -1)),
    _invalid("no-features", "out-of-range", "4.7", "Vectors of no length.", put("records/0/feature_count", 0)),
    _invalid("feature-axis-of-the-batch", "out-of-range", "4.6", "Axis 0.", put("sites/0/feature_axis", 0)),
    _invalid(
        "feature-axis-too-large", "out-of-range", "4.6", "Axis 2 of rank 2.", put("sites/0/feature_axis", 2), seen=False
    ),
    _invalid(
        "feature-count-differs", "wrong-count", "4.6", "3 features of 2.", put("sites/0/feature_count", 3), seen=False
    ),
    _invalid("training-mode", "unknown-value", "4.8", "Records of training.", put("runs/0/mode", "train")),
    _invalid(
        "perhaps-personal",
        "unknown-value",
        "4.8",
        "Neither yes nor no.",
        put("datasets/0/contains_personal_data", "perhaps"),
    ),
    _invalid(
        "address-without-value", "missing-member", "4.6", "Half an address.", put("sites/0/addresses/0", _ADDRESS)
    ),
    _invalid(
        "address-without-scheme", "missing-member", "4.6", "An address of no sort.", drop("sites/0/addresses/0/scheme")
    ),
    _invalid(
        "unknown-port",
        "unknown-value",
        "4.6",
        "A port that is neither.",
        put("sites/0/addresses/1", {"scheme": "torch-module", "module": "", "port": "both"}),
    ),
    _invalid(
        "axes-too-many",
        "wrong-length",
        "4.4",
        "Three axes of two.",
        put("model/inputs/0/axes", ["batch", "a", "b"]),
        seen=False,
    ),
    _invalid("operation-without-name", "missing-member", "4.5", "An operation that is none.", _operation(scale=2)),
    _invalid(
        "resize-without-size",
        "missing-member",
        "4.5",
        "To what size?",
        _operation(op="resize", interpolation="nearest"),
    ),
    _invalid(
        "unknown-interpolation",
        "unknown-value",
        "4.5",
        "A closed list.",
        _operation(op="resize", size=[2, 2], interpolation="lanczos"),
    ),
    _invalid(
        "size-of-three", "wrong-length", "4.5", "Height, width and what?", _operation(op="center_crop", size=[2, 2, 2])
    ),
    _invalid("size-too-large", "out-of-range", "4.5", "65,537 pixels.", _operation(op="center_crop", size=[2, 65_537])),
    _invalid("three-margins", "wrong-length", "4.5", "Three margins.", _operation(op="pad", pixels=[1, 1, 1])),
    _invalid(
        "zero-deviation", "out-of-range", "4.5", "Division by 0.", _operation(op="normalize", mean=[0.5], std=[0.0])
    ),
    _invalid(
        "means-without-deviations",
        "wrong-length",
        "4.5",
        "Two means, one deviation.",
        _operation(op="normalize", mean=[0.5, 0.5], std=[0.5]),
        seen=False,
    ),
    _invalid(
        "too-many-operations",
        "wrong-length",
        "4.5",
        "65 operations.",
        put("model/inputs/0/preprocessing", [{"op": "grayscale"}] * 65),
    ),
    _invalid("bad-extension-name", "bad-extension-name", "4.1", "No domain.", put("extensions", {"lab": 1})),
    _invalid(
        "no-min-unit-count",
        "out-of-range",
        "4.9",
        "Groups of fewer than 0.",
        put(
            "privacy",
            {
                "unit": "image",
                "min_unit_count": 0,
                "suppression": "none",
                "extremes_policy": "none-published",
                "attestation": "declared-by-publisher",
            },
        ),
    ),
    _invalid(
        "unknown-suppression",
        "unknown-value",
        "4.9",
        "A closed list.",
        put(
            "privacy",
            {
                "unit": "image",
                "min_unit_count": 1,
                "suppression": "some",
                "extremes_policy": "none-published",
                "attestation": "declared-by-publisher",
            },
        ),
    ),
    _invalid(
        "wrong-media-type",
        "wrong-media-type",
        "2.1",
        "Not the role's.",
        put("files/1/media_type", "application/json"),
        seen=False,
    ),
    _invalid(
        "probe-too-large",
        "too-large",
        "2.1",
        "A probe of more than 256 MiB.",
        put(
            "files/2",
            {
                "id": "probe",
                "role": "probe",
                "path": "probe.safetensors",
                "media_type": "application/vnd.safetensors",
                "size": 2**28 + 1,
                "sha256": DIGEST,
            },
        ),
        seen=False,
    ),
    _invalid(
        "records-without-header-sha256",
        "missing-member",
        "4.3",
        "A sidecar that can only be read whole.",
        drop("files/1/header_sha256"),
        seen=False,
    ),
    _valid("minimal", clause="4", base=minimal, comment="Nothing that is not required."),
    _valid("small", clause="4", comment="One site and one record."),
    _valid("full", clause="4", base=full, comment="Every member once."),
    _valid(
        "free-dimensions",
        clause="4",
        comment="Names of dimensions may hold any printable ASCII.",
        change=put("model/inputs/0/shape/0", "2 * n + ~1"),
    ),
    _valid(
        "named-feature-axis",
        clause="4.6",
        comment="A label and a TorchModule beside the authority.",
        draft=before(
            both(put("sites/0/label", "relu"), put("sites/0/addresses/1", {"scheme": "torch-module", "module": ""}))
        ),
    ),
    _valid(
        "time-with-fraction",
        clause="4",
        comment="Nine digits of a second.",
        change=put("bundle/created", "2026-01-31T09:00:00.123456789Z"),
    ),
    _valid(
        "version-text",
        clause="4.2",
        comment="A release's version is any text.",
        change=put("bundle/version", "first try"),
    ),
    _valid(
        "open-names",
        clause="4.9",
        comment="Open lists: what became of extremes, and who says so.",
        change=put(
            "privacy",
            {
                "unit": "person",
                "min_unit_count": 1,
                "suppression": "primary",
                "extremes_policy": "own-way",
                "attestation": "audited",
            },
        ),
    ),
    _case(
        "leap-second",
        code="bad-time",
        clause="4",
        folder="valid",
        verdict="acceptable",
        comment="A second 60, which many libraries do not know.",
        change=put("bundle/created", "2016-12-31T23:59:60Z"),
    ),
    _case(
        "thirtieth-of-february",
        code="bad-time",
        clause="4",
        folder="valid",
        verdict="acceptable",
        comment="A day that its month does not have.",
        change=put("bundle/created", "2026-02-30T09:00:00Z"),
    ),
)
