"""Data sets that are images in class folders, in a folder or a ``.zip``."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from dfmeta.data.archives import ZIP_DAMAGE
from dfmeta.data.columns import UNNAMED, Array, Content
from dfmeta.errors import DataError, MissingExtra

# Named one by one: Pillow also opens formats that start other programs (EPS) or read other files.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_FILE_BYTES = 64 << 20
MAX_TOTAL_BYTES = 256 << 30
MAX_PIXELS = 64 << 20
_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"})
_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_LAYOUT = "<split>/<class>/<file> or <class>/<file>"
_COMPRESSIONS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "LZMA",
}

# What Pillow's decoders raise on damaged bytes.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class ImageColumn:
    """Images that are read and decoded one batch at a time.

    Attributes:
        where: the folder or archive, for messages.
        names: each unit's name in it, in order.
        read: gives the bytes of one name.
    """

    where: str
    names: tuple[str, ...]
    read: Read

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.names)

    @property
    def dtype(self) -> str:
        """Always ``uint8``."""
        return "uint8"

    @cached_property
    def item_shape(self) -> tuple[int, ...]:
        """``(h, w)`` or ``(h, w, 3)`` of the first image; others may differ."""
        return tuple(self._decode(0).shape)

    @property
    def raw(self) -> bool:
        """Always True."""
        return True

    def rows(self, indices: NDArray[np.int64]) -> list[Array]:
        """The images at ``indices``: uint8 ``[h, w]`` (grayscale) or ``[h, w, 3]`` (RGB) each."""
        return [self._decode(int(index)) for index in indices]

    def unit(self, index: int) -> str:
        """The image's name, such as ``train/cat/0001.jpg``."""
        return f"{self.where}, {self.names[index]}"

    def _decode(self, index: int) -> Array:
        return decode(self.read(self.names[index]), self.unit(index))


def decode(data: bytes, where: str) -> Array:
    """Decode one image: uint8 ``[h, w]`` when it is stored as grayscale, else RGB ``[h, w, 3]``.

    Transparency is dropped, of an animation only the first frame is read, and rotation tags are ignored.

    Raises:
        MissingExtra: Pillow is not installed.
        DataError: not an image of :data:`FORMATS`, damaged, too large, or of more than 8 bits a channel.
    """
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            # Pillow's warnings are about size, which is checked here, and about tags that do not matter.
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_header(image.mode, image.size, where)
                return np.array(image.convert("L" if image.mode in _GREY_MODES else "RGB"), dtype=np.uint8)
    except (*_DAMAGE, pillow.DecompressionBombError) as error:
        fix = "Remove the file, or write it again."
        raise DataError(where, f"an image that cannot be decoded ({error})", "a whole image", fix) from error


def _check_header(mode: str, size: tuple[int, int], where: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(where, f"{size[0]} x {size[1]} pixels", f"at most {MAX_PIXELS}", "Make it smaller.")
    if mode not in _GREY_MODES | _COLOUR_MODES:
        fix = "Convert it to 8 bits a channel, or give float arrays instead."
        raise DataError(where, f"pixels of mode {mode}", "8-bit grayscale or colour", fix)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("PIL", "images", "decoding images") from error
    return Image


def open_folder(path: Path, split: str | None) -> Content:
    """Open a folder of class-named folders of images.

    Raises:
        DataError: another layout, no such split, or a file that is no image where an image belongs.
    """
    return _content(path, split, _walk(path, "", 4), lambda name: _read_file(path / name))


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    """The files below a folder, links followed: the depth, not a memory of visits, ends a loop of links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield prefix + entry.name
            elif depth > 1 and not entry.name.startswith("."):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(str(path), f"a file that cannot be read ({error})", "an image") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(str(path), "a larger file", f"at most {MAX_FILE_BYTES} bytes", "Make the image smaller.")
    return data


def open_zip(path: Path, split: str | None) -> Content:
    """Open a ``.zip`` of class-named folders of images; nothing is extracted, and no name becomes a path.

    Raises:
        DataError: not a ``.zip``, members that are encrypted, oversized or compressed in an unknown
            way, another layout, no such split, or a file that is no image where an image belongs.
    """
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_DAMAGE as error:
        raise DataError(str(path), f"an unreadable file ({error})", "a .zip", "Download it again.") from error
    files = [member for member in archive.infolist() if not member.is_dir()]
    members = {member.filename: member for member in files}
    if len(members) < len(files):
        raise DataError(str(path), "two files of one name", "a name for each file", "Pack it again.")
    total = sum(member.file_size for member in members.values())
    if total > MAX_TOTAL_BYTES:
        raise DataError(str(path), f"{total} bytes when unpacked", f"at most {MAX_TOTAL_BYTES}", "Split it.")
    for member in members.values():
        _check_member(path, member)
    return _content(path, split, members, lambda name: _read_member(archive, path, name))


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    where = f"{path}, {member.filename}"
    if member.flag_bits & 1:
        raise DataError(where, "an encrypted file", "a plain one", "Pack the archive without a password.")
    if member.compress_type not in _COMPRESSIONS:
        known = ", ".join(f"{name} ({method})" for method, name in _COMPRESSIONS.items())
        fix = "Pack the archive again with one of these."
        raise DataError(where, f"compression method {member.compress_type}", f"one of {known}", fix)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(where, "a link", "a file", "Pack the files themselves.")
    if member.file_size > MAX_FILE_BYTES:
        raise DataError(where, f"{member.file_size} bytes", f"at most {MAX_FILE_BYTES}", "Make the image smaller.")


def _read_member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    try:
        # zipfile stops at the declared size, which is under the cap, and checks the CRC there.
        return archive.read(name)
    except ZIP_DAMAGE as error:
        raise DataError(f"{path}, {name}", f"a damaged member ({error})", "an image", "Pack it again.") from error


def _content(path: Path, split: str | None, names: Iterable[str], read: Read) -> Content:
    images = sorted(_images(path, names))
    splits = sorted({place[0] for place, _ in images if len(place) == 3})
    split = _choose_split(path, split, splits)
    # The classes of every split count, so that one label means the same class in all of them.
    classes = sorted({place[-2] for place, _ in images})
    label_of = {name: label for label, name in enumerate(classes)}
    chosen = [(place, name) for place, name in images if split is None or place[0] == split]
    column = ImageColumn(str(path), tuple(name for _, name in chosen), read)
    labels = np.asarray([label_of[place[-2]] for place, _ in chosen], dtype=np.int64)
    return Content({UNNAMED: column}, labels, tuple(classes), split)


def _images(path: Path, names: Iterable[str]) -> list[tuple[tuple[str, ...], str]]:
    """``(parts, name)`` of every image; what lies above the class folders is not part of the data."""
    files = [(PurePosixPath(name).parts, name) for name in names if _is_data(path, name)]
    images = [(parts, name) for parts, name in files if len(parts) > 1 and _is_image(name)]
    if not images:
        raise DataError(str(path), "no images in class folders", _LAYOUT, "Give every class a folder of its own.")
    depth = len(images[0][0])
    for parts, name in files:
        where = f"{path}, {name}"
        if len(parts) > 3:
            raise DataError(where, f"a file {len(parts) - 1} folders deep", _LAYOUT, "Move the file up.")
        if _is_image(name) and len(parts) not in (1, depth):
            raise DataError(where, "images at two depths", _LAYOUT, "Move all images to one depth.")
        if not _is_image(name) and len(parts) >= depth:
            known = ", ".join(sorted(SUFFIXES))
            raise DataError(where, "a file that is no image", f"one of {known}", "Move it out of the class folder.")
    return images


def _is_data(path: Path, name: str) -> bool:
    """False for hidden files and what operating systems leave behind."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or "\\" in name:
        raise DataError(f"{path}, {name}", "an unsafe name", "a name below the archive", "Pack it again.")
    return not any(part.startswith(".") or part in _CLUTTER for part in parts)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _choose_split(path: Path, split: str | None, splits: list[str]) -> str | None:
    if split in splits or (split is None and not splits):
        return split
    if split is None and len(splits) == 1:
        return splits[0]
    if not splits:
        raise DataError(
            f"{path}, split {split!r}",
            "one set without splits",
            f"{split}/<class>/<file>",
            f"Say {path} alone.",
        )
    found = "no split named" if split is None else f"split {split!r}"
    raise DataError(str(path), found, f"one of {', '.join(splits)}", f"Say {path}:{splits[0]}, for example.")
