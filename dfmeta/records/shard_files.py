"""A private folder on disk: arrays, further files, and one JSON document that is written last.

Shards and checkpoints are such folders. Nobody but their owner may read them, and a crash at any moment leaves
either nothing visible or a whole folder. Arrays are written and read one at a time: they may fill the memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dfmeta.bundle import members, operations, parse_header, staging
from dfmeta.bundle.safetensors_strict import LENGTH_BYTES, NUMPY_DTYPES, header_length
from dfmeta.bundle.staging import appear, require_free, staged, sync_parent, write_new
from dfmeta.errors import BundleError, IntegrityError, Problem, SchemaError
from dfmeta.schema import json_strict

if TYPE_CHECKING:
    from _hashlib import HASH

STATE_NAME = "state.safetensors"
FOLDER_MODE, FILE_MODE = 0o700, 0o600

_CODES = {dtype: code for code, dtype in NUMPY_DTYPES.items()}
# The document lists every site of every record: no manifest's limits, but limits.
_DOCUMENT = json_strict.Limits(size=64 * 2**20)

T = TypeVar("T")


def write_private(
    final: Path,
    name: str,
    document: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    further: Mapping[str, bytes],
    *,
    replace: bool = False,
) -> None:
    """Write such a folder, whole or not at all.

    Args:
        final: the folder to make; its parent exists.
        name: of the document's file.
        document: what it says; ``files`` is added, with the size and sha256 of each file.
        arrays: what ``state.safetensors`` holds.
        further: other files, by name.
        replace: put it in the place of a folder that is there already.

    Raises:
        OutputExists: something is at ``final`` already, and ``replace`` is off.
        BundleError: the disk refused; nothing is changed then.
    """
    if not replace:
        require_free(final)
    with staged(final) as folder:
        operations.make_folder(folder, FOLDER_MODE)
        files = {STATE_NAME: _write(folder / STATE_NAME, _safetensors(arrays))}
        for each, content in further.items():
            files[each] = _write(folder / each, iter([memoryview(content)]))
        text = json.dumps({**document, "files": files}, indent=1, allow_nan=False).encode()
        _write(folder / name, iter([memoryview(text)]))
        operations.sync_folder(folder)
        if replace:
            staging.replace(folder, final)
        else:
            appear(folder, final)
    sync_parent(final)


def read_document(folder: Path, name: str) -> dict[str, Any]:
    """The JSON document of such a folder.

    Raises:
        BundleError: no folder, or no such file in it.
        SchemaError: no strict JSON, or no object.
    """
    where = str(folder / name)
    with members.folder(folder) as root, members.member(root, name) as opened:
        descriptor = _accept(opened, where)
        raw = _accept(members.read(descriptor, os.fstat(descriptor).st_size, 0, where), where)
    document = json_strict.parse(raw, where, _DOCUMENT)
    if not isinstance(document, dict):
        raise SchemaError(where, [Problem("document", "wrong-type", json_strict.shown(document), "an object")])
    return document


def read_arrays(folder: Path, document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays, verified.

    Raises:
        IntegrityError: other bytes than the document pins.
        BundleError, SchemaError: no such file, or not of the container's form.
    """
    where = str(folder / STATE_NAME)
    size, sha256 = _pinned(document, STATE_NAME, where)
    with members.folder(folder) as root, members.member(root, STATE_NAME) as opened:
        descriptor = _accept(opened, where)
        _accept(members.size_problem(descriptor, where, size), where)
        prefix = _accept(members.read(descriptor, min(LENGTH_BYTES, size), 0, where), where)
        length = _accept(header_length(prefix, size), where)
        text = _accept(members.read(descriptor, length, LENGTH_BYTES, where), where)
        digest, found = hashlib.sha256(prefix + text), {}
        for name, entry in parse_header(text, size, where).tensors.items():
            found[name] = np.empty(entry.shape, NUMPY_DTYPES[entry.dtype])
            buffer = _bytes(found[name])
            _accept(members.read_into(descriptor, buffer, entry.start, where), where)
            digest.update(buffer)
    _require_digest(where, digest.hexdigest(), sha256)
    return found


def read_further(folder: Path, document: Mapping[str, Any], name: str) -> bytes:
    """Another file, verified; errors as :func:`read_arrays`."""
    where = str(folder / name)
    size, sha256 = _pinned(document, name, where)
    with members.folder(folder) as root, members.member(root, name) as opened:
        descriptor = _accept(opened, where)
        _accept(members.size_problem(descriptor, where, size), where)
        raw = _accept(members.read(descriptor, size, 0, where), where)
    _require_digest(where, hashlib.sha256(raw).hexdigest(), sha256)
    return raw


def _require_digest(where: str, actual: str, pinned: str) -> None:
    if actual != pinned:
        fix = "The bytes changed after they were written: fetch the folder again, or record it again."
        raise IntegrityError(where, f"sha256 {actual[:16]}…", f"{pinned[:16]}…", fix)


def _pinned(document: Mapping[str, Any], name: str, where: str) -> tuple[int, str]:
    try:
        entry = document["files"][name]
        return int(entry["size"]), str(entry["sha256"])
    except (LookupError, TypeError, ValueError):
        raise BundleError(where, "no size and sha256 for it in the document", "both", "Record it again.") from None


def _accept(value: T | Problem | None, where: str) -> T:
    if isinstance(value, Problem):
        error = members.error_for(value)
        raise type(error)(where, value.found, value.expected, value.fix)
    return value  # type: ignore[return-value]


def _safetensors(arrays: Mapping[str, np.ndarray]) -> Iterator[memoryview]:
    """The bytes of :func:`dfmeta.bundle.write_safetensors`, a piece at a time."""
    header: dict[str, object] = {"__metadata__": {"dfmeta": "private"}}
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    cursor = 0
    for name, values in ordered:
        code = _CODES[values.dtype.newbyteorder("<")]
        offsets = [cursor, cursor + values.nbytes]
        header[name] = {"dtype": code, "shape": list(values.shape), "data_offsets": offsets}
        cursor += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for _, values in ordered:
        yield _bytes(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False))


def _bytes(values: np.ndarray) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _write(path: Path, pieces: Iterator[memoryview]) -> dict[str, object]:
    digest: HASH = hashlib.sha256()
    size = 0

    def counted() -> Iterator[memoryview]:
        nonlocal size
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            yield piece

    write_new(path, counted(), FILE_MODE)
    return {"size": size, "sha256": digest.hexdigest()}
