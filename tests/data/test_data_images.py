"""Folders and archives of images."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dfmeta.data import images, open_data
from dfmeta.data.images import decode
from dfmeta.errors import DataError, MissingExtra

Png = Callable[..., bytes]
Zip = Callable[[Mapping[str, bytes]], str]


def save(folder: Path, members: Mapping[str, bytes]) -> str:
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def test_cifar10(shared: Path) -> None:
    source = open_data(f"{shared}/data/cifar10-jpeg.zip:test", limit=50, seed=3)
    assert (source.name, source.split, source.count, source.item_shape) == (
        "cifar10-jpeg",
        "test",
        50,
        (32, 32, 3),
    )
    assert source.label_names is not None
    assert source.label_names[:3] == ("airplane", "automobile", "bird")
    assert source.labels is not None
    column = source.columns["x"]
    for index, label in zip(source.indices, source.labels, strict=True):
        assert f"test/{source.label_names[label]}/" in column.unit(int(index))
    batch = next(source.batches(50)).inputs["x"]
    with zipfile.ZipFile(shared / "data" / "cifar10-jpeg.zip") as archive:
        name = column.unit(int(source.indices[7])).partition(", ")[2]
        reference = np.asarray(Image.open(io.BytesIO(archive.read(name))))
    np.testing.assert_array_equal(batch[7], reference)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_classes_are_alphabetical_over_all_splits(tmp_path: Path, packed: Zip, png: Png, form: str) -> None:
    members = {
        "test/bee/1.png": png(1),
        "test/cat/0.PNG": png(2),
        "train/ant/0.png": png(3),
        "train/README.txt": b"above the classes: not data",
        "notes.md": b"",
        "test/bee/.DS_Store": b"",
        "__MACOSX/test/bee/._1.png": b"",
    }
    spec = save(tmp_path / "set", members) if form == "folder" else packed(members)
    source = open_data(f"{spec}:test")
    assert source.name == "set"
    assert source.label_names == ("ant", "bee", "cat")
    batch = next(source.batches(10))
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 2]
    assert batch.inputs["x"].tolist() == [[[1] * 3] * 2, [[2] * 3] * 2]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_classes_without_splits(tmp_path: Path, packed: Zip, png: Png, form: str) -> None:
    members = {"b/0.png": png(5, mode="RGB"), "a/1.png": png(4, mode="RGB")}
    source = open_data(save(tmp_path / "set", members) if form == "folder" else packed(members))
    assert (source.split, source.item_shape, source.label_names) == (None, (2, 3, 3), ("a", "b"))
    assert [int(batch.inputs["x"][0, 0, 0, 0]) for batch in source.batches(1)] == [4, 5]


def test_linked_class_folders_count(tmp_path: Path, png: Png) -> None:
    save(tmp_path / "elsewhere", {"0.png": png(1)})
    save(tmp_path / "set", {"a/0.png": png(0)})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    assert open_data(str(tmp_path / "set")).count == 2


def test_images_are_read_only_when_their_batch_is(packed: Zip, png: Png) -> None:
    batches = open_data(packed({"a/0.png": png(), "a/1.png": b"damaged"})).batches(1)
    next(batches)
    with pytest.raises(DataError, match=r"set\.zip, a/1\.png: found an image that cannot be decoded"):
        next(batches)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("1", (4, 5)), ("LA", (4, 5)), ("P", (4, 5, 3)), ("RGBA", (4, 5, 3)), ("CMYK", (4, 5, 3))],
)
def test_modes(mode: str, shape: tuple[int, ...]) -> None:
    target = io.BytesIO()
    Image.new(mode, (5, 4)).save(target, "TIFF")
    pixels = decode(target.getvalue(), "image")
    assert (pixels.dtype.name, pixels.shape) == ("uint8", shape)


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_eight_bits_would_be_clipped(mode: str) -> None:
    target = io.BytesIO()
    Image.new(mode, (5, 4)).save(target, "TIFF")
    with pytest.raises(DataError, match=f"image: found pixels of mode {mode}, expected 8-bit"):
        decode(target.getvalue(), "image")


@pytest.mark.parametrize("side", [9_000, 20_000, 60_000])
def test_headers_that_announce_too_much(png: Png, side: int) -> None:
    data = bytearray(png())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(DataError, match=r"pixels, expected at most|image that cannot be decoded"):
        decode(bytes(data), "image")


def test_formats_that_start_other_programs_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\nshowpage\n", "image")


@given(
    position=st.integers(0, 400),
    value=st.integers(0, 255),
    form=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF"]),
)
@settings(max_examples=100, deadline=None)
def test_damage_decodes_or_is_a_data_error(position: int, value: int, form: str) -> None:
    target = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).save(target, form)
    data = bytearray(target.getvalue())
    data[position % len(data)] = value
    with contextlib.suppress(DataError):
        assert decode(bytes(data), "image").dtype == np.uint8


def test_images_of_different_sizes(packed: Zip, png: Png) -> None:
    source = open_data(packed({"a/0.png": png(), "a/1.png": png(size=(4, 4))}))
    with pytest.raises(DataError) as error:
        next(source.batches(2))
    assert "a/1.png: found shape [4, 4], expected [2, 3], the shape of " in str(error.value)
    assert "a/0.png. Preprocess with resize" in str(error.value)


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (["notes.txt"], "", "found no images in class folders, expected <split>/<class>/<file>"),
        (["0.png"], "", "found no images in class folders"),
        (["a/0.png", "train/a/0.png"], "", "found images at two depths"),
        (["data/train/a/0.png"], "", "data/train/a/0.png: found a file 3 folders deep"),
        (
            ["a/0.png", "a/labels.csv"],
            "",
            "a/labels.csv: found a file that is no image, expected one of .bmp",
        ),
        (["a/0.png"], ":train", "found one set without splits, expected train/<class>/<file>"),
        (["train/a/0.png", "test/a/0.png"], "", "found no split named, expected one of test, train"),
        (["train/a/0.png", "test/a/0.png"], ":val", "found split 'val', expected one of test, train"),
        (["a/../../0.png"], "", "a/../../0.png: found an unsafe name"),
        (["/a/0.png"], "", "/a/0.png: found an unsafe name"),
        (["a\\0.png"], "", "found an unsafe name"),
    ],
)
def test_bad_layouts(packed: Zip, png: Png, names: list[str], split: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(packed(dict.fromkeys(names, png())) + split)
    assert message in str(error.value)


def test_folders_report_the_same_layouts(tmp_path: Path, png: Png) -> None:
    with pytest.raises(DataError, match="3 folders deep"):
        open_data(save(tmp_path / "set", {"data/train/a/0.png": png()}))
    with pytest.raises(DataError, match="no images in class folders"):
        open_data(save(tmp_path / "empty", {"readme": b""}))


def test_members_that_announce_too_much(packed: Zip, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = packed({"a/0.png": png(), "a/1.png": b"\0" * 2000})
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1999)
    with pytest.raises(DataError, match=r"a/1\.png: found 2000 bytes, expected at most 1999"):
        open_data(spec)
    monkeypatch.setattr(images, "MAX_TOTAL_BYTES", 1998)
    with pytest.raises(DataError, match=r"bytes when unpacked, expected at most 1998"):
        open_data(spec)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_data(save(tmp_path / "set", {"a/0.png": b"\0" * 2000}))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1999)
    with pytest.raises(DataError, match="a larger file, expected at most 1999 bytes"):
        next(source.batches(1))


def test_files_that_vanish(tmp_path: Path, png: Png) -> None:
    source = open_data(save(tmp_path / "set", {"a/0.png": png()}))
    (tmp_path / "set/a/0.png").unlink()
    with pytest.raises(DataError, match=r"a file that cannot be read \(.*No such file"):
        next(source.batches(1))


def test_damaged_member(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png()})
    data = bytearray(Path(spec).read_bytes())
    data[50] ^= 0xFF
    Path(spec).write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a/0\.png: found a damaged member \(Bad CRC-32"):
        next(open_data(spec).batches(1))


def test_linked_member(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png()})
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(spec, "a") as archive:
        archive.writestr(link, "0.png")
    with pytest.raises(DataError, match=r"a/1\.png: found a link, expected a file"):
        open_data(spec)


def test_repeated_member(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png(0)})
    with zipfile.ZipFile(spec, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/0.png", png(1))
    with pytest.raises(DataError, match="found two files of one name"):
        open_data(spec)


def test_encrypted_member(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png()})
    data = bytearray(Path(spec).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    Path(spec).write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a/0\.png: found an encrypted file, expected a plain one"):
        open_data(spec)


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"


def patch(spec: str, record: bytes, offset: int, value: bytes) -> str:
    """Overwrite bytes of the first record of that signature."""
    data = bytearray(Path(spec).read_bytes())
    start = data.index(record) + offset
    data[start : start + len(value)] = value
    Path(spec).write_bytes(bytes(data))
    return spec


@pytest.mark.parametrize("method", [9, 93, 99])
def test_a_compression_that_nobody_here_reads(packed: Zip, png: Png, method: int) -> None:
    spec = packed({"a/0.png": png()})
    value = method.to_bytes(2, "little")
    patch(patch(spec, LOCAL, 8, value), CENTRAL, 10, value)
    expected = r"one of stored \(0\), deflate \(8\), bzip2 \(12\), LZMA \(14\)"
    with pytest.raises(DataError, match=rf"a/0\.png: found compression method {method}, expected {expected}\. Pack"):
        open_data(spec)


@pytest.mark.parametrize("method", list(images._COMPRESSIONS), ids=images._COMPRESSIONS.values())
def test_every_compression_that_is_named(tmp_path: Path, png: Png, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("a/0.png", png(7))
    assert int(next(open_data(str(tmp_path / "set.zip")).batches(1)).inputs["x"][0, 0, 0]) == 7


def test_an_archive_of_a_later_version_of_zip(packed: Zip, png: Png) -> None:
    spec = patch(packed({"a/0.png": png()}), CENTRAL, 6, b"\xff\0")
    with pytest.raises(DataError, match=r"set\.zip: found an unreadable file \(zip file version 25\.5\)"):
        open_data(spec)


def test_a_name_that_is_not_the_text_it_claims_to_be(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png()})
    patch(patch(spec, CENTRAL, 9, b"\x08"), CENTRAL, 46, b"\xff")
    with pytest.raises(DataError, match=r"set\.zip: found an unreadable file \(.*can't decode byte 0xff"):
        open_data(spec)


@pytest.mark.parametrize(("flag", "what"), [(1 << 5, "compressed patched data"), (1 << 6, "strong encryption")])
def test_members_that_zip_cannot_read(packed: Zip, png: Png, flag: int, what: str) -> None:
    source = open_data(patch(packed({"a/0.png": png()}), CENTRAL, 8, flag.to_bytes(2, "little")))
    with pytest.raises(DataError, match=rf"a/0\.png: found a damaged member \({what}"):
        next(source.batches(1))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_damage_to_a_compressed_member(tmp_path: Path, png: Png, method: int) -> None:
    spec = str(tmp_path / "set.zip")
    with zipfile.ZipFile(spec, "w", method) as archive:
        archive.writestr("a/0.png", png() * 20)
    start = 30 + len("a/0.png")
    whole = Path(spec).read_bytes()
    for place in range(start, whole.index(CENTRAL)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        Path(spec).write_bytes(bytes(damaged))
        with contextlib.suppress(DataError):
            next(open_data(spec).batches(1))


def test_images_without_pillow(packed: Zip, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_data(packed({"a/0.png": png()}))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "PIL", None)
        with pytest.raises(MissingExtra) as error:
            next(source.batches(1))
    assert str(error.value).endswith("Run: pip install 'dfmeta[images]'")
