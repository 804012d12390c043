"""Files that other tools wrote, read as bytes: never more of them than they have, and never more than fits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dfmeta.errors import DataError

# A shape cannot be trusted, but no file is longer than it is: this bounds everything that is read from one.
FILE_LIMIT = 4 * 2**30


def read_bytes(path: str | Path, limit: int = FILE_LIMIT) -> bytes:
    """A regular file, whole.

    Args:
        path: of the file; a link to one is followed.
        limit: bytes that it may have.

    Raises:
        DataError: no such file, no regular file, or a larger one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise DataError(str(path), reason, "a file to read", "Check the path.") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DataError(str(path), "something that is not a regular file", "a regular file", "Check the path.")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > limit:
            raise DataError(str(path), f"{status.st_size} bytes", f"at most {limit}")
        return file.read(limit)


class Cursor:
    """A place in a file's bytes that moves on as they are taken.

    Args:
        raw: the bytes.
        where: what to call the file.
        size: bytes that may be taken: all unless told.
    """

    def __init__(self, raw: bytes, where: str, size: int | None = None) -> None:
        self.raw, self.where, self.place = raw, where, 0
        self.size = len(raw) if size is None else size

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return self.size - self.place

    def take(self, count: int, what: str) -> bytes:
        """The next bytes.

        Raises:
            DataError: fewer are left; the text says of what.
        """
        if not 0 <= count <= self.left:
            raise DataError(
                f"{self.where}, byte {self.place}",
                f"{self.left} bytes left, and {count} for {what}",
                "a whole file",
                "Fetch it again.",
            )
        taken = self.raw[self.place : self.place + count]
        self.place += count
        return taken

    def skip(self, count: int, what: str) -> None:
        """Move on without reading; errors as :meth:`take`."""
        if count > self.left:
            self.take(count, what)
        self.place += count

    def unsigned(self, size: int, what: str) -> int:
        """A little-endian integer of ``size`` bytes, from 0."""
        return int.from_bytes(self.take(size, what), "little")

    def signed(self, size: int, what: str) -> int:
        """A little-endian integer of ``size`` bytes in two's complement."""
        return int.from_bytes(self.take(size, what), "little", signed=True)

    def text(self, length_bytes: int, limit: int, what: str) -> str:
        """A length and as many bytes of UTF-8.

        Raises:
            DataError: more than ``limit`` of them, a negative length, or other bytes.
        """
        length = self.signed(length_bytes, what)
        if not 0 <= length <= limit:
            place = f"{self.where}, byte {self.place - length_bytes}"
            raise DataError(place, f"a length of {length} for {what}", f"0 to {limit}", "Fetch the file again.")
        raw = self.take(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            place = f"{self.where}, byte {self.place - length}"
            raise DataError(place, f"{what} that is no UTF-8", "UTF-8 text", "Fetch the file again.") from None
