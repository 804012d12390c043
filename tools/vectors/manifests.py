"""The good bundles that the vectors begin with: the smallest, one with a record, and one with every member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vectors.drafts import BUNDLE, Draft, Json, with_header
from vectors.onnx_bytes import relu

SIDECAR = "application/vnd.safetensors"
CONVENTIONS = {
    "moments": {"centering": "central", "normalization": "population", "accumulation_dtype": "float64"},
    "spectrum": {"centering": "central", "normalization": "population", "accumulation_dtype": "float64"},
    "cross-spectrum": {"centering": "central", "normalization": "population", "accumulation_dtype": "float64"},
    "second-moment": {"centering": "raw", "normalization": "population", "accumulation_dtype": "float64"},
    "histogram": {"binning": "float32-top-13-bits", "accumulation_dtype": "int64"},
}
ROWS = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
OUT = np.maximum(ROWS, 0)


def minimal() -> Draft:
    """The smallest bundle: a graph and no records."""
    manifest = {
        "format": "dfmeta",
        "format_version": "1.0",
        "bundle": {"id": BUNDLE, "version": "1.0.0", "created": "2026-01-31T09:00:00Z"},
        "files": [member("graph", "model.graph", "model.onnx", "application/onnx")],
        "model": {
            "name": "two-features",
            "graph": {"file": "graph", "ir_version": 8, "opset_import": [{"domain": "", "version": 18}]},
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
        },
    }
    return Draft(manifest, members={"model.onnx": relu()})


def small() -> Draft:
    """A graph, one site and one record of moments."""
    draft = minimal()
    draft.manifest |= {"sites": [site("s0", "y")], "records": [], "runs": [run()], "datasets": [dataset()]}
    draft.manifest["files"].append(member("records", "records", "dfmeta/records.safetensors", SIDECAR))
    add(draft, "moments", moments())
    return draft


def grouped() -> Draft:
    """The same by class: two classes, of which the second was suppressed."""
    draft = small()
    draft.manifest["model"] |= {"label_sets": [{"id": "digits", "names": ["zero", "one"]}]}
    draft.manifest["model"]["outputs"][0]["labels"] = "digits"
    draft.sidecars, draft.manifest["records"] = {}, []
    by_class = {"by": "class", "label_set": "digits"}
    add(draft, "moments", by_row(moments()), group=by_class, suppressed_groups=[1], mergeable=False)
    return draft


def full() -> Draft:
    """Every member of the format, once."""
    draft = grouped()
    manifest = draft.manifest
    manifest |= {
        "$schema": "urn:dfmeta:manifest:1.0",
        "required_features": [],
        "sites": [_full_site()],
        "records": [],
        "runs": [_full_run()],
        "datasets": [_full_dataset()],
        "privacy": _privacy(),
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
        member("probe", "probe", "dfmeta/probe.safetensors", SIDECAR),
        member("weights", "model.weights", "model.safetensors", SIDECAR),
    ]
    manifest["model"] |= _full_model()
    manifest["model"]["inputs"][0] |= {
        "axes": ["batch", "feature"],
        "modality": "image",
        "preprocessing": _operations(),
    }
    manifest["model"]["outputs"][0] |= {"axes": ["batch", "class"], "semantics": "logits"}
    # Nothing was withheld: beside withheld groups a run gives no limit.
    every = {"configuration": {}, "mergeable": False, "suppressed_groups": []}
    draft.sidecars["records"] = {}
    add(draft, "moments", moments(), **every)
    add(draft, "moments", by_row(moments()), **every, group={"by": "class", "label_set": "digits"})
    draft.sidecars["probe"] = probe()
    draft.members["model.safetensors"] = with_header(b"{}")
    return draft


def probed() -> Draft:
    """A small bundle with a probe."""
    draft = small()
    draft.manifest["files"].append(member("probe", "probe", "dfmeta/probe.safetensors", SIDECAR))
    draft.manifest["model"]["probe"] = {"file": "probe", "atol": 1e-5, "rtol": 1e-3}
    draft.manifest["sites"][0]["probe"] = {"mean": "s0.mean", "l2": "s0.l2"}
    draft.sidecars["probe"] = probe()
    return draft


def probe() -> dict[str, np.ndarray]:
    """What y = Relu(x) gives."""
    return {
        "input.0": ROWS,
        "output.0": OUT,
        "s0.mean": np.asarray(OUT.mean(), np.float32),
        "s0.l2": np.asarray(np.sqrt((OUT**2).sum()), np.float32),
    }


def moments() -> dict[str, np.ndarray]:
    """A record over all units."""
    return {"count": np.array(40), "mean": ROWS.mean(0), "var": ROWS.var(0)}


def by_row(tensors: Mapping[str, np.ndarray], rows: int = 2) -> dict[str, np.ndarray]:
    """The same by class: the first class has all of it, the others nothing."""
    return {name: np.stack([each, *[np.zeros_like(each)] * (rows - 1)]) for name, each in tensors.items()}


def add(draft: Draft, kind: str, tensors: Mapping[str, np.ndarray], **members: Any) -> None:
    """Add a record; its id is ``r`` and its place in the list."""
    name = f"r{len(draft.manifest['records'])}"
    draft.sidecars.setdefault("records", {}).update({f"{name}.{key}": each for key, each in tensors.items()})
    record: Json = {
        "id": name,
        "site": "s0",
        "kind": kind,
        "kind_version": 1,
        "file": "records",
        "run": "run0",
        "group": {"by": "all"},
        "features": "channel",
        "feature_count": 2,
        "tensors": {key: {"name": f"{name}.{key}"} for key in tensors},
        "conventions": dict(CONVENTIONS[kind]),
        "unit_count": 40,
        "position_count": 40,
        "mergeable": kind == "moments",
    }
    draft.manifest["records"].append(record | members)


def member(name: str, role: str, path: str, media_type: str) -> Json:
    """A file of the manifest, to be pinned."""
    return {"id": name, "role": role, "path": path, "media_type": media_type}


def site(name: str, value: str) -> Json:
    """A site at a value of the graph."""
    return {
        "id": name,
        "addresses": [{"scheme": "onnx-value", "file": "graph", "value": value}],
        "dtype": "float32",
        "shape": ["batch", 2],
        "feature_axis": 1,
        "feature_count": 2,
    }


def run() -> Json:
    """A run."""
    engine = {"name": "onnxruntime", "version": "1.22.0"}
    return {"id": "run0", "dataset": "ds0", "engine": engine, "mode": "eval", "batch_size": 8, "seed": 0}


def dataset() -> Json:
    """A data set."""
    said = {"id": "ds0", "name": "Made-up pairs", "unit": "image", "unit_count": 40}
    return said | {"contains_personal_data": "no"}


def _full_model() -> Json:
    return {
        "version": "2",
        "architecture": "relu",
        "parameter_count": 0,
        "weights": {"files": ["weights"], "framework": "pytorch"},
        "probe": {"file": "probe", "atol": 1e-5, "rtol": 1e-3},
    }


def _operations() -> list[Json]:
    return [
        {"op": "grayscale"},
        {"op": "resize", "size": [10, 10], "interpolation": "bilinear", "antialias": True},
        {"op": "center_crop", "size": [8, 8]},
        {"op": "pad", "pixels": [1, 1, 1, 1], "value": 0.0},
        {"op": "pad", "pixels": 1, "value": -1.5},
        {"op": "rescale", "scale": 0.00392156862745098, "offset": 0.0},
        {"op": "normalize", "mean": [0.5], "std": [0.25], "axis": "channel"},
    ]


def _full_site() -> Json:
    module = {"scheme": "torch-module", "module": "relu", "port": "output", "index": 0, "call": 0}
    said = site("s0", "y") | {"label": "after the activation", "probe": {"mean": "s0.mean", "l2": "s0.l2"}}
    said["addresses"].append(module)
    return said


def _full_run() -> Json:
    said = run() | {"limit": 40, "started": "2026-01-31T08:00:00Z", "finished": "2026-01-31T08:00:01.5Z"}
    said["engine"]["provider"] = "CPUExecutionProvider"
    return said


def _full_dataset() -> Json:
    return dataset() | {
        "split": "train",
        "license": "CC0-1.0",
        "url": "https://example.org/pairs",
        "description": "Forty pairs of numbers.",
    }


def _privacy() -> Json:
    return {
        "unit": "image",
        "min_unit_count": 10,
        "suppression": "none",
        "extremes_policy": "unit-clipped",
        "differential_privacy": {"definition": "zCDP", "rho": 0.5},
        "attestation": "declared-by-publisher",
    }
