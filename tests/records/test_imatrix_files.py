"""Importance matrices: what llama.cpp's own package writes, and files that lie."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from dfmeta.errors import DataError
from dfmeta.records import gguf_strict
from dfmeta.records.imatrix_files import read_imatrix

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(1, 2, (50, 6))


def written(path: Path, tensors: Mapping[str, np.ndarray], **keys: object) -> Path:
    """A file by the ``gguf`` package."""
    writer = gguf.GGUFWriter(path, "imatrix")
    for name, value in {"general.type": "imatrix", "imatrix.chunk_count": 25, "imatrix.chunk_size": 2, **keys}.items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sums(name: str = "w", rows: np.ndarray = ROWS, *, mean: bool = True) -> dict[str, np.ndarray]:
    found = {f"{name}.in_sum2": np.square(rows).sum(0)[None], f"{name}.counts": np.array([[len(rows)]])}
    found |= {f"{name}.in_sum": rows.sum(0)[None]} if mean else {}
    return {key: values.astype(np.float32) for key, values in found.items()}


def dat(*entries: tuple[str, int, np.ndarray], tail: bytes = b"") -> bytes:
    raw = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        raw += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        raw += (values * calls).astype("<f4").tobytes()
    return raw + tail


def test_sums_become_means(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", sums(), **{"imatrix.datasets": ["one", "two"]})
    file = read_imatrix([path])
    (moment,) = file.moments
    assert (moment.name, moment.count, moment.features, moment.form) == ("w", 50, 6, "diagonal")
    np.testing.assert_allclose(moment.diagonal, np.square(ROWS).mean(0), rtol=1e-6)
    assert moment.mean is not None
    np.testing.assert_allclose(moment.mean, ROWS.mean(0), rtol=1e-5)
    assert (file.units, file.unit, file.sources, file.software[1]) == (25, "chunk", ("one", "two"), "gguf")


def test_files_add_up(tmp_path: Path) -> None:
    parts = [written(tmp_path / f"{n}.gguf", sums(rows=rows)) for n, rows in enumerate((ROWS[:10], ROWS[10:]))]
    file = read_imatrix(parts)
    assert (file.moments[0].count, file.units) == (50, 50)
    np.testing.assert_allclose(file.moments[0].diagonal, np.square(ROWS).mean(0), rtol=1e-6)
    np.testing.assert_allclose(file.moments[0].mean, ROWS.mean(0), rtol=1e-5)
    bare = written(tmp_path / "bare.gguf", sums(mean=False))
    assert read_imatrix([parts[0], bare]).moments[0].mean is None
    with pytest.raises(DataError, match="found 5 values, expected 6"):
        read_imatrix([parts[0], written(tmp_path / "c.gguf", sums(rows=ROWS[:, :5]))])


def test_experts_are_rows_and_one_that_was_never_hit_is_not_observed(tmp_path: Path) -> None:
    squares = np.array([[4.0, 8.0], [7.0, 7.0]], np.float32)
    path = written(tmp_path / "a.gguf", {"e.in_sum2": squares, "e.counts": np.array([[2.0], [0.0]], np.float32)})
    hit, missed = read_imatrix([path]).moments
    assert (hit.name, hit.count, hit.diagonal.tolist()) == ("e[0]", 2, [2, 4])
    assert (missed.name, missed.count, missed.diagonal.tolist()) == ("e[1]", 0, [0, 0])


def test_the_older_format(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    tail = struct.pack("<ii", 9, 3) + b"wik"
    for end, units, sources in ((b"", 7, ()), (tail[:4], 9, ()), (tail, 9, ("wik",))):
        path.write_bytes(dat(("w", 7, np.array([1.0, 4.0])), ("v", 0, np.array([1.0])), tail=end))
        file = read_imatrix([path])
        assert (file.units, file.sources, file.software[1]) == (units, sources, "dat")
        assert [(one.name, one.count, one.diagonal.tolist()) for one in file.moments] == [
            ("w", 7, [1, 4]),
            ("v", 0, [0]),
        ]
        assert file.moments[0].mean is None


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(dat(("w", 7, np.ones(6))))
    with pytest.raises(DataError, match="gguf beside dat"):
        read_imatrix([tmp_path / "a.dat", written(tmp_path / "a.gguf", sums())])


@pytest.mark.parametrize(
    ("tensors", "keys", "said"),
    [
        ({}, {"general.type": "model"}, "general.type 'model'"),
        ({"w.other": np.ones(2, np.float32)}, {}, "no tensor that ends in .in_sum2"),
        ({"w.in_sum2": np.ones(2, np.float32)}, {}, "no .counts beside"),
        (sums() | {"w.counts": np.ones((1, 3), np.float32)}, {}, "3 counts"),
        (sums() | {"w.counts": np.full((1, 1), -1, np.float32)}, {}, "a count of -1"),
        (sums() | {"w.counts": np.full((1, 1), np.nan, np.float32)}, {}, "a count of nan"),
        (sums() | {"w.in_sum2": np.full((1, 6), np.nan, np.float32)}, {}, "'w': found NaN"),
        (sums() | {"w.in_sum2": np.full((1, 6), -1, np.float32)}, {}, "a mean square of -0.02"),
        (sums() | {"w.in_sum": np.full((1, 6), 1e6, np.float32)}, {}, "a mean whose square"),
        (sums() | {"w.in_sum": np.ones((1, 5), np.float32)}, {}, "5 sums"),
        (sums() | {"w.in_sum2": np.ones((1, 6), np.float16)}, {}, "element type 1"),
        (sums(), {"imatrix.chunk_count": 0}, "chunk_count: found 0"),
        (sums(), {"imatrix.chunk_count": None}, "chunk_count: found None"),
    ],
    ids=range(13),
)
def test_files_that_are_no_importance_matrix(
    tensors: Mapping[str, np.ndarray], keys: Mapping[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read_imatrix([written(tmp_path / "a.gguf", tensors, **keys)])


HEAD = b"GGUF" + struct.pack("<I", 3)
TEXT = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GGML", "the first bytes"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "other byte order"),
        (HEAD, "0 bytes left, and 8"),
        (HEAD + struct.pack("<QQ", 2**62, 0), "tensors in 0 bytes"),
        (HEAD + struct.pack("<QQ", 0, 2**62), "keys in 0 bytes"),
        (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62) + bytes(20), "a length of"),
        (HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<I", 99), "a value of type 99"),
        (HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 0, 2**61), "values in 0 bytes"),
        (HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 9, 1), "an array of type 9"),
        (HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 8, 2**61), "texts in 0 bytes"),
        (HEAD + struct.pack("<QQ", 0, 2) + 2 * (TEXT + struct.pack("<II", 4, 1)), "it twice"),
        (HEAD + struct.pack("<QQ", 1, 0) + TEXT + struct.pack("<I", 5) + bytes(60), "5 axes"),
        (HEAD + struct.pack("<QQ", 1, 0) + TEXT + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0), "a shape"),
        (HEAD + struct.pack("<QQ", 1, 0) + TEXT + struct.pack("<IQIQ", 1, 1, 0, 7), "offset 7"),
        (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1) + b"\xff" + struct.pack("<II", 4, 1), "no UTF-8"),
    ],
    ids=range(16),
)
def test_containers_that_lie(raw: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        gguf_strict.parse(raw, "file")


def test_tensors_have_bytes_of_their_own(tmp_path: Path) -> None:
    raw = HEAD + struct.pack("<QQ", 2, 0)
    for name in (b"a", b"b"):
        raw += struct.pack("<Q", 1) + name + struct.pack("<IQIQ", 1, 16, 0, 0)
    with pytest.raises(DataError, match="bytes that 'a' has too"):
        gguf_strict.parse(raw + bytes(128), "file")
    raw = HEAD + struct.pack("<QQ", 1, 0) + TEXT + struct.pack("<IQIQ", 1, 2**40, 0, 0)
    with pytest.raises(DataError, match="expected bytes inside of the file"):
        gguf_strict.parse(raw + bytes(128), "file").array("k")


def test_an_alignment_is_a_power_of_two(tmp_path: Path) -> None:
    for alignment in (0, 3, 2**20):
        raw = HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 17) + b"general.alignment"
        with pytest.raises(DataError, match="a power of 2"):
            gguf_strict.parse(raw + struct.pack("<II", 4, alignment), "file")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "0 bytes left"),
        (struct.pack("<i", -1), "-1 entries"),
        (struct.pack("<i", 2**30) + bytes(40), "entries in 44 bytes"),
        (dat(("w", 1, np.ones(2)))[:-1], "7 bytes left, and 8 for the values of 'w'"),
        (dat(("w", 1, np.ones(2)), ("w", 1, np.ones(2))), "it twice"),
        (dat(("w", -1, np.ones(2))), "-1 calls"),
        (dat(("w", 1, np.ones(0)), tail=bytes(4)), "0 values"),
        (dat(("w", 1, np.ones(2)), tail=b"\1\0\0\0\0\0\0\0more"), "4 more bytes"),
        (dat(("w", 1, np.full(2, np.inf))), "NaN"),
        (struct.pack("<ii", 1, -5) + bytes(40), "a length of -5"),
    ],
    ids=range(10),
)
def test_older_files_that_lie(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        read_imatrix([tmp_path / "a.dat"])


def test_every_cut_and_every_flipped_byte_is_an_error_or_data(tmp_path: Path) -> None:
    path = tmp_path / "b"
    for raw in (written(tmp_path / "a.gguf", sums()).read_bytes(), dat(("w", 7, np.ones(6)))):
        for place in GENERATOR.integers(0, len(raw), 200):
            spoiled = bytearray(raw)
            spoiled[place] ^= int(GENERATOR.integers(1, 256))
            for bad in (bytes(spoiled), raw[:place]):
                path.write_bytes(bad)
                with contextlib.suppress(DataError):
                    read_imatrix([path])
