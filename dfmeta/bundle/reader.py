"""Reading a bundle: the manifest at once, everything else when asked for, and nothing unverified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from dfmeta.bundle import members, sidecar
from dfmeta.bundle.safetensors_strict import LENGTH_BYTES, Header, header_length, parse_header
from dfmeta.errors import BundleError, Problem, SchemaError, UnknownName
from dfmeta.schema import MANIFEST_NAME, SHARD_NAME, json_strict, load_manifest, v1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model release: a folder with a verified manifest, and the members that the manifest pins.

    Attributes:
        path: the folder.
        manifest: what the bundle says about itself.
        identity: sha256 of the manifest's bytes, in hexadecimal; it pins everything else.
        warnings: what this reader passes over.
    """

    path: Path
    manifest: v1.Manifest
    identity: str
    warnings: tuple[str, ...] = ()
    _headers: dict[str, Header] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and verify the manifest, and nothing else.

        Args:
            path: the folder that holds ``dfmeta.json``.

        Raises:
            BundleError: no folder, or no readable manifest in it.
            SchemaError: the manifest breaks the format.
            UnsupportedVersion: a later major version, or a required feature that we do not know.
        """
        with members.folder(path) as root:
            raw = _accept(read_manifest(root))
        loaded = load_manifest(raw, str(Path(path) / MANIFEST_NAME))
        return cls(Path(path), loaded.manifest, hashlib.sha256(raw).hexdigest(), loaded.warnings)

    def member(self, file_id: str) -> bytes:
        """All bytes of a member, its size and digest verified on what is returned.

        Args:
            file_id: the id in ``files[]``.

        Raises:
            UnknownName: no such id.
            IntegrityError: other bytes than the manifest pins.
            BundleError: no regular file is there.
        """
        file = self._file(file_id)
        with members.folder(self.path) as root, members.member(root, file.path) as opened:
            return _accept(_read_whole(_accept(opened), file))

    def graph_bytes(self) -> bytes:
        """The teacher's ONNX bytes, verified.

        Raises:
            BundleError: the bundle has no graph, or no regular file is there.
            IntegrityError: other bytes than the manifest pins.
        """
        graph = self.manifest.model.graph
        if graph is None:
            fix = "Ask the publisher for a bundle with a graph."
            raise BundleError(str(self.path), "a bundle without a graph", "one with model.graph", fix)
        return self.member(graph.file)

    def tensor(self, record_id: str, statistic: str) -> np.ndarray:
        """One tensor of a record, reading only the sidecar's header and that tensor's bytes.

        Args:
            record_id: the id in ``records[]``.
            statistic: the key in the record's ``tensors``.

        Returns:
            A writable array of the dtype and shape that the record's kind lays down.

        Raises:
            UnknownName: no such record or statistic.
            IntegrityError: other bytes than the manifest pins.
            SchemaError: a header that breaks the format, or does not hold what the record says.
            BundleError: no regular file is there, or the record is not :func:`~dfmeta.bundle.usable`.
        """
        record = self._record(record_id)
        if statistic not in record.tensors:
            raise UnknownName(f"statistic of record {record_id!r}", statistic, record.tensors)
        return self._tensors(record, [statistic])[statistic]

    def record_tensors(self, record_id: str) -> dict[str, np.ndarray]:
        """All tensors of a record by statistic; see :meth:`tensor`."""
        record = self._record(record_id)
        return self._tensors(record, list(record.tensors))

    def probe_tensors(self) -> dict[str, np.ndarray]:
        """All tensors of the probe by name; empty if the bundle has none.

        Raises:
            IntegrityError: other bytes than the manifest pins.
            SchemaError: a header that breaks the format, or other tensors than the manifest implies.
            BundleError: no regular file is there.
        """
        probe = self.manifest.model.probe
        if probe is None:
            return {}
        file = self._file(probe.file)
        raw = self.member(file.id)
        length = _accept(header_length(raw[:LENGTH_BYTES], len(raw)))
        header = parse_header(raw[LENGTH_BYTES : LENGTH_BYTES + length], len(raw), file.path)
        _refuse(file.path, list(sidecar.pairing_problems(self.manifest, file, header)))
        return sidecar.slice_tensors(raw, header)

    def _file(self, id: str) -> v1.File:
        return _known("file", id, self.manifest.file, (file.id for file in self.manifest.files))

    def _record(self, id: str) -> v1.Record:
        return _known("record", id, self.manifest.record, (record.id for record in self.manifest.records))

    def _tensors(self, record: v1.Record, statistics: list[str]) -> dict[str, np.ndarray]:
        file = self._file(record.file)
        spec = sidecar.kind_spec(record)
        if isinstance(spec, str):
            fix = "Use the other records, or a later version of dfmeta."
            raise BundleError(f"{self.path}, record {record.id!r}", spec, "a kind, version and group known here", fix)
        with members.folder(self.path) as root, members.member(root, file.path) as opened:
            descriptor = _accept(opened)
            header = self._header(descriptor, file)
            _refuse(file.path, sidecar.layout_problems(self.manifest, record, header, spec))
            found = {}
            for statistic in statistics:
                tensor = record.tensors[statistic]
                where = f"{file.path}: {tensor.name}"
                values = sidecar.read_tensor(descriptor, header.tensors[tensor.name], tensor.sha256, where)
                found[statistic] = _accept(values)
        return found

    def header(self, file_id: str) -> Header:
        """The header of a sidecar of records, verified by its own digest, and paired with the manifest.

        Args:
            file_id: the id in ``files[]``.

        Raises:
            UnknownName: no such id.
            IntegrityError: other bytes than the manifest pins.
            SchemaError: a header that breaks the format, or other tensors than the manifest names.
            BundleError: no regular file is there, or its header has no digest of its own.
        """
        file = self._file(file_id)
        if file.role != "records" or file.header_sha256 is None:
            raise BundleError(f"{self.path}, file {file_id!r}", f"role {file.role}", "a sidecar of records")
        with members.folder(self.path) as root, members.member(root, file.path) as opened:
            return self._header(_accept(opened), file)

    def _header(self, descriptor: int, file: v1.File) -> Header:
        if file.id not in self._headers:
            _accept(members.size_problem(descriptor, file.path, file.size))
            raw = _accept(sidecar.read_header(descriptor, file))
            _accept(sidecar.header_digest_problem(raw, file))
            header = sidecar.verify_header(raw, file)
            _refuse(file.path, list(sidecar.pairing_problems(self.manifest, file, header)))
            self._headers[file.id] = header
        return self._headers[file.id]


def read_manifest(root: int) -> bytes | Problem:
    """The bytes of ``dfmeta.json``, at most what the format allows."""
    with members.member(root, MANIFEST_NAME) as opened:
        if isinstance(opened, Problem):
            return _private_shard(root) or opened
        size, limit = os.fstat(opened).st_size, json_strict.MANIFEST_LIMITS.size
        if size > limit:
            return Problem(MANIFEST_NAME, "too-large", f"{size} bytes", f"at most {limit}")
        return members.read(opened, size, 0, MANIFEST_NAME)


def _private_shard(root: int) -> Problem | None:
    """What a folder without a manifest is, if it is what recording one part of the data leaves."""
    with members.member(root, SHARD_NAME) as opened:
        if isinstance(opened, Problem):
            return None
    found, fix = "a private shard, which is no release", "Never publish it. Add shards up with dfmeta merge."
    return Problem(MANIFEST_NAME, "private-shard", found, "a bundle", fix)


def _read_whole(descriptor: int, file: v1.File) -> bytes | Problem:
    problem = members.size_problem(descriptor, file.path, file.size)
    if problem:
        return problem
    raw = members.read(descriptor, file.size, 0, file.path)
    if isinstance(raw, Problem):
        return raw
    actual = hashlib.sha256(raw).hexdigest()
    return members.digest_problem(file.path, "wrong-sha256", actual, file.sha256) or raw


def _accept(value: T | Problem) -> T:
    if isinstance(value, Problem):
        raise members.error_for(value)
    return value


def _known(what: str, id: str, find: Callable[[str], T | None], known: Iterable[str]) -> T:
    item = find(id)
    if item is None:
        raise UnknownName(what, id, known)
    return item


def _refuse(where: str, problems: list[Problem]) -> None:
    if problems:
        raise SchemaError(where, problems)
