"""Bytes that are not those which the manifest pins, and files that are not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vectors.drafts import DIGEST, MANIFEST, Case, Files, gone, put
from vectors.manifests import full, member, small

_GRAPH, _RECORDS = "model.onnx", "dfmeta/records.safetensors"
_case = partial(Case, area="digests", base=small)
_invalid = partial(_case, clause="5.3")


def _bit(path: str, place: int = -1) -> Callable[[Files], None]:
    """One bit of a file turned over."""

    def change(files: Files) -> None:
        raw = bytearray(files[path])
        raw[place] ^= 1
        files[path] = bytes(raw)

    return change


def _cut(path: str, by: int) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(path, files[path][:-by])


def _long(path: str) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(path, files[path] + b"\0")


def _renamed(path: str, new: str) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(new, files.pop(path))


_NOTES = member("notes", "notes", "notes.txt", "text/plain")

CASES = (
    _invalid("bit-of-the-graph", code="wrong-sha256", comment="One bit of the graph.", files=_bit(_GRAPH)),
    _invalid("bit-of-a-number", code="wrong-sha256", comment="One bit of a tensor.", files=_bit(_RECORDS)),
    _invalid(
        "bit-of-a-header", code="wrong-sha256", comment="One bit of a sidecar's header.", files=_bit(_RECORDS, 20)
    ),
    _invalid(
        "bit-of-weights",
        code="wrong-sha256",
        base=full,
        comment="One bit of the weights.",
        files=_bit("model.safetensors"),
    ),
    _invalid(
        "bit-of-the-probe",
        code="wrong-sha256",
        base=full,
        comment="One bit of the probe.",
        files=_bit("dfmeta/probe.safetensors"),
    ),
    _invalid(
        "bit-of-an-unknown-role",
        code="wrong-sha256",
        clause="2.1",
        comment="A member of an unknown role is not opened other than to verify it.",
        draft=lambda draft: (
            draft.manifest["files"].append(dict(_NOTES)),
            draft.members.update({"notes.txt": b"of old"}),
        )[1],
        files=_bit("notes.txt"),
    ),
    _invalid(
        "other-header-sha256",
        code="wrong-header-sha256",
        comment="The header's own digest is another's.",
        change=put("files/1/header_sha256", DIGEST),
    ),
    _invalid(
        "other-tensor-sha256",
        code="wrong-tensor-sha256",
        comment="A tensor's own digest is another's.",
        change=put("records/0/tensors/mean/sha256", DIGEST),
    ),
    _invalid("cut-graph", code="wrong-size", clause="2.3", comment="The last byte is missing.", files=_cut(_GRAPH, 1)),
    _invalid(
        "cut-sidecar", code="wrong-size", clause="2.3", comment="The last number is missing.", files=_cut(_RECORDS, 4)
    ),
    _invalid("long-graph", code="wrong-size", clause="2.3", comment="One byte more.", files=_long(_GRAPH)),
    _invalid(
        "emptied",
        code="wrong-size",
        clause="2.3",
        comment="A file of no bytes.",
        files=lambda files: files.__setitem__(_GRAPH, b""),
    ),
    _invalid("missing-graph", code="missing-file", clause="2.3", comment="No such file.", files=gone(_GRAPH)),
    _invalid("missing-sidecar", code="missing-file", clause="2.3", comment="No such file.", files=gone(_RECORDS)),
    _invalid(
        "missing-manifest",
        code="missing-file",
        clause="2.3",
        comment="A folder without a manifest.",
        files=gone(MANIFEST),
        schema="unparsed",
    ),
    _invalid(
        "folder-for-a-file",
        code="not-a-file",
        clause="2.3",
        comment="A folder under a member's name.",
        files=_renamed(_GRAPH, f"{_GRAPH}/model.onnx"),
    ),
    _invalid(
        "file-for-a-folder",
        code="missing-file",
        clause="2.3",
        comment="A file under a folder's name.",
        files=_renamed(_RECORDS, "dfmeta"),
    ),
    _invalid(
        "folder-for-the-manifest",
        code="not-a-file",
        clause="2.3",
        comment="A folder under the manifest's name.",
        files=_renamed(MANIFEST, f"{MANIFEST}/dfmeta.json"),
        schema="unparsed",
    ),
    _invalid(
        "private-shard",
        code="private-shard",
        clause="2",
        comment="What one part of a recording leaves behind, and nobody publishes.",
        files=_renamed(MANIFEST, "dfmeta-shard.json"),
        schema="unparsed",
    ),
    _case(
        "old-manifest-beside",
        code="",
        clause="2.1",
        folder="valid",
        verdict="valid",
        comment="A copy of the manifest is a file that nothing lists.",
        files=lambda files: files.__setitem__("old/dfmeta.json", files[MANIFEST]),
    ),
)
