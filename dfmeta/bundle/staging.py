"""The one way in which anything is written: under a hidden name first, then under its own in one step.

A process that dies at any moment leaves at the target what was there before, or the whole of what was to be there;
besides that at most a hidden sibling.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dfmeta import _watched
from dfmeta.bundle import operations
from dfmeta.errors import BundleError, OutputExists

MARK = ".dfmeta-tmp-"
"""What the names of hidden siblings have in common."""

_BLOCK = 8 * 2**20
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def require_free(final: Path) -> None:
    """Nothing is there yet.

    Raises:
        OutputExists: something is.
    """
    if os.path.lexists(final):
        raise OutputExists(final)


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """A hidden sibling name; whatever is left under it afterwards is removed.

    Raises:
        BundleError: the disk refused; the target is as it was then.
    """
    temporary = _sibling(final)
    with _watched.staging(temporary), _tidied(final, temporary):
        yield temporary


@contextmanager
def _tidied(final: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        fix = "Nothing was written: make room, or choose another place."
        raise BundleError(str(final), reason, "a place to write to", fix) from error
    finally:
        _discard(temporary)


def write_tree(folder: Path, members: Mapping[str, bytes], mode: int = 0o777) -> None:
    """Make a folder and its members, in the order given, all of it flushed to the disk.

    Args:
        folder: not there yet; its parent is.
        members: content by path inside the folder.
        mode: of each folder, before the umask.
    """
    operations.make_folder(folder, mode)
    folders = [folder]
    for name, content in members.items():
        _make_parents(folder, name, folders, mode)
        write_new(folder / name, [memoryview(content)])
    for each in reversed(folders):
        operations.sync_folder(each)


def write_new(path: Path, pieces: Iterable[memoryview], mode: int = 0o666) -> None:
    """Write a file that is not there, a piece at a time, and flush it to the disk."""
    descriptor = operations.create(path, mode)
    try:
        for piece in pieces:
            left = piece
            while left:
                left = left[operations.write(descriptor, left[:_BLOCK]) :]
        operations.sync(descriptor)
    finally:
        operations.close(descriptor)


def appear(temporary: Path, final: Path) -> None:
    """Give a folder its name, never taking another's.

    Raises:
        OutputExists: the name was taken meanwhile.
    """
    try:
        operations.rename(temporary, final)
    except OSError as error:
        if error.errno in _TAKEN:
            raise OutputExists(final) from None
        raise


def appear_file(temporary: Path, final: Path) -> None:
    """Give a file its name, never taking another's: a rename would.

    Raises:
        OutputExists: the name was taken meanwhile.
    """
    try:
        operations.link(temporary, final)
    except FileExistsError:
        raise OutputExists(final) from None
    except OSError:
        # A file system without hard links: the smaller promise is all it can keep.
        if os.path.lexists(final):
            raise OutputExists(final) from None
        operations.rename(temporary, final)


def replace(temporary: Path, final: Path) -> None:
    """Give a folder a name that another folder may have, which is put back if that fails, and removed if not.

    No file system swaps two folders in one step everywhere: killed between two renames, the old one is left under a
    hidden name. Whoever replaces keeps a second copy.
    """
    if not os.path.lexists(final):
        operations.rename(temporary, final)
        return
    old = _sibling(final)
    operations.rename(final, old)
    try:
        operations.rename(temporary, final)
    except OSError:
        operations.rename(old, final)
        raise
    # What is not removed now is hidden, and the next one to look removes it.
    with suppress(OSError):
        operations.remove_tree(old)


def remove(folder: Path) -> None:
    """Take a folder away, if it is there: first its name, in one step, then what it holds."""
    if os.path.lexists(folder):
        doomed = _sibling(folder)
        operations.rename(folder, doomed)
        operations.remove_tree(doomed)


def leftovers(folder: Path) -> list[Path]:
    """What killed writers left in a folder that is ours alone."""
    return [path for path in folder.iterdir() if path.name.startswith(".") and MARK in path.name]


def sync_parent(final: Path) -> None:
    """Bring the target's name to the disk, once it is in place.

    Raises:
        BundleError: the disk refused; the target is in place all the same.
    """
    try:
        operations.sync_folder(final.parent)
    except OSError as error:
        fix = "It is in place, but a power failure now might still lose it: check the disk."
        raise BundleError(str(final), f"{error.strerror}", "its folder to reach the disk", fix) from error


def _sibling(final: Path) -> Path:
    return final.parent / f".{final.name}{MARK}{secrets.token_hex(4)}"


def _discard(temporary: Path) -> None:
    try:
        if temporary.is_dir():
            operations.remove_tree(temporary)
        elif os.path.lexists(temporary):
            operations.remove_file(temporary)
    except OSError as error:
        raise BundleError(str(temporary), str(error.strerror), "to be able to remove it", "Remove it.") from error


def _make_parents(folder: Path, name: str, made: list[Path], mode: int) -> None:
    for part in reversed(Path(name).parents[:-1]):
        if folder / part not in made:
            operations.make_folder(folder / part, mode)
            made.append(folder / part)
