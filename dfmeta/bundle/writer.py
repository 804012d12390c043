"""Writing so that a crash at any moment leaves either nothing visible or a whole, valid result.

Everything goes into a hidden sibling folder first, is flushed to the disk, read back and validated, and only
then takes its final name in one rename. A process that is killed leaves at most the hidden folder behind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dfmeta.bundle.safetensors_strict import (
    LENGTH_BYTES,
    METADATA_KEY,
    Header,
    header_length,
    parse_header,
    write_safetensors,
)
from dfmeta.bundle.staging import appear, appear_file, require_free, staged, sync_parent, write_new, write_tree
from dfmeta.bundle.validate import validate
from dfmeta.errors import BundleError, Problem, SchemaError
from dfmeta.schema import MANIFEST_NAME, dump_manifest, load_manifest, v1

UNLISTED = frozenset({"README.md", "LICENSE"})
"""What may lie in a bundle without being pinned: text for people, which hubs edit."""

_SIDECARS = ("records", "probe")

Content = bytes | Mapping[str, np.ndarray]


def write_bundle(path: str | os.PathLike[str], manifest: v1.Manifest, members: Mapping[str, Content]) -> str:
    """Write a bundle, whole or not at all.

    Sizes and digests are filled in: give files as :meth:`File.draft` and tensors as :meth:`TensorRef.draft`.

    Args:
        path: the folder to make; its parent exists.
        manifest: what to say; its ``files`` name every member but README.md and LICENSE.
        members: content by path inside the bundle; a mapping of arrays becomes a sidecar.

    Returns:
        The bundle's identity: sha256 of the manifest written.

    Raises:
        OutputExists: something is at ``path`` already.
        SchemaError: the manifest or the numbers break the format.
        BundleError: members and manifest do not match, or the disk refused; nothing is visible then.
    """
    final = Path(path)
    require_free(final)
    _same_members(final, manifest, members)
    contents = {name: _bytes_of(content, manifest) for name, content in members.items()}
    document = dump_manifest(complete(manifest, contents))
    load_manifest(document, str(final / MANIFEST_NAME))
    with staged(final) as folder:
        # The manifest last: a bundle without it is no bundle.
        write_tree(folder, {**dict(sorted(contents.items())), MANIFEST_NAME: document})
        report = validate(folder)
        if not report.valid:
            raise SchemaError(str(final), report.problems)
        appear(folder, final)
    sync_parent(final)
    return hashlib.sha256(document).hexdigest()


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write one file with the same care.

    Args:
        path: the file to make; its parent exists.
        data: its bytes.

    Raises:
        OutputExists: something is at ``path`` already.
        BundleError: the disk refused; nothing is visible then.
    """
    final = Path(path)
    require_free(final)
    with staged(final) as temporary:
        write_new(temporary, [memoryview(data)])
        if hashlib.sha256(temporary.read_bytes()).digest() != hashlib.sha256(data).digest():
            raise BundleError(str(final), "other bytes than were written", "the same", "Check the disk.")
        appear_file(temporary, final)
    sync_parent(final)


def write_folder(path: str | os.PathLike[str], members: Mapping[str, bytes]) -> None:
    """Write a folder of a few files that is no bundle, with the same care.

    Args:
        path: the folder to make; its parent exists.
        members: content by path inside it.

    Raises:
        OutputExists: something is at ``path`` already.
        BundleError: the disk refused; nothing is visible then.
    """
    final = Path(path)
    require_free(final)
    with staged(final) as folder:
        write_tree(folder, dict(sorted(members.items())))
        appear(folder, final)
    sync_parent(final)


def complete(manifest: v1.Manifest, contents: Mapping[str, bytes]) -> v1.Manifest:
    """The manifest with every size and digest filled in.

    Args:
        manifest: with drafts.
        contents: the bytes of each file, by path.

    Raises:
        SchemaError: a sidecar given as bytes breaks the format.
    """
    headers: dict[str, Header] = {}
    files = []
    for file in manifest.files:
        raw = contents[file.path]
        update: dict[str, object] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        if file.role in _SIDECARS:
            headers[file.id] = _header(raw, file.path)
            update["header_sha256"] = hashlib.sha256(raw[: headers[file.id].size]).hexdigest()
        files.append(file.model_copy(update=update))
    paths = {file.id: file.path for file in files}
    records = []
    for record in manifest.records:
        header = headers.get(record.file)
        raw = contents[paths[record.file]] if header else b""
        tensors = {key: _pinned(tensor, raw, header) for key, tensor in record.tensors.items()}
        records.append(record.model_copy(update={"tensors": tensors}))
    return manifest.model_copy(update={"files": files, "records": records})


def _pinned(tensor: v1.TensorRef, raw: bytes, header: Header | None) -> v1.TensorRef:
    entry = header.tensors.get(tensor.name) if header else None
    if entry is None:
        # The manifest's own checks name what is missing, in its own words.
        return tensor
    return tensor.model_copy(update={"sha256": hashlib.sha256(raw[entry.start : entry.end]).hexdigest()})


def _header(raw: bytes, path: str) -> Header:
    length = header_length(raw[:LENGTH_BYTES], len(raw))
    if isinstance(length, Problem):
        raise SchemaError(path, [length])
    return parse_header(raw[LENGTH_BYTES : LENGTH_BYTES + length], len(raw), path)


def _same_members(final: Path, manifest: v1.Manifest, members: Mapping[str, Content]) -> None:
    listed = {file.path for file in manifest.files}
    missing, extra = sorted(listed - members.keys()), sorted(members.keys() - listed - UNLISTED)
    if missing:
        raise BundleError(str(final), f"no content for {', '.join(missing)}", "content for every file listed")
    if extra:
        raise BundleError(str(final), f"content for {', '.join(extra)}", "only files that the manifest lists")


def _bytes_of(content: Content, manifest: v1.Manifest) -> bytes:
    return content if isinstance(content, bytes) else write_safetensors(content, {METADATA_KEY: manifest.bundle.id})
