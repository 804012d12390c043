"""Everything that can be said about a bundle without running its model: all faults, not only the first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from dfmeta.bundle import members, sidecar
from dfmeta.bundle.reader import Bundle, read_manifest
from dfmeta.bundle.safetensors_strict import Header
from dfmeta.errors import BundleError, DfmetaError, IntegrityError, Problem, SchemaError, UnsupportedVersion
from dfmeta.schema import load_manifest, v1

_CONTAINERS = ("records", "probe", "model.weights")


@dataclass(frozen=True, slots=True)
class Report:
    """What validation found.

    Attributes:
        valid: there is no problem.
        problems: everything that breaks the format.
        warnings: what a reader passes over.
        identity: sha256 of the manifest's bytes, once they could be read.
        files: members examined.
        records: records whose numbers were examined by their kind.
        bytes_hashed: bytes of all members that were read.
    """

    valid: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    identity: str | None
    files: int
    records: int
    bytes_hashed: int


@dataclass(slots=True)
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    identity: str | None = None
    files: int = 0
    records: int = 0
    bytes_hashed: int = 0

    def report(self) -> Report:
        return Report(
            not self.problems,
            tuple(self.problems),
            tuple(self.warnings),
            self.identity,
            self.files,
            self.records,
            self.bytes_hashed,
        )


def validate(path: str | os.PathLike[str], *, strict: bool = False) -> Report:
    """Examine a bundle: manifest, every member's bytes, every sidecar's structure, every record's numbers.

    It never raises for a bad bundle, opens only what the manifest lists, and does not use the network. What
    it does not decide: whether the graph is safe to run, whether the numbers are true, and who wrote them.

    Args:
        path: the folder that holds ``dfmeta.json``.
        strict: for authors: members and values that the format does not define are problems too.
    """
    findings = _Findings()
    try:
        with members.folder(path) as root:
            _examine(root, path, strict, findings)
    except BundleError as error:
        findings.problems.append(Problem(error.where, "no-folder", error.found, error.expected, error.fix))
    return findings.report()


def _examine(root: int, path: str | os.PathLike[str], strict: bool, findings: _Findings) -> None:
    raw = read_manifest(root)
    if isinstance(raw, Problem):
        findings.problems.append(raw)
        return
    findings.identity = hashlib.sha256(raw).hexdigest()
    try:
        loaded = load_manifest(raw, strict=strict)
    except SchemaError as error:
        findings.problems += error.problems
        return
    except UnsupportedVersion as error:
        findings.problems.append(Problem(error.where, "unsupported-version", error.found, error.expected, error.fix))
        return
    findings.warnings += loaded.warnings
    headers: dict[str, Header] = {}
    for file in loaded.manifest.files:
        findings.files += 1
        header = _file(root, file, findings)
        if header is not None:
            headers[file.id] = header
    bundle = Bundle(Path(path), loaded.manifest, findings.identity)
    _contents(bundle, headers, findings)


def _file(root: int, file: v1.File, findings: _Findings) -> Header | None:
    """Hash one member whole; the header of what is a container, if all of it is in order."""
    with members.member(root, file.path) as opened:
        if isinstance(opened, Problem):
            findings.problems.append(opened)
            return None
        problem = members.size_problem(opened, file.path, file.size)
        if problem:
            findings.problems.append(problem)
            return None
        raw = sidecar.read_header(opened, file) if file.role in _CONTAINERS else None
        head = raw.raw if isinstance(raw, sidecar.RawHeader) else b""
        digest = members.sha256_of(opened, file.size, file.path, head)
    if isinstance(digest, Problem):
        findings.problems.append(digest)
        return None
    findings.bytes_hashed += file.size
    problem = members.digest_problem(file.path, "wrong-sha256", digest, file.sha256)
    if problem is None and isinstance(raw, sidecar.RawHeader):
        problem = sidecar.header_digest_problem(raw, file)
    # Nothing is parsed before its digest has been found right.
    for fault in (problem, raw):
        if isinstance(fault, Problem):
            findings.problems.append(fault)
            return None
    return _header(raw, file, findings) if isinstance(raw, sidecar.RawHeader) else None


def _header(raw: sidecar.RawHeader, file: v1.File, findings: _Findings) -> Header | None:
    try:
        return sidecar.verify_header(raw, file)
    except SchemaError as error:
        findings.problems += [replace(each, where=f"{file.path}: {each.where}") for each in error.problems]
        return None


def _contents(bundle: Bundle, headers: dict[str, Header], findings: _Findings) -> None:
    manifest = bundle.manifest
    paired = set()
    for file in manifest.files:
        if file.id in headers and file.role != "model.weights":
            problems = list(sidecar.pairing_problems(manifest, file, headers[file.id]))
            findings.problems += problems
            if not problems:
                paired.add(file.id)
    for record in manifest.records:
        if record.file in paired:
            _record(bundle, record, headers[record.file], findings)
    probe = manifest.model.probe
    if probe is not None and probe.file in paired:
        findings.problems += _probe(bundle)


def _probe(bundle: Bundle) -> Iterator[Problem]:
    try:
        yield from sidecar.probe_problems(bundle.manifest, bundle.probe_tensors())
    except DfmetaError as error:
        yield _changed(error)


def _record(bundle: Bundle, record: v1.Record, header: Header, findings: _Findings) -> None:
    spec = sidecar.kind_spec(record)
    if isinstance(spec, str):
        findings.warnings.append(f"{spec}.")
        return
    findings.records += 1
    problems = sidecar.layout_problems(bundle.manifest, record, header, spec)
    findings.problems += problems or _numbers(bundle, record, spec)


def _numbers(bundle: Bundle, record: v1.Record, spec: ModuleType) -> list[Problem]:
    try:
        tensors = bundle.record_tensors(record.id)
    except IntegrityError as error:
        return [Problem(error.where, "wrong-tensor-sha256", error.found, error.expected, error.fix)]
    except DfmetaError as error:
        return [_changed(error)]
    return list(spec.check(tensors, f"record {record.id}"))


def _changed(error: DfmetaError) -> Problem:
    """The file was in order a moment ago."""
    return Problem(error.where, "changed-while-read", error.found, error.expected, error.fix)
