"""What is fuzzed: four ways in, each of which takes any bytes and may answer or raise a ``DfmetaError``, nothing else.

Each target also holds the reader to what it says: what it accepts must survive a rewrite, be accepted by the reference
reader of the container, or be readable afterwards. :class:`Broken` says that one of these did not hold.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import packing
import safetensors

from dfmeta.bundle import Bundle, parse_header, usable
from dfmeta.bundle import validate as validate_files
from dfmeta.bundle.safetensors_strict import LENGTH_BYTES, Header, header_length
from dfmeta.bundle.sidecar import slice_tensors
from dfmeta.errors import DfmetaError, GraphError, Problem, SchemaError
from dfmeta.graph import Graph
from dfmeta.pipeline.fit import fit_problems
from dfmeta.schema import dump_manifest, load_manifest

Target = Callable[[bytes], set[str]]
"""Reads any bytes; returns the codes of what it refused, none for what it accepted, or raises a ``DfmetaError``."""


class Broken(Exception):
    """A promise of the reader's that an input shows to be false."""


def manifest(raw: bytes) -> set[str]:
    """JSON, then the schema, then the references; what loads must be the same after a rewrite."""
    loaded = load_manifest(raw)
    try:
        again = load_manifest(dump_manifest(loaded.manifest)).manifest
    except DfmetaError as error:
        raise Broken(f"a manifest that loads, and not after a rewrite: {error}") from error
    if again != loaded.manifest:
        raise Broken("a manifest that is another after a rewrite")
    try:
        load_manifest(raw, strict=True)
    except SchemaError as error:
        return {f"strict:{problem.code}" for problem in error.problems}
    return set()


def header(raw: bytes) -> set[str]:
    """A container as a sidecar and as a weights file; what passes must lie end to end and suit the reference reader."""
    length = header_length(raw[:LENGTH_BYTES], len(raw))
    if isinstance(length, Problem):
        return {length.code}
    text = raw[LENGTH_BYTES : LENGTH_BYTES + length]
    codes: set[str] = set()
    for sidecar in (True, False):
        try:
            found = parse_header(text, len(raw), sidecar=sidecar)
        except SchemaError as error:
            codes |= {problem.code for problem in error.problems}
            continue
        _require_cover(found, len(raw))
        _require_reference(raw)
        if sidecar:
            slice_tensors(raw, found)
    return codes


def _require_cover(header: Header, size: int) -> None:
    cursor = header.size
    for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != cursor or entry.end < entry.start:
            raise Broken(f"tensors that do not lie end to end at byte {cursor}")
        cursor = entry.end
    if cursor != size:
        raise Broken(f"tensors that end at byte {cursor} of {size}")


def _require_reference(raw: bytes) -> None:
    try:
        safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise Broken(f"a container that the reference reader refuses: {error}") from error


def graph(raw: bytes) -> set[str]:
    """The gate and shape inference; what passes must have its constants and its interface."""
    opened = Graph.from_bytes(raw, "graph")
    _ = opened.initializers, opened.parameter_count, [opened.value(name) for name in opened.values]
    return set()


def folder(raw: bytes) -> set[str]:
    """A whole bundle on a disk in memory: validation, every member, every record, the gate, and the fit.

    Running the graph on the probe is left out: that is a verb's work, done apart from the process that reads.
    """
    with tempfile.TemporaryDirectory(dir=_memory(), prefix="dfmeta-fuzz-") as root:
        path = Path(root, "bundle")
        packing.unpack(raw, path)
        report = validate_files(path)
        codes = {problem.code for problem in report.problems}
        try:
            bundle = Bundle.open(path)
        except DfmetaError:
            if report.valid:
                raise Broken("a valid bundle that does not open") from None
            return codes
        if report.valid:
            _require_no_links(path, bundle)
        codes |= _read_all(bundle, report.valid)
        return codes


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - names below it are made by tempfile


def _require_no_links(path: Path, bundle: Bundle) -> None:
    for file in bundle.manifest.files:
        steps = [path / part for part in (file.path, *map(str, Path(file.path).parents[:-1]))]
        if any(stat.S_ISLNK(os.lstat(step).st_mode) for step in steps):
            raise Broken(f"a valid bundle whose member {file.path!r} is reached by a link")


def _read_all(bundle: Bundle, valid: bool) -> set[str]:
    """Each part on its own, so that one that is refused hides no other."""
    manifest = bundle.manifest
    parts: list[Callable[[], object]] = [partial(bundle.member, file.id) for file in manifest.files]
    parts += [partial(bundle.record_tensors, record.id) for record in manifest.records if usable(record)]
    parts.append(bundle.probe_tensors)
    codes: set[str] = set()
    for part in parts:
        try:
            part()
        except DfmetaError as error:
            if valid:
                raise Broken(f"a valid bundle of which a part cannot be read: {error}") from error
            codes.add(type(error).__name__)
    if manifest.model.graph is not None:
        codes |= _read_graph(bundle)
    return codes


def _read_graph(bundle: Bundle) -> set[str]:
    try:
        opened = Graph.from_bytes(bundle.graph_bytes(), "graph")
    except GraphError as error:
        return {error.code}
    except DfmetaError as error:
        return {type(error).__name__}
    return {problem.code for problem in fit_problems(bundle.manifest, opened)}


TARGETS: dict[str, Target] = {"manifest": manifest, "header": header, "graph": graph, "folder": folder}
"""Every target by name."""
