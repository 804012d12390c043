"""Opening a member: by descriptor, never by following a link, and only if it is the plain file it should be.

Every function returns either what was asked or the :class:`~dfmeta.errors.Problem` in the way; a reader
raises it with :func:`error_for`, validation collects it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dfmeta.errors import BundleError, IntegrityError, Problem

# What is read is hashed while it is still in the processor's own cache.
CHUNK = 2**18
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_INTEGRITY = {"wrong-size", "wrong-sha256", "wrong-header-sha256", "wrong-tensor-sha256", "truncated"}
_BLOB = re.compile(r"((?:\.\./)+)blobs/([0-9a-f]{40}|[0-9a-f]{64})")


def error_for(problem: Problem) -> BundleError:
    """The exception that says the same."""
    kind = IntegrityError if problem.code in _INTEGRITY else BundleError
    return kind(problem.where, problem.found, problem.expected, problem.fix)


@contextmanager
def folder(path: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the bundle's own folder, which may be reached by a link.

    Raises:
        BundleError: no folder is there.
    """
    try:
        descriptor = os.open(path, _FOLDER)
    except OSError as error:
        raise BundleError(str(path), _reason(error), "a folder with a dfmeta.json", "Check the path.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def member(root: int, path: str) -> Iterator[int | Problem]:
    """A descriptor of a regular file below the folder, or what is wrong with it.

    No component may be a link. The one exception is the Hugging Face cache, where a file of a snapshot is a
    link to ``blobs/<digest>`` of the same repository: it is resolved by hand, and leads nowhere else.
    """
    found = _opened(root, path)
    try:
        yield found
    finally:
        if isinstance(found, int):
            os.close(found)


def _opened(root: int, path: str) -> int | Problem:
    *folders, name = path.split("/")
    held = [os.dup(root)]
    try:
        for part in folders:
            held.append(os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=held[-1]))
        descriptor = _descend(root, held[-1], name, len(folders))
    except OSError as error:
        return _open_problem(path, error)
    finally:
        for each in held:
            os.close(each)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return _not_a_file(path)
    return descriptor


def _descend(root: int, parent: int, name: str, depth: int) -> int:
    try:
        return os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK):
            raise
        blob = _cache_blob(root, os.readlink(name, dir_fd=parent), depth)
        if blob is None:
            raise
    blobs = os.open("../../blobs", _FOLDER | os.O_NOFOLLOW, dir_fd=root)
    try:
        return os.open(blob, _READ, dir_fd=blobs)
    finally:
        os.close(blobs)


def _cache_blob(root: int, target: str, depth: int) -> str | None:
    """The blob that a link of a Hugging Face snapshot names; None for any other link."""
    match = _BLOB.fullmatch(target)
    if match is None or len(match[1]) != len("../") * (depth + 2):
        return None
    try:
        snapshots = os.stat("../../snapshots", dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return match[2] if os.path.samestat(snapshots, os.stat("..", dir_fd=root)) else None


def _open_problem(path: str, error: OSError) -> Problem:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if error.errno == errno.ENOTDIR:
            return Problem(path, "missing-file", "a link or a file where a folder should be", "a regular file")
        return Problem(path, "missing-file", "no such file", "a regular file", "Fetch the whole bundle again.")
    if error.errno in (errno.ELOOP, errno.EMLINK):
        fix = "Replace the link by the file itself."
        return Problem(path, "symlink", "a symbolic link", "a regular file", fix)
    if error.errno == errno.ENXIO:
        return _not_a_file(path)
    return Problem(path, "unreadable", _reason(error), "a readable file")


def _not_a_file(path: str) -> Problem:
    return Problem(path, "not-a-file", "something that is not a regular file", "a regular file")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def size_problem(descriptor: int, path: str, size: int) -> Problem | None:
    """A problem if the open file is not of the size that the manifest pins."""
    actual = os.fstat(descriptor).st_size
    if actual == size:
        return None
    return Problem(path, "wrong-size", f"{actual} bytes", f"{size} bytes", "Fetch this file again.")


def read_into(descriptor: int, buffer: memoryview, offset: int, path: str) -> Problem | None:
    """Fill the buffer from the file, or say why not.

    Args:
        descriptor: of the open file.
        buffer: writable bytes.
        offset: where to begin in the file.
        path: what to call the file in messages.
    """
    done = 0
    try:
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
            if count == 0:
                return Problem(path, "truncated", f"{offset + done} bytes", f"{offset + len(buffer)} bytes")
            done += count
    except OSError as error:
        return Problem(path, "unreadable", _reason(error), "a readable file")
    return None


def read(descriptor: int, count: int, offset: int, path: str) -> bytes | Problem:
    """``count`` bytes of the file from ``offset``, or why not."""
    buffer = bytearray(count)
    return read_into(descriptor, memoryview(buffer), offset, path) or bytes(buffer)


def hashed_into(descriptor: int, buffer: memoryview, offset: int, path: str) -> str | Problem:
    """Fill the buffer as :func:`read_into` does; the digest of what is then in it, or why not."""
    digest = hashlib.sha256()
    for start in range(0, len(buffer), CHUNK):
        part = buffer[start : start + CHUNK]
        problem = read_into(descriptor, part, offset + start, path)
        if problem:
            return problem
        digest.update(part)
    return digest.hexdigest()


def sha256_of(
    descriptor: int, size: int, path: str, head: bytes = b"", stopped: threading.Event | None = None
) -> str | Problem:
    """The digest of the first ``size`` bytes, in constant memory.

    Args:
        descriptor: of the open file.
        size: how many bytes.
        path: what to call the file in messages.
        head: the first bytes, where they were read before: what is parsed is then what is hashed.
        stopped: once set, from another thread, the digest is given up.
    """
    digest, buffer, offset = hashlib.sha256(head), memoryview(bytearray(CHUNK)), len(head)
    while offset < size:
        part = buffer[: min(CHUNK, size - offset)]
        problem = read_into(descriptor, part, offset, path)
        if problem:
            return problem
        digest.update(part)
        offset += len(part)
        if stopped is not None and stopped.is_set():
            return Problem(path, "unreadable", "a reading that was given up", "all of the file")
    return digest.hexdigest()


def digest_problem(path: str, code: str, actual: str, pinned: str) -> Problem | None:
    """A problem if a digest is not the one that the manifest pins."""
    if actual == pinned:
        return None
    return Problem(path, code, f"sha256 {actual[:16]}…", f"{pinned[:16]}…", "The bytes changed: fetch this file again.")
