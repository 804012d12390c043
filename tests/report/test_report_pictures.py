"""The picture of what was reconstructed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfmeta.data import open_data
from dfmeta.errors import DataError, MissingExtra, OutputExists
from dfmeta.report import save_digits_picture

Arrays = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


@pytest.fixture(scope="module")
def digits() -> Arrays:
    """The real digits, their labels and their class means."""
    batch = next(open_data("digits:test").batches(1000))
    assert batch.labels is not None
    images = batch.inputs["x"][:, None].astype(np.float32)
    return images, batch.labels, np.stack([images[batch.labels == c].mean(0) for c in range(10)])


def test_a_row_for_each_class(digits: Arrays, tmp_path: Path) -> None:
    path = save_digits_picture(tmp_path / "picture.png", *digits)
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("L"))
    # Ten rows of images, the white between them, and nothing cut off at the edges.
    dark = (pixels < 128).mean(1) > 0.2
    assert np.count_nonzero(np.diff(dark.astype(int)) == 1) >= 10
    assert pixels[[0, -1]].min() == pixels[:, [0, -1]].min() == 255


def test_the_same_arrays_give_the_same_bytes(digits: Arrays, tmp_path: Path) -> None:
    first, second = (save_digits_picture(tmp_path / name, *digits).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


def test_classes_without_samples_colour_and_strange_names(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).random((3, 3, 6, 5))
    names = ["$x_", "a rather long name"]
    path = save_digits_picture(tmp_path / "p.png", colour, np.zeros(3, np.int64), colour[:2], names=names, samples=4)
    assert path.stat().st_size > 1000


def test_nothing_is_overwritten(digits: Arrays, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(OutputExists):
        save_digits_picture(tmp_path / "mine.png", *digits)


def test_shapes_that_do_not_fit(digits: Arrays, tmp_path: Path) -> None:
    images, labels, means = digits
    path = tmp_path / "picture.png"
    for wrong, part in (
        ((images[:, 0], labels, means), "synthetic images"),
        ((images, labels, means[:, [0, 0]]), "class means"),
        ((images, labels[1:], means), "labels: found 354"),
        ((images, labels, means[:9]), "labels: found 0..9, expected 0..8"),
    ):
        with pytest.raises(DataError, match=part):
            save_digits_picture(path, *wrong)
    with pytest.raises(DataError, match="class names: found 1"):
        save_digits_picture(path, images, labels, means, names=["one"])
    assert not path.exists()


def test_without_matplotlib(digits: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dfmeta\[plots\]'"):
        save_digits_picture(tmp_path / "picture.png", *digits)
