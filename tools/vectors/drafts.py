"""A bundle that is not pinned yet, and the cases that are made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

Json = dict[str, Any]
Change = Callable[[Json], None]
Files = dict[str, bytes]

BUNDLE = "urn:uuid:6f1c2f0e-8a44-4c53-9d0b-2f3d5a7c9e10"
MANIFEST = "dfmeta.json"
DIGEST = "0123456789abcdef" * 4
DTYPES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i1": "I8", "u1": "U8"}


@dataclass(slots=True)
class Draft:
    """A bundle whose sizes and digests are still to be filled in.

    Attributes:
        manifest: what it says.
        sidecars: tensors of each sidecar, by the id of its file.
        members: bytes of members by path; they go before ``sidecars``.
    """

    manifest: Json
    sidecars: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    members: Files = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One vector.

    Attributes:
        id: its name.
        area: what it is about.
        code: the one code of what is not valid; empty for what is.
        clause: of the specification.
        comment: one sentence.
        base: the good bundle that it begins with.
        draft: changes it before sizes and digests are filled in.
        change: changes the manifest afterwards.
        text: changes the manifest's text.
        files: changes the files in the end.
        folder: where it belongs.
        verdict: what a reader must say.
        level: whether the graph's contents decide it.
        schema: what the open JSON Schema says of the manifest.
        strict: whether the strict JSON Schema accepts it.
        warns: whether a reader should warn.
    """

    id: str
    area: str
    code: str
    clause: str
    comment: str
    base: Callable[[], Draft]
    draft: Callable[[Draft], None] | None = None
    change: Change | None = None
    text: Callable[[str], bytes] | None = None
    files: Callable[[Files], None] | None = None
    folder: Literal["valid", "invalid", "compat"] = "invalid"
    verdict: Literal["valid", "invalid", "acceptable"] = "invalid"
    level: Literal["bundle", "graph"] = "bundle"
    schema: Literal["valid", "invalid", "unparsed"] = "valid"
    strict: bool = True
    warns: bool = False

    def build(self) -> Files:
        """Its files by path."""
        draft = self.base()
        if self.draft is not None:
            self.draft(draft)
        files = pinned(draft)
        if self.change is not None:
            self.change(draft.manifest)
        text = text_of(draft.manifest)
        files[MANIFEST] = text.encode() if self.text is None else self.text(text)
        if self.files is not None:
            self.files(files)
        return files

    def entry(self, files: Mapping[str, bytes]) -> Json:
        """What the index says of it."""
        said: Json = {
            "id": self.id,
            "folder": self.folder,
            "area": self.area,
            "level": self.level,
            "verdict": self.verdict,
            "clause": self.clause,
            "comment": self.comment,
            "schema": self.schema,
        }
        if self.verdict != "valid":
            said["code"] = self.code
        if self.verdict != "invalid":
            said |= {"strict_schema": "valid" if self.strict else "invalid", "warns": self.warns}
        lines = (f"{sha256(raw)}  {path}\n" for path, raw in sorted(files.items()))
        return said | {"sha256": sha256("".join(lines).encode())}


def cases_of(area: str, **more: Any) -> tuple[partial[Case], partial[Case]]:
    """How the cases of an area are made: those that break the format, and those that keep to it.

    Args:
        area: what they are about.
        more: what most of them have in common.
    """
    made = partial(Case, area=area, **more)
    return made, partial(made, code="", folder="valid", verdict="valid")


def pinned(draft: Draft) -> Files:
    """Every member's bytes, with sizes and digests filled in."""
    manifest, files = draft.manifest, {}
    for file in manifest["files"]:
        raw = draft.members.get(file["path"])
        if raw is None:
            raw = container(draft.sidecars.get(file["id"], {}))
        files[file["path"]] = raw
        file |= {"size": len(raw), "sha256": sha256(raw)}
        if file["role"] in ("records", "probe"):
            file["header_sha256"] = sha256(raw[: 8 + int.from_bytes(raw[:8], "little")])
    for record in manifest.get("records", []):
        tensors = draft.sidecars.get(record["file"], {})
        for tensor in record["tensors"].values():
            tensor["sha256"] = sha256(tensors[tensor["name"]].tobytes()) if tensor["name"] in tensors else DIGEST
    extra = draft.members.keys() - files.keys()
    return files | {path: draft.members[path] for path in extra}


def container(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A sidecar as the format asks for it."""
    header: Json = {"__metadata__": {"dfmeta": BUNDLE}}
    blocks, cursor = [], 0
    for name, values in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        block = values.tobytes()
        header[name] = {
            "dtype": DTYPES[values.dtype.str[1:]],
            "shape": list(values.shape),
            "data_offsets": [cursor, cursor + len(block)],
        }
        blocks.append(block)
        cursor += len(block)
    return with_header(header, b"".join(blocks))


def with_header(header: object, data: bytes = b"", pad: int = 8) -> bytes:
    """A container of any header, however wrong.

    Args:
        header: what becomes JSON, or the bytes themselves.
        data: what follows it.
        pad: the header's length is made a multiple of it, with spaces.
    """
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % pad)
    return len(text).to_bytes(8, "little") + text + data


def sha256(raw: bytes) -> str:
    """The digest, in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def text_of(value: object) -> str:
    """A value as the vectors have it on disk."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def put(path: str, value: Any) -> Change:
    """A change that sets one place, such as ``files/0/path``, making a member that is not there."""

    def change(manifest: Json) -> None:
        node, last = _parent(manifest, path)
        if isinstance(node, list):
            node.insert(int(last), value) if int(last) >= len(node) else node.__setitem__(int(last), value)
        else:
            node[last] = value

    return change


def drop(path: str) -> Change:
    """A change that removes one member."""

    def change(manifest: Json) -> None:
        node, last = _parent(manifest, path)
        del node[int(last) if isinstance(node, list) else last]

    return change


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(manifest: Json) -> None:
        for each in changes:
            each(manifest)

    return change


def gone(path: str) -> Callable[[Files], None]:
    """One file less; some could not even be made everywhere."""
    return lambda files: files.__delitem__(path)


def before(change: Change) -> Callable[[Draft], None]:
    """A change of the manifest that is made before digests are filled in."""
    return lambda draft: change(draft.manifest)


def _parent(manifest: Json, path: str) -> tuple[Any, str]:
    *steps, last = path.split("/")
    node: Any = manifest
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node[step]
    return node, last
