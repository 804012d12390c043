"""Bytes of a bundle: JSON as clause 3.1 has it, safetensors as 5.1, opened as 2.3 says. POSIX only."""

import errno
import hashlib
import json
import math
import os
import re
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

LIMITS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "limits.json").read_bytes())
LARGEST, SIDECAR = LIMITS["manifest"]["largest_integer"], LIMITS["sidecar"]
# A string that does not end reaches to the end of the text, and nothing is looked at twice.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
STEPS = np.array([(chr(byte) in "[{") - (chr(byte) in "]}") for byte in range(256)], np.int32)
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I8": "|i1", "U8": "|u1"}
SIZES = dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1) | dict.fromkeys(("U16", "I16", "F16", "BF16"), 2)
SIZES |= dict.fromkeys(("U32", "I32", "F32"), 4) | dict.fromkeys(("U64", "I64", "F64"), 8)
HEADER = {"array_items": SIDECAR["header_array_items"], "string_bytes": SIDECAR["header_string_bytes"]}
Arrays = dict[str, np.ndarray[Any, Any]]
PREFIX, CHUNK = 8, 1 << 20
KEEP: int = PREFIX + SIDECAR["header_bytes"]  # of a file, enough for its header
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CODES = {errno.ENOENT: "missing-file", errno.ENOTDIR: "missing-file", errno.ELOOP: "symlink", errno.ENXIO: "not-a-file"}


class Refused(Exception):
    """What is wrong with a bundle: a code of ``error-codes.md``, and a place that can hold untrusted text, cut."""

    def __init__(self, code: str, where: str) -> None:
        self.code, self.where = code, where[:200]
        super().__init__(f"{self.where!a}: {code}")


def demand(fine: object, code: str, where: str) -> None:
    """Refuse unless all is fine."""
    if not fine:
        raise Refused(code, where)


def load(data: bytes, where: str, levels: int, limits: dict[str, int]) -> Any:
    """The one document in ``data``, nested ``levels`` deep at most; ``limits`` are those of 3.1 for a manifest."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        demand(len(dict(items)) == len(items), "duplicate-key", where)
        return dict(items)

    def number(digits: str) -> int | float:
        whole = digits.lstrip("-").isdigit()  # 20 digits are too many already; in a header -0 is no integer (5.1)
        value = int(digits[:20]) if whole and (digits != "-0" or limits is not HEADER) else float(digits)
        demand(abs(value) <= (LARGEST if whole else math.nextafter(math.inf, 0)), "number-out-of-range", where)
        return value

    hooks: Any = {"object_pairs_hook": pairs, "parse_int": number, "parse_float": number}
    hooks["parse_constant"] = lambda name: demand(False, "not-a-number", where)
    demand(not data.startswith(b"\xef\xbb\xbf"), "byte-order-mark", where)
    try:
        text = data.decode()
        depth = np.cumsum(STEPS[np.frombuffer(STRING.sub(b"", data), np.uint8)], dtype=np.int32)
        demand(depth.max(initial=0) <= levels, "too-deep", where)
        found = json.loads(text, **hooks)
        values = [found]
        while values:
            value = values.pop()
            if isinstance(value, str):
                demand(len(value.encode()) <= limits.get("string_bytes", math.inf), "string-too-long", where)
            elif isinstance(value, dict | list):
                most = limits.get("object_members" if isinstance(value, dict) else "array_items", math.inf)
                demand(len(value) <= most, "too-many-items", where)
                values += [*value, *value.values()] if isinstance(value, dict) else value
    except ValueError as problem:
        codes: dict[type, str] = {UnicodeDecodeError: "not-utf8", UnicodeEncodeError: "lone-surrogate"}
        raise Refused(codes.get(type(problem), "not-json"), where) from None
    return found


def tensors(head: bytes, file: dict[str, Any], bundle: str | None) -> Arrays:
    """The tensors of a sidecar of the bundle with this id, whose bytes are ``head``; none of weights (no id)."""
    where, size = file["path"], file["size"]
    demand(size >= PREFIX, "truncated", where)
    base = PREFIX + int.from_bytes(head[:PREFIX], "little")
    demand(PREFIX + 2 <= base <= min(KEEP, size), "header-length", where)
    pinned = file.get("header_sha256")
    demand(pinned in (None, hashlib.sha256(head[:base]).hexdigest()), "wrong-header-sha256", where)
    demand(head[PREFIX] == ord("{"), "header-start", where)
    header = load(head[PREFIX:base], where, SIDECAR["header_levels"], HEADER)
    metadata = header.pop("__metadata__", {} if bundle is None else None)
    fine = isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())
    demand(fine and (bundle is None or metadata.keys() == {"dfmeta"}), "bad-metadata", where)
    demand(bundle is None or metadata["dfmeta"] == bundle, "wrong-bundle", where)
    demand(len(header) <= SIDECAR["tensors"], "too-many-items", where)
    found = {name: _tensor(name, entry, base, size, bundle is None, where) for name, entry in header.items()}
    covered = base
    for begin, end, *_ in sorted(found.values()):
        demand(begin <= covered, "hole", where)
        demand(begin == covered, "overlap", where)
        covered = end
    demand(covered == size, "hole", where)
    kept = found.items() if bundle is not None else ()
    return {name: np.frombuffer(head[at:end], DTYPES[kind]).reshape(shape) for name, (at, end, kind, shape) in kept}


def _tensor(name: str, entry: Any, base: int, size: int, weights: bool, where: str) -> tuple[Any, ...]:
    place = f"{where}: {name}"
    named = name and name.isprintable() if weights else re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", name)
    most = SIDECAR["weight_name_bytes" if weights else "tensor_name_bytes"]
    demand(named and len(name.encode()) <= most, "bad-tensor-name", place)
    demand(isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}, "bad-entry", place)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    demand(isinstance(dtype, str) and dtype in (SIZES if weights else DTYPES), "bad-dtype", place)
    for numbers, code in ((shape, "bad-shape"), (offsets, "bad-offsets")):
        demand(isinstance(numbers, list) and len(numbers) <= SIDECAR["rank"], code, place)
        demand(all(type(number) is int and number >= 0 for number in numbers), code, place)
    demand(math.prod(extent or 1 for extent in shape) * SIZES[dtype] <= SIDECAR["tensor_bytes"], "bad-shape", place)
    begin, end = (base + offset for offset in offsets) if len(offsets) == 2 else (0, -1)
    demand(begin <= end <= size and end - begin == math.prod(shape) * SIZES[dtype], "bad-offsets", place)
    return begin, end, dtype, tuple(shape)


class Folder:
    """A folder that stays open until the stack is left, so that it cannot be exchanged between two members."""

    def __init__(self, path: str | os.PathLike[str], stack: ExitStack) -> None:
        self.path = os.path.realpath(path)
        demand(os.path.isdir(self.path), "no-folder", "bundle")
        self.handle = _open([self.path], None, "bundle", stack)
        names = [name for name in os.listdir(self.handle) if name in ("dfmeta.json", "dfmeta-shard.json")]
        demand(names != ["dfmeta-shard.json"], "private-shard", "bundle")
        self.repository, snapshots = os.path.split(os.path.dirname(self.path))
        self.links = snapshots == "snapshots"

    def take(self, path: str, keep: int, size: int | None = None, sha256: str | None = None) -> bytes:
        """The first ``keep`` bytes of a file, once its size and the digest of all its bytes are right."""
        digest, head, names, link = hashlib.sha256(), bytearray(), path.split("/"), os.path.join(self.path, path)
        target = os.readlink(link) if os.path.islink(link) else ""
        blob = re.fullmatch(r"((?:\.\./)+)blobs/([0-9a-f]{40}|[0-9a-f]{64})", target)
        if self.links and blob and blob[1] == "../" * (len(names) + 1):  # the one link that is allowed: the hub's cache
            names = [self.repository, "blobs", blob[2]]
        with ExitStack() as stack:
            handle = _open(names, self.handle, path, stack)
            found = os.fstat(handle)
            demand(stat.S_ISREG(found.st_mode), "not-a-file", path)
            demand(size in (None, found.st_size), "wrong-size", path)
            left = keep if size is None else size
            while left and (chunk := os.read(handle, min(left, CHUNK))):
                digest.update(chunk)
                head += chunk[: max(0, keep - len(head))]
                left -= len(chunk)
        demand(size is None or not left, "truncated", path)
        demand(sha256 in (None, digest.hexdigest()), "wrong-sha256", path)
        return bytes(head)


def _open(names: list[str], here: int | None, path: str, stack: ExitStack) -> int:
    for name in names:
        try:
            here = os.open(name, FLAGS, dir_fd=here)
        except OSError as problem:
            raise Refused(CODES.get(problem.errno or 0, "unreadable"), path) from None
        stack.callback(os.close, here)
    return here if here is not None else -1
