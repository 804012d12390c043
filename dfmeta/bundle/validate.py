"""Everything that can be said about a bundle without running its model: all faults, not only the first.

A sidecar's bytes are hashed twice, as the file's and as each tensor's, and then their numbers are examined. Hashing,
reading and array arithmetic leave the interpreter to other threads, so that the two go on at the same time, each held
to its own digest; what was found about the contents of a file counts only once the whole file has been found right.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from dfmeta.bundle import members, sidecar
from dfmeta.bundle.reader import Bundle, read_manifest
from dfmeta.bundle.safetensors_strict import Header
from dfmeta.errors import BundleError, DfmetaError, IntegrityError, Problem, SchemaError, UnsupportedVersion
from dfmeta.schema import load_manifest, v1

# One thread hashes a file from end to end, the others read records: more than these would wait for it.
_THREADS = 4
_LARGE = 64 * 2**20
"""Bytes of a record above which it is examined alone, so that memory is that of one record and not of several."""

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
    numbers: dict[str, Future[list[Problem]]] = field(default_factory=dict)

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
        findings.problems.append(Problem(error.where, error.code, error.found, error.expected, error.fix))
        return
    findings.warnings += loaded.warnings
    bundle = Bundle(Path(path), loaded.manifest, findings.identity)
    headers: dict[str, Header] = {}
    with _threads() as (pool, stopped):
        hashed = [pool.submit(_hashed, root, file, stopped) for file in loaded.manifest.files]
        findings.numbers = _numbers_ahead(pool, bundle)
        for file, member in zip(loaded.manifest.files, hashed, strict=True):
            findings.files += 1
            header = _file(file, member.result(), findings)
            if header is not None:
                headers[file.id] = header
        _contents(bundle, headers, findings)


@contextmanager
def _threads() -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """Threads to work in, and the event that makes them give up: whoever leaves does not wait for gigabytes."""
    stopped = threading.Event()
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "dfmeta-validate")
    try:
        yield pool, stopped
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Member:
    """The digest of a member, and the header's bytes, read once, of what is a container; or what was in the way."""

    digest: str | Problem
    raw: sidecar.RawHeader | Problem | None = None


def _hashed(root: int, file: v1.File, stopped: threading.Event) -> _Member:
    with members.member(root, file.path) as opened:
        if isinstance(opened, Problem):
            return _Member(opened)
        problem = members.size_problem(opened, file.path, file.size)
        if problem:
            return _Member(problem)
        raw = sidecar.read_header(opened, file) if file.role in _CONTAINERS else None
        head = raw.raw if isinstance(raw, sidecar.RawHeader) else b""
        return _Member(members.sha256_of(opened, file.size, file.path, head, stopped), raw)


def _file(file: v1.File, member: _Member, findings: _Findings) -> Header | None:
    """The header of what is a container, if all of the member is in order."""
    if isinstance(member.digest, Problem):
        findings.problems.append(member.digest)
        return None
    findings.bytes_hashed += file.size
    problem = members.digest_problem(file.path, "wrong-sha256", member.digest, file.sha256)
    if problem is None and isinstance(member.raw, sidecar.RawHeader):
        problem = sidecar.header_digest_problem(member.raw, file)
    # Nothing is parsed before its digest has been found right.
    for fault in (problem, member.raw):
        if isinstance(fault, Problem):
            findings.problems.append(fault)
            return None
    return _header(member.raw, file, findings) if isinstance(member.raw, sidecar.RawHeader) else None


def _header(raw: sidecar.RawHeader, file: v1.File, findings: _Findings) -> Header | None:
    try:
        return sidecar.verify_header(raw, file)
    except SchemaError as error:
        findings.problems += [replace(each, where=f"{file.path}: {each.where}") for each in error.problems]
        return None


def _numbers_ahead(pool: ThreadPoolExecutor, bundle: Bundle) -> dict[str, Future[list[Problem]]]:
    """Begin with the numbers of every record that can be read, while its file is still being hashed.

    The reader's own rules hold: a sidecar's header is parsed after its digest was found right, and a record's numbers
    are looked at after each of its tensors was. Whatever is wrong here is passed over: the file's examination says it.
    """
    headers: dict[str, Header] = {}
    for file in bundle.manifest.files:
        if file.role == "records":
            try:
                headers[file.id] = bundle.header(file.id)
            except DfmetaError:
                continue
    alone, begun = threading.Lock(), {}
    for record in bundle.manifest.records:
        spec = sidecar.kind_spec(record)
        header = headers.get(record.file)
        if header is None or isinstance(spec, str):
            continue
        if not sidecar.layout_problems(bundle.manifest, record, header, spec):
            begun[record.id] = pool.submit(_numbers_alone, alone, bundle, record, header, spec)
    return begun


def _numbers_alone(
    alone: threading.Lock, bundle: Bundle, record: v1.Record, header: Header, spec: ModuleType
) -> list[Problem]:
    entries = (header.tensors[tensor.name] for tensor in record.tensors.values())
    with ExitStack() as stack:
        if sum(entry.end - entry.start for entry in entries) > _LARGE:
            stack.enter_context(alone)
        return _numbers(bundle, record, spec)


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
    begun = findings.numbers.get(record.id)
    findings.problems += problems or (begun.result() if begun else _numbers(bundle, record, spec))


def _numbers(bundle: Bundle, record: v1.Record, spec: ModuleType) -> list[Problem]:
    try:
        tensors = bundle.record_tensors(record.id)
    except IntegrityError as error:
        return [Problem(error.where, "wrong-tensor-sha256", error.found, error.expected, error.fix)]
    except DfmetaError as error:
        return [_changed(error)]
    return [*spec.check(tensors, f"record {record.id}"), *sidecar.suppression_problems(record, tensors)]


def _changed(error: DfmetaError) -> Problem:
    """The file was in order a moment ago."""
    return Problem(error.where, "changed-while-read", error.found, error.expected, error.fix)
