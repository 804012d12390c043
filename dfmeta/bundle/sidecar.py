"""A sidecar as the manifest describes it: verified header first, then tensor by tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from dfmeta._catalog import KINDS
from dfmeta.bundle.members import digest_problem, hashed_into, read
from dfmeta.bundle.safetensors_strict import (
    LENGTH_BYTES,
    NUMPY_DTYPES,
    Entry,
    Header,
    header_length,
    parse_header,
)
from dfmeta.errors import DfmetaError, Problem, SchemaError, UnknownName
from dfmeta.schema import probe_tensor_names, v1
from dfmeta.schema.json_strict import shown


@dataclass(frozen=True, slots=True)
class RawHeader:
    """The first bytes of a sidecar, up to its first tensor, not yet parsed."""

    prefix: bytes
    text: bytes

    @property
    def raw(self) -> bytes:
        """All of them, as ``header_sha256`` covers them."""
        return self.prefix + self.text


def read_header(descriptor: int, file: v1.File) -> RawHeader | Problem:
    """The header's bytes, unverified; never more than the format's cap, whatever the file says."""
    prefix = read(descriptor, min(LENGTH_BYTES, file.size), 0, file.path)
    if isinstance(prefix, Problem):
        return prefix
    length = header_length(prefix, file.size)
    if isinstance(length, Problem):
        return Problem(file.path, length.code, length.found, length.expected, length.fix)
    text = read(descriptor, length, LENGTH_BYTES, file.path)
    return text if isinstance(text, Problem) else RawHeader(prefix, text)


def verify_header(raw: RawHeader, file: v1.File) -> Header:
    """Parse a header.

    Raises:
        SchemaError: it breaks the container's rules, or for a sidecar dfmeta's own.
    """
    return parse_header(raw.text, file.size, file.path, sidecar=file.role != "model.weights")


def header_digest_problem(raw: RawHeader, file: v1.File) -> Problem | None:
    """A problem if the manifest pins another header than this one."""
    if file.header_sha256 is None:
        return None
    actual = hashlib.sha256(raw.raw).hexdigest()
    return digest_problem(file.path, "wrong-header-sha256", actual, file.header_sha256)


def read_tensor(descriptor: int, entry: Entry, sha256: str, where: str) -> np.ndarray | Problem:
    """One tensor's values, writable, its own digest verified on the very bytes returned.

    Args:
        descriptor: of the open sidecar.
        entry: from its verified header.
        sha256: what the manifest pins.
        where: what to call the tensor in messages.
    """
    values = np.empty(entry.shape, dtype=NUMPY_DTYPES[entry.dtype])
    buffer = values.reshape(-1).view(np.uint8).data
    actual = hashed_into(descriptor, buffer, entry.start, where)
    if isinstance(actual, Problem):
        return actual
    return digest_problem(where, "wrong-tensor-sha256", actual, sha256) or values


def slice_tensors(raw: bytes, header: Header) -> dict[str, np.ndarray]:
    """All tensors of a file that is in memory, as writable copies."""
    return {
        name: np.frombuffer(raw[entry.start : entry.end], dtype=NUMPY_DTYPES[entry.dtype]).reshape(entry.shape).copy()
        for name, entry in header.tensors.items()
    }


def pairing_problems(manifest: v1.Manifest, file: v1.File, header: Header) -> Iterator[Problem]:
    """What breaks the bijection between a sidecar's tensors and the manifest's references to it."""
    if file.role == "probe":
        probe = manifest.model.probe
        names = set(probe_tensor_names(manifest)) if probe is not None and probe.file == file.id else set()
    else:
        records = (record for record in manifest.records if record.file == file.id)
        names = {tensor.name for record in records for tensor in record.tensors.values()}
    for name in sorted(names - header.tensors.keys()):
        yield Problem(file.path, "missing-tensor", f"no tensor {name!r}", "every tensor that the manifest names")
    for name in sorted(header.tensors.keys() - names):
        yield Problem(file.path, "unreferenced-tensor", f"tensor {name!r}", "only tensors that the manifest names")
    if header.metadata.get("dfmeta") != manifest.bundle.id:
        found = f"a sidecar of {header.metadata.get('dfmeta')!a}"
        yield Problem(file.path, "wrong-bundle", found, f"one of {manifest.bundle.id}")


@lru_cache(maxsize=256)
def _spec(kind: str) -> ModuleType | None:
    """The catalogue looks through every installed package, which is too slow to do for each record."""
    try:
        return KINDS.load(kind, "spec")
    except UnknownName:
        return None


def kind_spec(record: v1.Record) -> ModuleType | str:
    """The specification of a record's kind, or why this reader cannot use the record."""
    if record.group.by not in ("all", "class"):
        return f"record {record.id!r} is grouped by {record.group.by!r}, which is unknown here: it is not usable"
    if record.features not in v1.KNOWN_FEATURES:
        return f"record {record.id!r} has features {record.features!r}, which are unknown here: it is not usable"
    spec = _spec(record.kind)
    if spec is None:
        return f"record {record.id!r} is of kind {record.kind!r}, which is unknown here: it is not usable"
    if record.kind_version != spec.VERSION:
        version = f"version {record.kind_version} of kind {record.kind!r}"
        return f"record {record.id!r} is of {version}, and only {spec.VERSION} is known here: it is not usable"
    return spec


def usable(record: v1.Record) -> bool:
    """Whether this reader knows the record's kind, kind version and group: only then may its numbers be used."""
    return not isinstance(kind_spec(record), str)


def layout_problems(manifest: v1.Manifest, record: v1.Record, header: Header, spec: ModuleType) -> list[Problem]:
    """Where a record's tensors differ from what its kind lays down, by the header alone."""
    where = f"record {record.id}"
    try:
        layout = spec.layout(record.feature_count, _group_count(manifest, record), record.configuration)
    except SchemaError as error:
        return list(error.problems)
    except DfmetaError as error:
        return [Problem(error.where, "bad-configuration", error.found, error.expected, error.fix)]
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        # A kind reads its configuration as it needs it; the manifest may say anything there.
        found = f"a configuration that its kind cannot read ({type(error).__name__}: {error})"
        return [Problem(where, "bad-configuration", found, f"what kind {record.kind} asks for")]
    problems = list(_claim_problems(record, spec, where))
    lengths: dict[str, int] = {}
    for statistic in sorted(layout.keys() - record.tensors.keys()):
        expected = f"{statistic}, as kind {record.kind} has it"
        problems.append(Problem(f"{where}.tensors", "missing-statistic", "no such tensor", expected))
    for statistic in sorted(record.tensors.keys() - layout.keys()):
        expected = f"one of {', '.join(sorted(layout))}"
        problems.append(Problem(f"{where}.tensors", "unknown-statistic", f"{statistic}", expected))
    for statistic in sorted(layout.keys() & record.tensors.keys()):
        entry = header.tensors.get(record.tensors[statistic].name)
        if entry is not None:
            problems += _shape_problems(f"{where}.{statistic}", entry, layout[statistic], lengths)
    return problems


def _claim_problems(record: v1.Record, spec: ModuleType, where: str) -> Iterator[Problem]:
    """What a record says of its numbers, and its kind says otherwise."""
    for name, value in spec.CONVENTIONS.items():
        said = record.conventions.get(name, value)
        if said != value:
            expected = f"{value}, as kind {record.kind} has it"
            yield Problem(f"{where}.conventions", "wrong-convention", f"{name} {shown(said)}", expected)
    if record.mergeable and not spec.MERGEABLE:
        yield Problem(f"{where}.mergeable", "not-mergeable", "true", f"false: kind {record.kind} does not merge")
    fits = getattr(spec, "fits", None)
    if fits is not None and not fits(record.features, record.configuration):
        found = f"features {shown(record.features)}"
        yield Problem(f"{where}.configuration", "bad-configuration", found, "patch with a kernel, others without")
    if getattr(spec, "PAIRED", False) and record.paired_site is None:
        expected = f"one, as kind {record.kind} relates two sites"
        yield Problem(f"{where}.paired_site", "missing-member", "no such member", expected)


def suppression_problems(record: v1.Record, tensors: Mapping[str, np.ndarray]) -> Iterator[Problem]:
    """Groups that the manifest calls suppressed and that have numbers all the same."""
    count = tensors.get("count")
    if count is None or count.ndim != 1:
        return
    for group in record.suppressed_groups:
        if count[group]:
            found = f"a count of {count[group]} in group {group}, which was suppressed"
            yield Problem(f"record {record.id}.count", "not-suppressed", found, "0", "Withhold it, or list it no more.")


def _group_count(manifest: v1.Manifest, record: v1.Record) -> int | None:
    labels = manifest.label_set(record.group.label_set or "")
    return len(labels.names) if record.group.by == "class" and labels is not None else None


def _shape_problems(where: str, entry: Entry, wanted: Any, lengths: dict[str, int]) -> list[Problem]:
    """``lengths`` holds the named ones found so far, and takes up those of this tensor."""
    dtype = NUMPY_DTYPES[entry.dtype].name
    problems = []
    if dtype not in wanted.dtypes:
        problems.append(Problem(where, "wrong-dtype", dtype, " or ".join(sorted(wanted.dtypes))))
    if len(entry.shape) == len(wanted.shape):
        for size, name in zip(entry.shape, wanted.shape, strict=True):
            if isinstance(name, str):
                lengths.setdefault(name, size)
    expected = tuple(lengths.get(size, size) if isinstance(size, str) else size for size in wanted.shape)
    if entry.shape != expected:
        problems.append(Problem(where, "wrong-shape", str(list(entry.shape)), str(list(expected))))
    return problems


def probe_problems(manifest: v1.Manifest, tensors: Mapping[str, np.ndarray]) -> Iterator[Problem]:
    """Where a probe's tensors cannot be what the model's inputs, outputs and sites say; axis 0 is free."""
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            yield Problem(f"probe.{name}", "not-finite", "NaN or infinity", "finite numbers")
    ports: dict[str, v1.Input | v1.Output] = {f"input.{at}": port for at, port in enumerate(manifest.model.inputs)}
    ports |= {f"output.{at}": port for at, port in enumerate(manifest.model.outputs)}
    for name, port in ports.items():
        shape, dtype, stored = tensors[name].shape, tensors[name].dtype.name, _stored_as(port.dtype)
        if len(shape) != len(port.shape) or any(map(_differs, shape[1:], port.shape[1:])):
            yield Problem(f"probe.{name}", "wrong-shape", str(list(shape)), f"{port.shape}, as in the manifest")
        if dtype not in stored:
            expected = f"{' or '.join(stored)}, as the manifest says {shown(port.dtype)}"
            yield Problem(f"probe.{name}", "wrong-dtype", dtype, expected)
    for site in manifest.sites:
        for name in (site.probe.mean, site.probe.l2) if site.probe else ():
            if tensors[name].shape != ():
                yield Problem(f"probe.{name}", "wrong-shape", str(list(tensors[name].shape)), "[]")
            if tensors[name].dtype.kind != "f":
                yield Problem(f"probe.{name}", "wrong-dtype", tensors[name].dtype.name, "a float")


def _stored_as(dtype: str) -> tuple[str, ...]:
    """The dtypes that a probe may have for a value of this one; a sidecar has few."""
    if dtype in ("bool", "int16", "int32", "uint16", "uint32", "uint64"):
        return ("uint8",) if dtype == "bool" else ("int64",)
    kept = tuple(each.name for each in NUMPY_DTYPES.values())
    return (dtype,) if dtype in kept else tuple(name for name in kept if name.startswith("float"))


def _differs(extent: int, wanted: int | str) -> bool:
    return isinstance(wanted, int) and extent != wanted
