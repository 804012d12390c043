"""The cases behind the conformance vectors of format 1.0: two good manifests, and one change for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DIGEST = "0123456789abcdef" * 4

Json = dict[str, Any]
Change = Callable[[Json], None]


def minimal() -> Json:
    """The smallest manifest that is valid: a graph and no records."""
    return {
        "format": "dfmeta",
        "format_version": "1.0",
        "bundle": {
            "id": "urn:uuid:6f1c2f0e-8a44-4c53-9d0b-2f3d5a7c9e10",
            "version": "1.0.0",
            "created": "2026-01-31T09:00:00Z",
        },
        "files": [_file("graph", "model.graph", "model.onnx", "application/onnx")],
        "model": {
            "name": "two-features",
            "graph": {"file": "graph", "ir_version": 8, "opset_import": [{"domain": "", "version": 18}]},
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
        },
    }


def full() -> Json:
    """Every member of the format, once."""
    manifest = minimal()
    sidecar = "application/vnd.safetensors"
    manifest |= {
        "$schema": "urn:dfmeta:manifest:1.0",
        "required_features": [],
        "sites": [_site()],
        "records": [_record("r0", {"by": "all"}), _record("r1", {"by": "class", "label_set": "digits"})],
        "runs": [_run()],
        "datasets": [_dataset()],
        "privacy": {
            "unit": "image",
            "min_unit_count": 10,
            "suppression": "complementary",
            "extremes_policy": "unit-clipped",
            "differential_privacy": {
                "mechanism": "gaussian",
                "rho": 0.5,
                "ledger": [{"record": "r0", "rho": 0.5}],
            },
            "attestation": "declared-by-publisher",
        },
        "licenses": {"records": "CC0-1.0", "model": "Apache-2.0", "notice": "See LICENSE."},
        "extensions": {"org.example.lab": {"shelf": None, "box": [1, 2.5, "three"]}},
    }
    manifest["bundle"] |= {
        "title": "Two features",
        "description": "Café-grade prose: any Unicode.",
        "publisher": {"name": "Example Lab", "url": "https://example.org"},
        "generator": {"name": "dfmeta", "version": "0.1.0"},
    }
    manifest["files"] += [
        _file("records", "records", "dfmeta/records.safetensors", sidecar) | {"header_sha256": DIGEST},
        _file("probe", "probe", "dfmeta/probe.safetensors", sidecar) | {"header_sha256": DIGEST},
        _file("weights", "model.weights", "model.safetensors", sidecar),
    ]
    manifest["model"] |= _model()
    return manifest


def _file(name: str, role: str, path: str, media_type: str) -> Json:
    return {"id": name, "role": role, "path": path, "media_type": media_type, "size": 64, "sha256": DIGEST}


def _model() -> Json:
    operations = [
        {"op": "grayscale"},
        {"op": "resize", "size": [10, 10], "interpolation": "bilinear", "antialias": True},
        {"op": "center_crop", "size": [8, 8]},
        {"op": "pad", "pixels": [1, 1, 1, 1], "value": 0.0},
        {"op": "pad", "pixels": 1, "value": -1.5},
        {"op": "rescale", "scale": 0.00392156862745098, "offset": 0.0},
        {"op": "normalize", "mean": [0.5], "std": [0.25], "axis": "channel"},
    ]
    return {
        "version": "2",
        "architecture": "relu",
        "parameter_count": 0,
        "weights": {"files": ["weights"], "framework": "pytorch"},
        "inputs": [
            {
                "name": "x",
                "dtype": "float32",
                "shape": ["batch", 2],
                "axes": ["batch", "feature"],
                "modality": "image",
                "preprocessing": operations,
            }
        ],
        "outputs": [
            {
                "name": "y",
                "dtype": "float32",
                "shape": ["batch", 2],
                "axes": ["batch", "class"],
                "semantics": "logits",
                "labels": "digits",
            }
        ],
        "label_sets": [{"id": "digits", "names": ["zero", "one"]}],
        "probe": {"file": "probe", "atol": 1e-5, "rtol": 1e-3},
    }


def _site() -> Json:
    return {
        "id": "s0",
        "label": "after the activation",
        "addresses": [
            {"scheme": "onnx-value", "file": "graph", "value": "y"},
            {"scheme": "torch-module", "module": "relu", "port": "output", "index": 0, "call": 0},
        ],
        "dtype": "float32",
        "shape": ["batch", 2],
        "feature_axis": 1,
        "feature_count": 2,
        "probe": {"mean": "s0.mean", "l2": "s0.l2"},
    }


def _record(name: str, group: Json) -> Json:
    return {
        "id": name,
        "site": "s0",
        "kind": "moments",
        "kind_version": 1,
        "file": "records",
        "run": "run0",
        "group": group,
        "features": "channel",
        "feature_count": 2,
        "tensors": {key: {"name": f"{name}.{key}", "sha256": DIGEST} for key in ("count", "mean", "var")},
        "conventions": {
            "centering": "central",
            "normalization": "population",
            "accumulation_dtype": "float64",
        },
        "configuration": {},
        "unit_count": 40,
        "position_count": 40,
        "mergeable": False,
        "suppressed_groups": [],
    }


def _run() -> Json:
    return {
        "id": "run0",
        "dataset": "ds0",
        "engine": {"name": "onnxruntime", "version": "1.22.0", "provider": "CPUExecutionProvider"},
        "mode": "eval",
        "batch_size": 8,
        "seed": 0,
        "limit": 40,
        "started": "2026-01-31T08:00:00Z",
        "finished": "2026-01-31T08:00:01.5Z",
    }


def _dataset() -> Json:
    return {
        "id": "ds0",
        "name": "Made-up pairs",
        "split": "train",
        "unit": "image",
        "unit_count": 40,
        "license": "CC0-1.0",
        "url": "https://example.org/pairs",
        "contains_personal_data": "no",
        "description": "Forty pairs of numbers.",
    }


def put(path: str, value: Any) -> Change:
    """A change that sets one place, such as ``files/0/path``, making a member that is not there."""

    def change(manifest: Json) -> None:
        *steps, last = path.split("/")
        node: Any = manifest
        for step in steps:
            node = node[int(step)] if isinstance(node, list) else node[step]
        if isinstance(node, list):
            node.insert(int(last), value) if int(last) >= len(node) else node.__setitem__(int(last), value)
        else:
            node[last] = value

    return change


def drop(path: str) -> Change:
    """A change that removes one member."""

    def change(manifest: Json) -> None:
        *steps, last = path.split("/")
        node: Any = manifest
        for step in steps:
            node = node[int(step)] if isinstance(node, list) else node[step]
        del node[last]

    return change


# name: (change to the full manifest, clause, whether the strict schema accepts it, whether a reader warns)
VALID: dict[str, tuple[Change, str, bool, bool]] = {
    "full": (lambda manifest: None, "4", True, False),
    "higher-minor": (put("format_version", "1.7"), "7", True, True),
    "unknown-member": (put("model/colour", {"r": None, "g": [1]}), "7", False, False),
    "unknown-extension": (put("extensions/com.example.other", [None, True]), "7", True, False),
    "unknown-kind": (put("records/0/kind", "entropy"), "7", True, False),
    "unknown-role": (put("files/4", _file("notes", "notes", "notes.txt", "text/plain")), "7", True, True),
    "unknown-operation": (
        put("model/inputs/0/preprocessing/0", {"op": "rotate", "by": 90}),
        "7",
        False,
        True,
    ),
    "unknown-address": (put("sites/0/addresses/2", {"scheme": "tf-op", "op": "relu"}), "7", False, True),
    "null-optional": (put("licenses", None), "3.1", True, False),
}

# name: (change to the full manifest, code, where, clause, whether the open schema sees it)
INVALID: dict[str, tuple[Change, str, str, str, bool]] = {
    "wrong-format": (put("format", "dfmeto"), "wrong-format", "format", "4.1", True),
    "no-format": (drop("format"), "wrong-format", "format", "4.1", True),
    "bad-version": (put("format_version", "1"), "bad-version", "format_version", "4.1", True),
    "unknown-major": (put("format_version", "2.0"), "unsupported-version", "format_version", "7", True),
    "unknown-required-feature": (
        put("required_features", ["external-data"]),
        "unsupported-version",
        "required_features",
        "7",
        False,
    ),
    "missing-member": (drop("bundle/id"), "missing-member", "bundle.id", "4.2", True),
    "wrong-type": (put("files/0/size", "64"), "wrong-type", "files[0].size", "4.3", True),
    "integer-with-fraction": (put("files/0/size", 64.0), "wrong-type", "files[0].size", "3.1", False),
    "bad-sha256": (put("files/0/sha256", DIGEST[:40]), "bad-sha256", "files[0].sha256", "4.3", True),
    "upper-case-sha256": (
        put("files/0/sha256", DIGEST.upper()),
        "bad-sha256",
        "files[0].sha256",
        "4.3",
        True,
    ),
    "path-parent": (put("files/0/path", "../model.onnx"), "unsafe-path", "files[0].path", "2.2", True),
    "path-parent-inside": (
        put("files/0/path", "a/../model.onnx"),
        "unsafe-path",
        "files[0].path",
        "2.2",
        True,
    ),
    "path-absolute": (put("files/0/path", "/etc/model.onnx"), "unsafe-path", "files[0].path", "2.2", True),
    "path-backslash": (put("files/0/path", "a\\model.onnx"), "unsafe-path", "files[0].path", "2.2", True),
    "path-drive": (put("files/0/path", "C:model.onnx"), "unsafe-path", "files[0].path", "2.2", True),
    "path-hidden": (put("files/0/path", ".git/model.onnx"), "unsafe-path", "files[0].path", "2.2", True),
    "path-device": (put("files/0/path", "nul.onnx"), "unsafe-path", "files[0].path", "2.2", False),
    "path-manifest": (put("files/0/path", "DFMETA.json"), "unsafe-path", "files[0].path", "2.2", False),
    "path-pickle": (put("files/0/path", "model.pt"), "unsafe-path", "files[0].path", "2.2", False),
    "path-case-twin": (
        put("files/3/path", "dfmeta/Records.safetensors"),
        "duplicate-path",
        "files[3].path",
        "2.2",
        False,
    ),
    "path-inside-file": (
        put("files/3/path", "model.onnx/w.safetensors"),
        "duplicate-path",
        "files[3].path",
        "2.2",
        False,
    ),
    "wrong-suffix": (
        put("files/0/path", "model.safetensors2"),
        "wrong-suffix",
        "files[0].path",
        "2.1",
        False,
    ),
    "duplicate-id": (put("runs/1", _run()), "duplicate-id", "runs[1].id", "4", False),
    "bad-id": (put("sites/0/id", "S0"), "bad-id", "sites[0].id", "4", True),
    "dangling-site": (put("records/0/site", "s9"), "dangling-reference", "records[0].site", "4.7", False),
    "dangling-file": (
        put("records/0/file", "nowhere"),
        "dangling-reference",
        "records[0].file",
        "4.7",
        False,
    ),
    "dangling-run": (put("records/0/run", "run9"), "dangling-reference", "records[0].run", "4.7", False),
    "dangling-dataset": (put("runs/0/dataset", "ds9"), "dangling-reference", "runs[0].dataset", "4.8", False),
    "dangling-labels": (
        put("model/outputs/0/labels", "none"),
        "dangling-reference",
        "model.outputs[0].labels",
        "4.4",
        False,
    ),
    "wrong-role": (put("records/0/file", "graph"), "wrong-role", "records[0].file", "4.7", False),
    "no-onnx-value": (
        put("sites/0/addresses", [{"scheme": "torch-module", "module": "relu"}]),
        "no-onnx-value",
        "sites[0].addresses",
        "4.6",
        False,
    ),
    "no-header-sha256": (
        drop("files/1/header_sha256"),
        "missing-member",
        "files[1].header_sha256",
        "4.3",
        False,
    ),
    "duplicate-tensor": (
        put("records/1/tensors/mean/name", "r0.mean"),
        "duplicate-tensor",
        "records[1].tensors.mean.name",
        "4.7",
        False,
    ),
    "bad-tensor-name": (
        put("records/0/tensors/mean/name", "../mean"),
        "bad-tensor-name",
        "records[0].tensors.mean.name",
        "5.2",
        True,
    ),
    "counts-disagree": (
        put("records/0/unit_count", 41),
        "wrong-count",
        "records[0].unit_count",
        "4.7",
        False,
    ),
    "zero-deviation": (
        put("model/inputs/0/preprocessing/6/std", [0.0]),
        "out-of-range",
        "model.inputs[0].preprocessing[6].std[0]",
        "4.5",
        True,
    ),
    "bad-extension-name": (put("extensions/lab", 1), "bad-extension-name", "extensions.lab", "4.1", True),
}


def raw_cases() -> dict[str, tuple[bytes, str, str]]:
    """Documents that no JSON writer would produce: bytes, code, where."""
    text = text_of(full())
    deep = "[" * 33 + "]" * 33
    return {
        "duplicate-key": (
            text.replace('"id": "s0",', '"id": "s0", "id": "s0",', 1).encode(),
            "duplicate-key",
            "sites[0].id",
        ),
        "nan": (text.replace('"atol": 1e-05', '"atol": NaN').encode(), "not-a-number", "model.probe.atol"),
        "infinite": (
            text.replace('"atol": 1e-05', '"atol": 1e999').encode(),
            "number-out-of-range",
            "model.probe.atol",
        ),
        "large-integer": (
            text.replace('"parameter_count": 0', '"parameter_count": 9007199254740992').encode(),
            "number-out-of-range",
            "model.parameter_count",
        ),
        "too-deep": (text.replace('"three"', deep, 1).encode(), "too-deep", "byte"),
        "lone-surrogate": (
            text.replace("Two features", "\\ud800", 1).encode(),
            "lone-surrogate",
            "bundle.title",
        ),
        "byte-order-mark": (b"\xef\xbb\xbf" + text.encode(), "byte-order-mark", "document"),
        "not-utf8": (
            text.replace("Two features", "caf\x00", 1).encode().replace(b"caf\x00", b"caf\xe9"),
            "not-utf8",
            "byte",
        ),
        "trailing-text": (text.encode() + b"{}\n", "not-json", "line"),
        "not-an-object": (b"[]\n", "wrong-type", "document"),
    }


def text_of(value: object) -> str:
    """A value as the vectors have it on disk."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
