"""Changes to a packed folder: one member, as what it is; then the manifest pins the new bytes, most of the time."""

from __future__ import annotations

import hashlib
import json
from random import Random
from typing import Any

import container_mutator
import json_mutator
import onnx_mutator
import packing
from json_mutator import Bytes, Vocabulary
from packing import Member

_MANIFEST = "dfmeta.json"
_PATHS = ("dfmeta.json", "model.onnx", "dfmeta/records.safetensors", "a", "A", "dfmeta", "README.md", "x/y/z", "a\nb")
_TARGETS = (b"../outside", b"/etc/hostname", b"dfmeta.json", b"model.onnx", b".", b"../../blobs/" + b"0" * 64)


def mutate(raw: bytes, limit: int, random: Random, vocabulary: Vocabulary, headers: Vocabulary, plain: Bytes) -> bytes:
    """Another folder, at most ``limit`` bytes.

    Args:
        raw: the packed folder.
        limit: bytes of the result.
        random: decides.
        vocabulary: of good manifests.
        headers: of good headers.
        plain: changes bytes as bytes.
    """
    members = packing.members_of(raw)
    if not members or random.random() < 0.02:
        return plain(raw, limit)
    room = max(limit - len(raw), 0)
    if random.random() < 0.1:
        _structure(members, random)
    else:
        member = random.choice(members)
        member.content = _content(member, len(member.content) + room, random, vocabulary, headers, plain)
    if random.random() < 0.85:
        pin(members)
    out = packing.pack(members)
    return out if len(out) <= limit else raw[:limit]


def _content(
    member: Member, limit: int, random: Random, vocabulary: Vocabulary, headers: Vocabulary, plain: Bytes
) -> bytes:
    if member.path.endswith(".json"):
        return json_mutator.mutate(member.content, limit, random, vocabulary, plain)
    if member.path.endswith(".safetensors"):
        if random.random() < 0.5:
            text, data = container_mutator.split(member.content)
            return container_mutator.joined(text, container_mutator.with_number(data, random))
        return container_mutator.mutate(member.content, limit, random, headers, (), plain)
    if member.path.endswith(".onnx"):
        return onnx_mutator.mutate(member.content, limit, random, (), plain)
    return plain(member.content, limit)


def _structure(members: list[Member], random: Random) -> None:
    """Another path, sort or place of a member."""
    member, choice = random.choice(members), random.random()
    if choice < 0.25:
        member.path = random.choice(_PATHS)
    elif choice < 0.5:
        member.sort = random.choice((packing.LINK, packing.FOLDER, packing.PIPE))
        member.content = random.choice(_TARGETS)
    elif choice < 0.7:
        members.remove(member)
    elif choice < 0.85:
        members.append(Member(random.choice(_PATHS), member.content))
    else:
        # A link to a folder on the way to a member.
        members.insert(0, Member("dfmeta", random.choice(_TARGETS), packing.LINK))


def pin(members: list[Member]) -> None:
    """Fill in sizes and digests, as someone would who controls the whole bundle."""
    contents = {member.path: member.content for member in reversed(members) if member.sort == packing.FILE}
    holders = [member for member in members if member.path == _MANIFEST]
    try:
        document = json.loads(holders[0].content) if holders else None
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    pinned = {}
    for file in _objects(document.get("files")):
        raw = contents.get(file["path"]) if isinstance(file.get("path"), str) else None
        if raw is not None:
            file |= {"size": len(raw), "sha256": _sha256(raw)}
            if "header_sha256" in file:
                file["header_sha256"] = _sha256(raw[: 8 + len(container_mutator.split(raw)[0])])
            pinned[str(file.get("id"))] = raw
    for record in _objects(document.get("records")):
        _pin_tensors(record, pinned.get(str(record.get("file"))))
    holders[0].content = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _pin_tensors(record: dict[str, Any], raw: bytes | None) -> None:
    if raw is None or not isinstance(record.get("tensors"), dict):
        return
    text, data = container_mutator.split(raw)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return
    for tensor in _objects(list(record["tensors"].values())):
        entry = header.get(tensor.get("name")) if isinstance(header, dict) and _is_text(tensor.get("name")) else None
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and all(type(each) is int for each in offsets):
            tensor["sha256"] = _sha256(data[max(offsets[0], 0) : max(offsets[1], 0)])


def _objects(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
