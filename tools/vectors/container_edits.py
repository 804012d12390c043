"""Changes to a sidecar's bytes, which are then pinned as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vectors.drafts import Draft, Json, container, with_header
from vectors.manifests import SIDECAR, member

_PATH = "dfmeta/records.safetensors"
Bytes = Callable[[bytes], bytes]


def raw_bytes(change: Bytes, path: str = _PATH) -> Callable[[Draft], None]:
    """The sidecar's bytes changed, and then pinned as they are."""

    def apply(draft: Draft) -> None:
        draft.members[path] = change(container(draft.sidecars["records"]))

    return apply


def header(change: Callable[[Json], None], data: Bytes = lambda data: data) -> Callable[[Draft], None]:
    """The header changed, and what follows it."""

    def apply(raw: bytes) -> bytes:
        head, rest = split(raw)
        change(head)
        return with_header(head, data(rest))

    return raw_bytes(apply)


def header_text(old: str, new: str) -> Callable[[Draft], None]:
    """The header's text changed in one place."""

    def apply(raw: bytes) -> bytes:
        length = 8 + int.from_bytes(raw[:8], "little")
        text = raw[8:length].decode("latin-1")
        if old not in text:
            raise ValueError(old)
        return with_header(text.replace(old, new, 1).rstrip().encode("latin-1"), raw[length:])

    return raw_bytes(apply)


def split(raw: bytes) -> tuple[Json, bytes]:
    """Header and data."""
    length = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:length]), raw[length:]


def entry(name: str, **members: Any) -> Callable[[Draft], None]:
    """One tensor's entry changed."""
    return header(lambda head: head[name].update(members))


def weights(header: object, data: bytes = b"") -> Callable[[Draft], None]:
    """A bundle with such weights beside the graph."""

    def apply(draft: Draft) -> None:
        draft.manifest["files"].append(member("weights", "model.weights", "model.safetensors", SIDECAR))
        draft.manifest["model"]["weights"] = {"files": ["weights"]}
        draft.members["model.safetensors"] = with_header(header, data)

    return apply


def renamed(new: str) -> Callable[[Draft], None]:
    """The mean under another name."""
    return header(lambda head: head.__setitem__(new, head.pop("r0.mean")))
