"""Writing so that a crash at any moment leaves either nothing visible or a whole, valid result.

Everything goes into a hidden sibling folder first, is flushed to the disk, read back and validated, and only
then takes its final name in one rename. A process that is killed leaves at most the hidden folder behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dfmeta._watched import staging
from dfmeta.bundle.safetensors_strict import (
    LENGTH_BYTES,
    METADATA_KEY,
    Header,
    header_length,
    parse_header,
    write_safetensors,
)
from dfmeta.bundle.validate import validate
from dfmeta.errors import BundleError, OutputExists, Problem, SchemaError
from dfmeta.schema import MANIFEST_NAME, dump_manifest, load_manifest, v1

BLOCK = 8 * 2**20
UNLISTED = frozenset({"README.md", "LICENSE"})
"""What may lie in a bundle without being pinned: text for people, which hubs edit."""

_SIDECARS = ("records", "probe")
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)

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
    if os.path.lexists(final):
        raise OutputExists(final)
    _same_members(final, manifest, members)
    contents = {name: _bytes_of(content, manifest) for name, content in members.items()}
    document = dump_manifest(complete(manifest, contents))
    load_manifest(document, str(final / MANIFEST_NAME))
    with _staged(final) as folder:
        os.mkdir(folder, 0o777)
        folders = [folder]
        for name, content in sorted(contents.items()):
            _make_parents(folder, name, folders)
            _write_new(folder / name, content)
        # Last: a bundle without its manifest is no bundle, so this is the commit.
        _write_new(folder / MANIFEST_NAME, document)
        for each in reversed(folders):
            _sync(each)
        report = validate(folder)
        if not report.valid:
            raise SchemaError(str(final), report.problems)
        _rename(folder, final)
    _sync_parent(final)
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
    if os.path.lexists(final):
        raise OutputExists(final)
    with _staged(final) as temporary:
        _write_new(temporary, data)
        if hashlib.sha256(temporary.read_bytes()).digest() != hashlib.sha256(data).digest():
            raise BundleError(str(final), "other bytes than were written", "the same", "Check the disk.")
        _link(temporary, final)
    _sync_parent(final)


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


@contextmanager
def _staged(final: Path) -> Iterator[Path]:
    """A hidden sibling name; whatever is left under it afterwards is removed."""
    temporary = final.parent / f".{final.name}.dfmeta-tmp-{secrets.token_hex(4)}"
    with staging(temporary), _tidied(final, temporary):
        yield temporary


@contextmanager
def _tidied(final: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        fix = "Nothing was written: make room, or choose another place."
        raise BundleError(str(final), reason, "a place to write to", fix) from error
    finally:
        _discard(temporary)


def _discard(temporary: Path) -> None:
    try:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(str(temporary), str(error.strerror), "to be able to remove it", "Remove it.") from error


def _make_parents(folder: Path, name: str, made: list[Path]) -> None:
    for part in reversed(Path(name).parents[:-1]):
        if folder / part not in made:
            os.mkdir(folder / part, 0o777)
            made.append(folder / part)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view[:BLOCK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_parent(final: Path) -> None:
    try:
        _sync(final.parent)
    except OSError as error:
        fix = "It is in place, but a power failure now might still lose it: check the disk."
        raise BundleError(str(final), f"{error.strerror}", "its folder to reach the disk", fix) from error


def _rename(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError as error:
        if error.errno in _TAKEN:
            raise OutputExists(final) from None
        raise


def _link(temporary: Path, final: Path) -> None:
    """Give the file its name, never taking another's: a rename would."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise OutputExists(final) from None
    except OSError:
        # A file system without hard links: the smaller promise is all it can keep.
        if os.path.lexists(final):
            raise OutputExists(final) from None
        os.rename(temporary, final)
