"""Opening arrays and the built-in digits; specs, limits and batches."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.data import check_labels, open_data
from dfmeta.data.sources import split_spec
from dfmeta.errors import DataError, MissingExtra

Npz = Callable[..., str]
IMAGES = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 1, 0, 2])


def text(error: pytest.ExceptionInfo[DataError]) -> str:
    return str(error.value)


def test_npz_with_splits(npz: Npz) -> None:
    spec = npz(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:1], y_test=LABELS[:1])
    source = open_data(f"{spec}:train")
    assert (source.name, source.split, source.count, source.item_shape, source.raw) == (
        "set",
        "train",
        4,
        (2, 3),
        True,
    )
    batches = list(source.batches(3))
    np.testing.assert_array_equal(np.concatenate([batch.inputs["x"] for batch in batches]), IMAGES)
    assert [None if batch.labels is None else batch.labels.tolist() for batch in batches] == [[0, 1, 0], [2]]
    assert source.labels is not None
    assert source.labels.dtype == np.int64


def test_npz_without_splits_or_labels(npz: Npz) -> None:
    source = open_data(npz(x=np.zeros((3, 1, 2, 2), np.float32)))
    assert (source.split, source.labels, source.label_names, source.raw) == (None, None, None, False)
    assert next(source.batches(8)).labels is None


def test_the_only_split_needs_no_name(npz: Npz) -> None:
    assert open_data(npz(x_test=IMAGES)).split == "test"


def test_several_named_inputs(npz: Npz) -> None:
    tokens = np.arange(8).reshape(4, 2)
    spec = npz(**{"x_a.ids": tokens, "x_a.mask": tokens > 3, "y_a": LABELS})
    batch = next(open_data(f"{spec}:a").batches(2))
    assert {name: value.dtype.name for name, value in batch.inputs.items()} == {
        "ids": "int64",
        "mask": "bool",
    }


def test_safetensors_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "made.safetensors"
    safetensors.numpy.save_file({"x": IMAGES.astype(np.float32), "y": LABELS}, path)
    source = open_data(str(path))
    assert (source.name, source.count, source.item_shape) == ("made", 4, (2, 3))
    np.testing.assert_array_equal(next(source.batches(4)).inputs["x"], IMAGES.astype(np.float32))


def test_digits_are_split_by_class() -> None:
    train, test, whole = open_data("digits:train"), open_data("digits:test"), open_data("digits")
    assert (train.count, test.count, whole.count, train.item_shape) == (1442, 355, 1797, (8, 8))
    assert train.label_names == tuple("0123456789")
    assert train.labels is not None
    assert test.labels is not None
    share = np.bincount(test.labels) / np.bincount(np.concatenate([train.labels, test.labels]))
    assert np.all(np.abs(share - 0.2) < 0.01)
    images = next(whole.batches(1797)).inputs["x"]
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {round(value * 255 / 16) for value in range(17)}


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(MissingExtra) as error:
            open_data("digits")
    assert str(error.value) == (
        "the data set 'digits': found no package 'sklearn', expected it to be installed. "
        "Run: pip install 'dfmeta[digits]'"
    )


def test_mnist(shared: Path) -> None:
    source = open_data(f"{shared}/data/mnist.npz:test")
    assert (source.name, source.count, source.item_shape, source.raw) == ("mnist", 10_000, (28, 28), True)
    assert source.labels is not None
    check_labels(source.labels, 10)


def test_a_colon_belongs_to_the_path_unless_what_precedes_it_exists(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert split_spec(str(odd)) == (str(odd), None)
    assert split_spec(f"{odd}:train") == (str(odd), "train")
    assert split_spec("digits:test") == ("digits", "test")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("C:\\no\\such.npz", "C:\\no\\such.npz: found nothing there, expected a data set."),
        ("no/such.npz:train", "no/such.npz:train: found nothing there"),
        ("", "--data: found nothing there"),
        ("digits:", "digits:: found nothing after ':', expected the name of a split."),
        ("digits:val", "digits:val: found split 'val', expected one of train, test."),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(spec)


def test_unknown_file_type(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"a file of type \.csv, expected .*\.npz, \.safetensors, \.zip"):
        open_data(str(tmp_path / "table.csv"))


@pytest.mark.parametrize(
    ("arrays", "split", "message"),
    [
        ({"x_a": IMAGES, "x_b": IMAGES}, "", "found no split named, expected one of a, b. Say"),
        ({"x_a": IMAGES, "x_b": IMAGES}, ":c", "found split 'c', expected one of a, b"),
        ({"x": IMAGES}, ":train", "found one set without splits (x), expected x_train. Say"),
        ({"X": IMAGES, "Y": LABELS}, "", "found keys X, Y, expected x and y"),
        ({"y": LABELS}, "", "found keys y, expected x and y"),
        ({"x": IMAGES[:0]}, "", "found no units, expected at least one"),
        ({"x": np.float32(1)}, "", "x: found a single number, expected an array [n, ...]"),
        ({"x": np.array(["a", "b"])}, "", "expected numbers"),
        ({"x": np.array([1, "b"], dtype=object)}, "", "x: found an array of Python objects"),
        ({"x": IMAGES, "x.image": IMAGES}, "", "x beside x.image, expected one unnamed input"),
        ({"x.a": IMAGES, "x.b": IMAGES[:3]}, "", "expected as many units of every input"),
        ({"x": IMAGES, "y": LABELS[:3]}, "", "y: found 3 labels, expected one for each of the 4 units"),
        ({"x": IMAGES, "y": LABELS - 1}, "", "y[0]: found label -1, expected 0 or more"),
        ({"x": IMAGES, "y": LABELS / 2}, "", "y: found type float64, expected integers"),
        ({"x": IMAGES, "y": LABELS[:, None]}, "", "y: found shape [4, 1], expected labels of shape [n]"),
        ({"x": IMAGES, "y": np.full(4, 2**64 - 1, np.uint64)}, "", "expected class indices"),
    ],
)
def test_bad_arrays(npz: Npz, arrays: dict[str, Any], split: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(npz(**arrays) + split)
    assert message in text(error)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("name", ["broken.npz", "broken.safetensors", "broken.zip"])
def test_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(DataError, match="an unreadable file") as error:
        open_data(str(path))
    assert error.value.where == str(path)


def test_npz_that_holds_one_bare_array(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match=r"a single \.npy array, expected a \.npz of named arrays"):
        open_data(str(path))


def test_npz_with_a_damaged_member(npz: Npz) -> None:
    spec = npz(x=np.zeros((100, 10), np.float32))
    data = bytearray(Path(spec).read_bytes())
    data[1000] ^= 0xFF
    Path(spec).write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"set\.npz, x: found a damaged array"):
        open_data(spec)


@pytest.mark.parametrize(
    ("offset", "new", "said"),
    [
        (6, b"\xff\0", "an unreadable file .*zip file version"),
        (8, b"\x20\0", "x: found a damaged array .*patched data"),
    ],
    ids=["version", "patched"],
)
def test_npz_that_zip_cannot_read(npz: Npz, offset: int, new: bytes, said: str) -> None:
    spec = npz(x=np.zeros((100, 10), np.float32))
    data = bytearray(Path(spec).read_bytes())
    place = data.index(b"PK\x01\x02") + offset
    data[place : place + len(new)] = new
    Path(spec).write_bytes(data)
    with pytest.raises(DataError, match=said):
        open_data(spec)


def test_npz_member_that_announces_too_much(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693, 1)}\n"
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"set\.npz, x: found a damaged array"):
        open_data(str(path))


def test_safetensors_of_a_type_numpy_lacks(tmp_path: Path) -> None:
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = tmp_path / "set.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"set\.safetensors.*bfloat16"):
        open_data(str(path))


@pytest.mark.parametrize("limit", [0, -1, 5])
def test_limits_that_do_not_fit(npz: Npz, limit: int) -> None:
    with pytest.raises(DataError, match=f"found a limit of {limit}, expected 1 to 4"):
        open_data(npz(x=IMAGES), limit=limit)


def test_negative_seed(npz: Npz) -> None:
    with pytest.raises(DataError, match="seed: found -1, expected 0 or more"):
        open_data(npz(x=IMAGES), limit=2, seed=-1)


def test_batch_size_below_one(npz: Npz) -> None:
    with pytest.raises(DataError, match="batch size: found 0, expected 1 or more"):
        next(open_data(npz(x=IMAGES)).batches(0))


@given(limit=st.integers(1, 355), seed=st.integers(0, 2**32), batch_size=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_a_limit_draws_the_same_units_every_time(limit: int, seed: int, batch_size: int) -> None:
    first, second = (open_data("digits:test", limit=limit, seed=seed) for _ in range(2))
    whole = open_data("digits:test")
    assert first.count == limit
    assert np.all(np.diff(first.indices) > 0)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert whole.labels is not None
    np.testing.assert_array_equal(first.labels, whole.labels[first.indices])
    images = np.concatenate([batch.inputs["x"] for batch in first.batches(batch_size)])
    np.testing.assert_array_equal(images, next(whole.batches(355)).inputs["x"][first.indices])


def test_another_seed_draws_other_units() -> None:
    draws = {tuple(open_data("digits:train", limit=20, seed=seed).indices) for seed in range(10)}
    assert len(draws) == 10


def test_labels_must_be_classes_of_the_model() -> None:
    check_labels(LABELS, 3)
    with pytest.raises(DataError) as error:
        check_labels(LABELS, 2, "digits")
    assert text(error) == (
        "digits[3]: found label 2 (1 of 4 labels are out of range), expected 0 to 1, the model's 2 classes. "
        "Give the labels the model was trained with."
    )
    with pytest.raises(DataError, match="label -1"):
        check_labels(LABELS - 1, 3)
