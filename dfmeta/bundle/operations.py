"""Every step by which dfmeta changes a disk, one function each: what a crash test makes fail, one step at a time.

Whatever is written whole or not at all (bundles, files, folders, shards, checkpoints) is written by these alone, each
called as ``operations.<name>``. They do what the system does and raise what it raises, an ``OSError``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = [
    "close",
    "create",
    "link",
    "make_folder",
    "remove_file",
    "remove_folder",
    "remove_tree",
    "rename",
    "sync",
    "sync_folder",
    "write",
]

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folder(path: Path, mode: int) -> None:
    """Make a folder that is not there."""
    os.mkdir(path, mode)


def create(path: Path, mode: int) -> int:
    """Make a file that is not there; a descriptor to write to."""
    return os.open(path, _NEW, mode)


def write(descriptor: int, data: memoryview) -> int:
    """Write some of the bytes; how many there were."""
    return os.write(descriptor, data)


def sync(descriptor: int) -> None:
    """Bring a file's bytes to the disk itself."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    """Close a file."""
    os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, in one step."""
    os.rename(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, unless that is taken."""
    os.link(source, target)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    path.rmdir()


def remove_tree(path: Path) -> None:
    """Remove a folder and all that it holds."""
    shutil.rmtree(path)
