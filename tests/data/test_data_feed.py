"""Batches that fit a model's inputs, and data sets that do not."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmeta.data import Batch, feed, open_data, preprocess
from dfmeta.errors import DataError
from dfmeta.schema import v1

Npz = Callable[..., str]
Png = Callable[..., bytes]
Zip = Callable[[Mapping[str, bytes]], str]

TO_ONE = v1.Rescale(scale=1 / 255)


def image_input(channels: int, height: int, width: int, *ops: v1.Op) -> v1.Input:
    return v1.Input(name="image", dtype="float32", shape=["batch", channels, height, width], preprocessing=list(ops))


def read(spec: str, *inputs: v1.Input, batch_size: int = 64) -> list[Batch]:
    return list(feed(open_data(spec), inputs, batch_size))


def test_digits_become_the_models_input() -> None:
    (image,) = (image_input(1, 12, 12, TO_ONE, v1.Pad(pixels=2)),)
    batches = read("digits:test", image, batch_size=100)
    assert [len(batch.inputs["image"]) for batch in batches] == [100, 100, 100, 55]
    stored = next(open_data("digits:test").batches(355))
    np.testing.assert_array_equal(
        np.concatenate([batch.inputs["image"] for batch in batches]),
        preprocess(stored.inputs["x"], image.preprocessing),
    )
    np.testing.assert_array_equal(
        np.concatenate([batch.labels for batch in batches if batch.labels is not None]), stored.labels
    )


def test_cifar10_as_the_pretrained_network_reads_it(shared: Path) -> None:
    normalize = v1.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    source = open_data(f"{shared}/data/cifar10-jpeg.zip:test", limit=200)
    batches = list(feed(source, [image_input(3, 32, 32, TO_ONE, normalize)], 64))
    values = np.concatenate([batch.inputs["image"] for batch in batches])
    assert (values.shape, values.dtype.name) == ((200, 3, 32, 32), "float32")
    assert abs(float(values.mean())) < 0.3


def test_memory_depends_on_the_batch(shared: Path) -> None:
    source = open_data(f"{shared}/data/mnist.npz:test")
    tracemalloc.start()
    for _ in feed(source, [image_input(1, 28, 28, TO_ONE)], 100):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 10_000 * 28 * 28 * 4
    assert peak < whole / 10


def test_other_arrays_pass_unchanged(npz: Npz) -> None:
    tokens = np.arange(12).reshape(3, 4)
    table = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
    spec = npz(**{"x.ids": tokens, "x.table": table, "y": np.array([0, 1, 2])})
    inputs = [
        v1.Input(name="ids", dtype="int64", shape=["batch", "length"]),
        v1.Input(name="table", dtype="float32", shape=[1, 2], preprocessing=[TO_ONE]),
    ]
    (batch,) = read(spec, *inputs)
    np.testing.assert_array_equal(batch.inputs["ids"], tokens)
    np.testing.assert_array_equal(batch.inputs["table"], table)


def test_images_of_different_sizes_and_colours_are_made_alike(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png(10), "a/1.png": png(20, (5, 4)), "a/2.png": png(30, (3, 3), "RGB")})
    resize = v1.Resize(size=[2, 2], interpolation="bilinear")
    (batch,) = read(spec, image_input(1, 2, 2, v1.Grayscale(), resize))
    np.testing.assert_allclose(batch.inputs["image"][:, 0, 0, 0], [10, 20, 30], rtol=1e-6)
    with pytest.raises(DataError, match=r"a/2\.png.*found shape \[3, 2, 2\], expected \[1, 2, 2\], the shape of"):
        read(spec, image_input(1, 2, 2, resize))


def test_what_does_not_fit_one_of_several_images_names_it(packed: Zip, png: Png) -> None:
    spec = packed({"a/0.png": png(size=(4, 4)), "a/1.png": png(size=(2, 2))})
    with pytest.raises(DataError, match=r"a/1\.png, input 'image', preprocessing\[0\] \(center_crop\)"):
        read(spec, image_input(1, 3, 3, v1.CenterCrop(size=[3, 3])))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 1, 4, 4))}, "float64 [1, 4, 4], expected float32 [1, 8, 8] for each unit"),
        (
            {"x": np.zeros((2, 1, 8, 8))},
            "float64 [1, 8, 8], expected float32 [1, 8, 8] for each unit. Convert",
        ),
        (
            {"x": np.zeros((2, 64), np.float32)},
            "float32 [64], expected float32 [1, 8, 8] for each unit. Add resize",
        ),
        ({"x.other": np.zeros((2, 1, 8, 8), np.float32)}, "inputs x.other, expected x.image"),
        ({"x.image": np.zeros(2), "x.b": np.zeros(2)}, "inputs x.b, x.image, expected x.image"),
        ({"x": np.zeros((2, 4), np.uint8)}, "uint8 [4], expected float32 [1, 8, 8]"),
    ],
)
def test_arrays_that_do_not_fit_are_found_before_reading(npz: Npz, arrays: dict[str, Any], message: str) -> None:
    source = open_data(npz(**arrays))
    with pytest.raises(DataError, match=re.escape(f"found {message}")):
        feed(source, [image_input(1, 8, 8)])


@pytest.mark.parametrize(
    ("images", "spec", "message"),
    [
        (
            np.zeros((2, 4, 4), np.uint8),
            image_input(1, 8, 8),
            "float32 [1, 4, 4], expected float32 [1, 8, 8]",
        ),
        (
            np.zeros((2, 1, 8, 8), np.uint8),
            image_input(1, 8, 8),
            "float32 [8, 1, 8], expected float32 [1, 8, 8]",
        ),
        (
            np.zeros((2, 8, 8), np.uint8),
            v1.Input(name="image", dtype="float16", shape=[1, 1, 8, 8]),
            "float32 [1, 8, 8], expected float16 [1, 8, 8]",
        ),
    ],
)
def test_images_that_do_not_fit(npz: Npz, images: Any, spec: v1.Input, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(npz(x=images), spec)
    assert str(error.value).startswith(f"x[0], preprocessed for input 'image': found {message}")


def test_one_unnamed_array_for_a_model_of_two_inputs(npz: Npz) -> None:
    two = [v1.Input(name=name, dtype="float32", shape=["batch", 2]) for name in ("a", "b")]
    with pytest.raises(DataError, match=r"set: found inputs x, expected x\.a, x\.b\."):
        feed(open_data(npz(x=np.zeros((2, 2), np.float32))), two)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_unit(npz: Npz, bad: float) -> None:
    values = np.zeros((10, 3), np.float32)
    values[7, 1] = bad
    batches = feed(open_data(npz(x_a=values)), [v1.Input(name="row", dtype="float32", shape=["batch", 3])], 4)
    next(batches)
    with pytest.raises(DataError) as error:
        next(batches)
    assert str(error.value) == f"x_a[7]: found the value {bad}, expected finite numbers. Remove or repair the unit."
