"""Tensors and numbers from a ``.pt`` file without unpickling it.

Such a file is a zip archive: a pickle, which says what is there, and the raw bytes of each tensor. A pickle is a
program. This one is never run: its instructions are listed by the standard library's disassembler, and the few that lay
out a dictionary of tensors and numbers are followed by hand. Anything else is refused by name. Nothing is imported,
nothing is called, and no size that the pickle states is believed before the bytes are there.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfmeta.data.archives import ZIP_DAMAGE
from dfmeta.errors import DataError
from dfmeta.records._foreign_bytes import FILE_LIMIT, read_bytes

PROGRAM_LIMIT = 2**20
MEMBER_LIMIT = 4096
_STORAGES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype("<u2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
_TENSOR, _ORDERED = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_SAVE = "Save the dictionary with safetensors, or with a current torch.save and nothing in it but tensors and numbers."
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE")
_WORDS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(frozen=True, slots=True)
class _Name:
    """Something that the pickle would import."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Raw numbers in a member of the archive."""

    dtype: str
    key: str
    count: int


class _Mark:
    """Where a run of items begins."""


def read(path: str | Path) -> dict[str, np.ndarray | int | float | str | bool | None]:
    """A dictionary of tensors and plain values.

    Args:
        path: what ``torch.save`` of torch 1.6 or later wrote.

    Returns:
        Tensors as arrays (bfloat16 as float32), numbers, text and None as they are.

    Raises:
        DataError: any other file, or a pickle that does more than lay out such a dictionary.
    """
    where, raw = str(path), read_bytes(path, FILE_LIMIT)
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except ZIP_DAMAGE:
        found = "a file that is no zip archive, and so a bare pickle or something else"
        raise DataError(where, found, "a .pt file of torch 1.6 or later", _SAVE) from None
    with archive:
        members = _members(archive, where, len(raw))
        program = next((name for name in members if name.rsplit("/", 1)[-1] == "data.pkl"), None)
        if program is None:
            raise DataError(where, "no data.pkl", "one, as torch.save writes it", _SAVE)
        folder = program[: -len("data.pkl")]
        order = _bytes(archive, members, f"{folder}byteorder", where) if f"{folder}byteorder" in members else b"little"
        if order.strip() != b"little":
            raise DataError(where, f"byte order {order[:16]!r}", "little", _SAVE)
        if members[program].file_size > PROGRAM_LIMIT:
            found = f"a pickle of {members[program].file_size} bytes"
            raise DataError(where, found, f"at most {PROGRAM_LIMIT}, for a few tensors", _SAVE)
        text = _bytes(archive, members, program, where)

        def numbers(key: str) -> bytes:
            return _bytes(archive, members, f"{folder}data/{key}", where)

        return _Reader(where, numbers).run(text)


def _members(archive: zipfile.ZipFile, where: str, size: int) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > MEMBER_LIMIT:
        raise DataError(where, f"{len(listed)} members", f"at most {MEMBER_LIMIT}", _SAVE)
    members = {info.filename: info for info in listed}
    if len(members) < len(listed):
        raise DataError(where, "a member that is there twice", "each once", _SAVE)
    if sum(info.file_size for info in listed) > size:
        raise DataError(where, "members that share their bytes", "members of their own", _SAVE)
    for info in listed:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise DataError(f"{where}: {info.filename!r}", "a packed or encrypted member", "a stored one", _SAVE)
    return members


def _bytes(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, where: str) -> bytes:
    if name not in members:
        raise DataError(where, f"no member {name!r}", "one for each tensor", "Fetch the file again.")
    try:
        with archive.open(members[name]) as file:
            return file.read(members[name].file_size)
    except ZIP_DAMAGE as error:
        raise DataError(f"{where}: {name!r}", f"broken bytes ({error})", "whole ones", "Fetch it again.") from None


class _Reader:
    """Follows the instructions that lay out data, and refuses all others."""

    def __init__(self, where: str, numbers: Callable[[str], bytes]) -> None:
        self.where, self.numbers = where, numbers
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, bytes] = {}

    def run(self, program: bytes) -> dict[str, Any]:
        """The dictionary that the program lays out.

        Raises:
            DataError: an instruction or a name that has no place there.
        """
        try:
            for code, argument, place in pickletools.genops(program):
                if code.name == "STOP":
                    break
                self._step(code.name, argument, place)
            found = self.stack.pop()
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            text = f"a pickle that is broken ({type(error).__name__})"
            raise DataError(self.where, text, "what torch.save writes", _SAVE) from None
        plain = isinstance(found, dict) and all(isinstance(name, str) for name in found)
        if not plain or any(isinstance(value, (_Name, _Storage, _Mark, dict, list, tuple)) for value in found.values()):
            kind = "a nested value" if plain else f"a {type(found).__name__.strip('_').lower()}"
            raise DataError(self.where, kind, "a dictionary of tensors and numbers", _SAVE)
        return dict(found)

    def _step(self, name: str, argument: Any, place: int | None) -> None:
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("SETITEM", "SETITEMS"):
            items = self._last(2) if name == "SETITEM" else self._marked()
            if not isinstance(self.stack[-1], dict) or not all(isinstance(key, str) for key in items[::2]):
                raise DataError(f"{self.where}, pickle byte {place}", "entries of no dictionary", "names", _SAVE)
            self.stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name not in ("PROTO", "FRAME"):
            self.stack.append(self._pushed(name, argument, place))

    def _pushed(self, name: str, argument: Any, place: int | None) -> Any:
        """What an instruction leaves on the stack."""
        if name in _WORDS:
            return _WORDS[name]
        if name in _NUMBERS or name in _TEXTS:
            return argument
        if name in ("BINGET", "LONG_BINGET"):
            return self.memo[argument]
        if name in ("MARK", "EMPTY_DICT", "EMPTY_TUPLE"):
            return {"MARK": _Mark(), "EMPTY_DICT": {}, "EMPTY_TUPLE": ()}[name]
        if name == "GLOBAL":
            return self._allowed(str(argument))
        return self._built(name, place)

    def _built(self, name: str, place: int | None) -> Any:
        """What an instruction makes of what lies on the stack."""
        if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            return tuple(self._marked() if name == "TUPLE" else self._last(int(name[-1])))
        if name == "BINPERSID":
            return self._storage(self.stack.pop())
        if name == "REDUCE":
            return self._made(*self._last(2))
        found = f"the instruction {name}"
        raise DataError(f"{self.where}, pickle byte {place}", found, "those that lay out tensors and numbers", _SAVE)

    def _last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError(count)
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _marked(self) -> list[Any]:
        place = max(number for number, item in enumerate(self.stack) if isinstance(item, _Mark))
        taken = self._last(len(self.stack) - place)
        return taken[1:]

    def _allowed(self, text: str) -> _Name:
        if text not in _STORAGES and text not in (_TENSOR, _ORDERED):
            found = f"a pickle that asks for {text.replace(' ', '.')[:80]!r}"
            raise DataError(self.where, found, "one of tensors and numbers alone", f"It was not run. {_SAVE}")
        return _Name(text)

    def _storage(self, found: Any) -> _Storage:
        kind, storage, key, _, count = found
        if kind != "storage" or not isinstance(storage, _Name) or storage.text not in _STORAGES:
            raise TypeError(kind)
        if not isinstance(key, str) or not key.isalnum() or type(count) is not int or count < 0:
            raise TypeError(key)
        return _Storage(storage.text, key, count)

    def _made(self, name: Any, given: Any) -> Any:
        if name == _Name(_ORDERED) and given == ():
            return {}
        if name != _Name(_TENSOR) or not isinstance(given[0], _Storage):
            raise TypeError(name)
        storage, offset, shape, steps = given[:4]
        return self._tensor(storage, offset, shape, steps)

    def _tensor(self, storage: _Storage, offset: Any, shape: Any, steps: Any) -> np.ndarray:
        if storage.key not in self.storages:
            self.storages[storage.key] = self.numbers(storage.key)
        raw, dtype = self.storages[storage.key], _STORAGES[storage.dtype]
        sizes = [offset, *shape, *steps]
        size = math.prod(shape)
        # Row by row and end to end, as torch.save leaves whole tensors: a view could stand for any size.
        rows = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        loose = [step for extent, step, row in zip(shape, steps, rows, strict=True) if extent > 1 and step != row]
        if any(type(number) is not int or number < 0 for number in sizes) or loose:
            raise DataError(
                self.where, f"a tensor of shape {list(shape)} and strides {list(steps)}", "a whole one", _SAVE
            )
        if storage.count * dtype.itemsize != len(raw) or offset + size > storage.count:
            found = f"{len(raw)} bytes for {storage.count} numbers, and {size} of them used from {offset} on"
            raise DataError(f"{self.where}: tensor {storage.key}", found, "as many bytes as stated", "Fetch it again.")
        values: np.ndarray = np.frombuffer(raw, dtype, size, offset * dtype.itemsize).reshape(shape)
        if storage.dtype == "torch BFloat16Storage":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values
