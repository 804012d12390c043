"""``.pt`` files without unpickling: what ``torch.save`` writes, and what an attacker would."""

from __future__ import annotations

import contextlib
import io
import os
import pickle  # noqa: TID251 - to write what must be refused
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfmeta.data.archives import ZIP_DAMAGE
from dfmeta.errors import DataError
from dfmeta.records import torch_archive


def saved(path: Path, value: object, **settings: Any) -> Path:
    torch.save(value, path, **settings)
    return path


def rebuilt(path: Path, change: dict[str, bytes]) -> Path:
    """The same archive with other bytes for some members, by the end of their names."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in members.items():
            archive.writestr(name, next((new for end, new in change.items() if name.endswith(end)), raw))
    return path


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32], ids=str
)
def test_every_type_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.arange(12).to(dtype).reshape(3, 4) / 2
    values = values.to(dtype)
    given = {
        "a": values,
        "b": values[0].clone(),
        "n": 70000,
        "x": 0.5,
        "s": "text",
        "none": None,
        "yes": True,
        "big": 2**40,
    }
    found = torch_archive.read(saved(tmp_path / "a.pt", given))
    np.testing.assert_array_equal(found.pop("a"), values.double().numpy())
    np.testing.assert_array_equal(found.pop("b"), values[0].double().numpy())
    assert found == {"n": 70000, "x": 0.5, "s": "text", "none": None, "yes": True, "big": 2**40}


def test_a_scalar_and_a_shared_storage(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    found = torch_archive.read(saved(tmp_path / "a.pt", {"whole": whole, "end": whole[4:], "one": torch.tensor(7)}))
    assert found["end"].tolist() == [4, 5]  # type: ignore[union-attr]
    assert (found["one"].shape, int(found["one"])) == ((), 7)  # type: ignore[arg-type, union-attr]


class _Command:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.made}'",)


def test_code_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = saved(tmp_path / "a.pt", {"flatH": torch.zeros(1), "x": _Command(made)})
    with pytest.raises(DataError, match=r"asks for 'posix\.system', .* It was not run"):
        torch_archive.read(path)
    assert not made.exists()
    torch.load(path, weights_only=False)  # noqa: TID251 - the attack is one
    assert made.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match="no zip archive"):
        torch_archive.read(path)
    saved(path, {"a": torch.zeros(1)}, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match="no zip archive"):
        torch_archive.read(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2), "found a ndarray, expected a dictionary"),
        ({"a": {"b": torch.zeros(1)}}, "a nested value"),
        ({"a": (1, 2)}, "a nested value"),
        ({1: torch.zeros(1)}, "entries of no dictionary"),
        ({"a": [1, 2]}, "the instruction EMPTY_LIST"),
        ({"a": torch.zeros(2, 3).t()}, "a tensor of shape"),
        ({"a": torch.zeros(1).expand(1000, 1000)}, "a tensor of shape"),
        ({"a": torch.nn.Linear(1, 1)}, r"asks for 'torch\.nn"),
        ({"a": torch.zeros(1, dtype=torch.bool)}, r"asks for 'torch\.BoolStorage'"),
        ({"a": torch.zeros(1).to_sparse()}, r"asks for 'torch\._utils\._rebuild_sparse"),
    ],
    ids=["tensor", "nested", "tuple", "keys", "list", "transposed", "expanded", "module", "bool", "sparse"],
)
def test_what_is_no_dictionary_of_whole_tensors(value: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        torch_archive.read(saved(tmp_path / "a.pt", value))


def test_sizes_are_held_against_the_bytes(tmp_path: Path) -> None:
    path = rebuilt(saved(tmp_path / "a.pt", {"a": torch.zeros(4)}), {"data/0": bytes(8)})
    with pytest.raises(DataError, match="8 bytes for 4 numbers, and 4 of them used from 0 on"):
        torch_archive.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"byteorder": b"big"}, "byte order"),
        ({"data.pkl": b"\x80\x02}q\x00"}, "broken"),
        ({"data.pkl": b"\x80\x02."}, "broken"),
        ({"data.pkl": b"\x80\x02(t(t(."}, "found a|broken"),
        ({"data.pkl": b"\x80\x02}q\x00(X\x01\x00\x00\x00au."}, "broken"),
        ({"data.pkl": b"\x80\x02h\x05."}, "broken"),
        ({"data.pkl": b"\x80\x02" + b"N" * (2**20)}, "at most 1048576"),
        ({"data.pkl": b"garbage"}, "broken"),
    ],
    ids=range(8),
)
def test_a_broken_program(change: dict[str, bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        torch_archive.read(rebuilt(saved(tmp_path / "a.pt", {"a": torch.zeros(1)}), change))


def test_every_cut_and_every_flipped_byte_is_an_error_or_data(tmp_path: Path) -> None:
    raw = saved(tmp_path / "a.pt", {"flatH": torch.zeros(3), "mu": torch.zeros(2), "n": 2, "ct": 5}).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "b.pt"
    for place in generator.integers(0, len(raw), 300):
        spoiled = bytearray(raw)
        spoiled[place] ^= int(generator.integers(1, 256))
        for bad in (bytes(spoiled), raw[:place]):
            path.write_bytes(bad)
            with contextlib.suppress(DataError):
                torch_archive.read(path)


def test_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/other", b"")
    with pytest.raises(DataError, match=r"no data\.pkl"):
        torch_archive.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
    with pytest.raises(DataError, match="share their bytes"):
        torch_archive.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"a")
    with pytest.raises(DataError, match="a packed or encrypted member"):
        torch_archive.read(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", b"a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x/data.pkl", b"b")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="twice"):
        torch_archive.read(path)


CENTRAL = b"PK\x01\x02"


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    """The archive with other bytes in the first entry of its list of members."""
    raw = bytearray(path.read_bytes())
    for offset, new in changes:
        place = raw.index(CENTRAL) + offset
        raw[place : place + len(new)] = new
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([(6, b"\xff\0")], "no zip archive"),
        ([(9, b"\x08"), (46, b"\xff")], "no zip archive"),
        ([(8, b"\x20\0")], "broken bytes .*patched data"),
        ([(8, b"\x40\0")], "broken bytes .*strong encryption"),
        ([(16, b"\xff" * 4)], "broken bytes .*CRC"),
    ],
    ids=["version", "name", "patched", "encrypted", "sum"],
)
def test_an_archive_that_zip_cannot_read(changes: list[tuple[int, bytes]], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
    assert torch_archive.read(path) == {}
    with pytest.raises(DataError, match=said):
        torch_archive.read(patched(path, *changes))


@pytest.mark.parametrize("damage", ZIP_DAMAGE, ids=lambda damage: damage.__name__)
def test_whatever_zipfile_raises_is_told(
    damage: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which error a damaged archive gives depends on the release of Python."""

    def broken(*_: object, **__: object) -> None:
        raise damage("what is wrong")

    path = saved(tmp_path / "a.pt", {"a": torch.zeros(1)})
    with monkeypatch.context() as changed:
        changed.setattr(zipfile.ZipFile, "open", broken)
        with pytest.raises(DataError, match=r"data\.pkl.*broken bytes \(what is wrong\)|byteorder.*what is wrong"):
            torch_archive.read(path)
    monkeypatch.setattr(zipfile.ZipFile, "__init__", broken)
    monkeypatch.setattr(zipfile.ZipFile, "__del__", lambda self: None)
    with pytest.raises(DataError, match="no zip archive"):
        torch_archive.read(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        torch_archive.read(tmp_path / "none.pt")
    with pytest.raises(DataError, match="not a regular file"):
        torch_archive.read(tmp_path)
