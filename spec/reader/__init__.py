"""A second reader of the dfmeta format 1.0, written from its text: the standard library and NumPy, nothing else.

``read`` stops at the first problem. ONNX files are verified and not looked into.
"""

import hashlib
import os
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from reader import kinds, manifest
from reader.files import KEEP, LIMITS, Arrays, Folder, Refused, demand, load, tensors

FLOATS = ("float64", "float32", "float16")
STORED_AS = {name: (name,) for name in (*FLOATS, "int64", "int8", "uint8")} | {"bool": ("uint8",)}
STORED_AS |= dict.fromkeys(("int16", "int32", "uint16", "uint32", "uint64"), ("int64",))
__all__ = ["Bundle", "Refused", "read"]


class Bundle(NamedTuple):
    """A valid bundle: the SHA-256 of its manifest, the manifest, records by id and tensors by statistic, the probe."""

    identity: str
    manifest: dict[str, Any]
    records: dict[str, Arrays]
    probe: Arrays


def read(path: str | os.PathLike[str], memory: int = 1 << 32) -> Bundle:
    """Validate a bundle and return it, or raise ``Refused``, with ``reader-memory`` where more bytes are asked for."""
    with ExitStack() as stack:
        folder = Folder(path, stack)
        data = folder.take("dfmeta.json", LIMITS["manifest"]["bytes"] + 1)
        demand(len(data) <= LIMITS["manifest"]["bytes"], "too-large", "dfmeta.json")
        document = load(data, "dfmeta.json", LIMITS["manifest"]["levels"], LIMITS["manifest"])
        asked = manifest.check(document)
        needed = sum(file["size"] for file in document["files"] if file["role"] in ("records", "probe"))
        demand(needed <= memory, "reader-memory", "files")
        sidecars = {file["id"]: _file(folder, file, document["bundle"]["id"]) for file in document["files"]}
    there = {(file, name) for file, arrays in sidecars.items() for name in arrays}
    demand(asked <= there, "missing-tensor", f"{list(asked - there)[:1]}")
    demand(there <= asked, "unreferenced-tensor", f"{list(there - asked)[:1]}")
    labels = {labels["id"]: len(labels["names"]) for labels in document["model"].get("label_sets", [])}
    usable = [record for record in document.get("records", []) if kinds.usable(record)]
    records = {record["id"]: _record(record, sidecars[record["file"]], labels) for record in usable}
    return Bundle(hashlib.sha256(data).hexdigest(), document, records, _probe(document["model"], sidecars))


def _file(folder: Folder, file: dict[str, Any], bundle: str) -> Arrays:
    """Verify a member; of a sidecar, its tensors."""
    sidecar, weights = file["role"] in ("records", "probe"), file["role"] == "model.weights"
    head = folder.take(file["path"], file["size"] if sidecar else KEEP * weights, file["size"], file["sha256"])
    return tensors(head, file, bundle if sidecar else None) if sidecar or weights else {}


def _fit(array: np.ndarray[Any, Any], dtypes: tuple[str, ...], shape: tuple[int, ...], where: str) -> None:
    demand(array.dtype.name in dtypes, "wrong-dtype", where)
    fine = array.ndim == len(shape) and all(want in (-1, size) for want, size in zip(shape, array.shape, strict=True))
    demand(fine, "wrong-shape", where)


def _record(record: dict[str, Any], sidecar: Arrays, labels: dict[str, int]) -> Arrays:
    arrays = {name: sidecar[reference["name"]] for name, reference in record["tensors"].items()}
    for name, (dtypes, shape) in kinds.layout(record, labels.get(record["group"].get("label_set"), 0)).items():
        where, digest = f"records: {record['id']}.{name}", hashlib.sha256(arrays[name].tobytes()).hexdigest()
        _fit(arrays[name], dtypes, shape, where)
        demand(digest == record["tensors"][name]["sha256"], "wrong-tensor-sha256", where)
    kinds.examine(record, arrays)
    return arrays


def _probe(model: dict[str, Any], sidecars: dict[str, Arrays]) -> Arrays:
    arrays = sidecars[model["probe"]["file"]] if "probe" in model else {}
    ports = {f"{way}.{at}": port for way in ("input", "output") for at, port in enumerate(model[f"{way}s"])}
    for name, array in arrays.items():
        port = ports.get(name, {"dtype": "", "shape": ()})
        shape = tuple(size if at and type(size) is int else -1 for at, size in enumerate(port["shape"]))
        _fit(array, STORED_AS.get(port["dtype"], FLOATS), shape, f"probe: {name}")
        demand(np.isfinite(array).all(), "not-finite", f"probe: {name}")
    return arrays
