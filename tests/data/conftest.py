"""Tiny data sets that the tests of this floor make."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Npz = Callable[..., str]
Zip = Callable[[Mapping[str, bytes]], str]


@pytest.fixture
def npz(tmp_path: Path) -> Npz:
    """Write the named arrays to one ``.npz`` and give its path."""

    def write(**arrays: NDArray[Any]) -> str:
        path = tmp_path / "set.npz"
        np.savez(path, allow_pickle=True, **arrays)
        return str(path)

    return write


@pytest.fixture
def packed(tmp_path: Path) -> Zip:
    """Write a ``.zip`` with these members and give its path."""

    def write(members: Mapping[str, bytes]) -> str:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return str(path)

    return write


@pytest.fixture
def png() -> Callable[..., bytes]:
    """The bytes of a PNG with one level everywhere."""

    def encode(level: int = 0, size: tuple[int, int] = (2, 3), mode: str = "L") -> bytes:
        height, width = size
        target = io.BytesIO()
        Image.new(mode, (width, height), (level,) * 3 if mode == "RGB" else level).save(target, "PNG")
        return target.getvalue()

    return encode
