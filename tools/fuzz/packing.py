"""A folder as one string of bytes, so that it can be mutated: member after member, each of some sort.

A member is one byte for its sort, two for the length of its path, the path, four for the length of its content, and
the content; numbers are little-endian. Any bytes are some folder: what is cut short or cannot be made is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE, LINK, FOLDER, PIPE = range(4)
_SORTS = 4


@dataclass(slots=True)
class Member:
    """One entry: a file, a link (whose content is its target), a folder, or a named pipe."""

    path: str
    content: bytes
    sort: int = FILE


def pack(members: Iterable[Member]) -> bytes:
    """The bytes of a folder."""
    parts = []
    for member in members:
        name = os.fsencode(member.path)[: 2**16 - 1]
        parts += [bytes([member.sort]), len(name).to_bytes(2, "little"), name]
        parts += [len(member.content).to_bytes(4, "little"), member.content]
    return b"".join(parts)


def members_of(raw: bytes) -> list[Member]:
    """The folder that bytes stand for."""
    found, cursor = [], 0
    while cursor + 7 <= len(raw):
        sort = raw[cursor] % _SORTS
        length = int.from_bytes(raw[cursor + 1 : cursor + 3], "little")
        cursor += 3
        name = raw[cursor : cursor + length]
        size = int.from_bytes(raw[cursor + length : cursor + length + 4], "little")
        cursor += length + 4
        found.append(Member(os.fsdecode(name), raw[cursor : cursor + size], sort))
        cursor += size
    return found


def of_folder(path: Path) -> bytes:
    """The bytes of a folder that is on the disk."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return pack(Member(each.relative_to(path).as_posix(), each.read_bytes()) for each in files)


def unpack(raw: bytes, folder: Path) -> None:
    """Make the folder; nothing is ever made outside it, whatever the paths say."""
    folder.mkdir()
    for member in members_of(raw):
        parts = member.path.split("/")
        if "\0" in member.path or any(part in ("", ".", "..") for part in parts):
            continue
        try:
            _make(folder, parts, member)
        except (OSError, ValueError):
            # A name too long, a file where a folder should be, a name that is taken: a folder without that member.
            continue


def _make(folder: Path, parts: list[str], member: Member) -> None:
    for count in range(1, len(parts)):
        step = folder.joinpath(*parts[:count])
        if step.is_symlink():
            return
        step.mkdir(exist_ok=True)
    path = folder.joinpath(*parts)
    if os.path.lexists(path):
        return
    if member.sort == FILE:
        path.write_bytes(member.content)
    elif member.sort == LINK:
        path.symlink_to(os.fsdecode(member.content))
    elif member.sort == FOLDER:
        path.mkdir()
    else:
        os.mkfifo(path)
