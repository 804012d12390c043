"""Preprocessing against Pillow and against float64 arithmetic, and the bounds it keeps."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dfmeta.data import input_bounds, preprocess
from dfmeta.errors import DataError
from dfmeta.schema import v1

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_stored_values_without_operations() -> None:
    grey, colour = noise(2, 3, 4), noise(2, 3, 4, 3)
    assert preprocess(grey, []).dtype == np.float32
    np.testing.assert_array_equal(preprocess(grey, []), grey[:, None])
    np.testing.assert_array_equal(preprocess(colour, []), colour.transpose(0, 3, 1, 2))


def test_the_usual_list_against_float64() -> None:
    images = noise(4, 8, 8, 3)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ops: list[v1.Op] = [
        v1.Rescale(scale=1 / 255),
        v1.Normalize(mean=mean, std=std),
        v1.Pad(pixels=[1, 2, 3, 4], value=-9.0),
    ]
    values = preprocess(images, ops)
    reference = (images.astype(np.float64) / 255 - mean) / std
    assert values.shape == (4, 3, 12, 14)
    # Three roundings of at most 2**-24 relative to a magnitude below 4.4 (1 / 0.229).
    np.testing.assert_allclose(values[:, :, 1:9, 4:12], reference.transpose(0, 3, 1, 2), atol=3 * 4.4 * 2**-24)
    values[:, :, 1:9, 4:12] = -9
    assert np.all(values == -9)


def test_one_mean_stands_for_every_channel() -> None:
    images = noise(1, 2, 2, 3)
    values = preprocess(images, [v1.Normalize(mean=[1.0], std=[2.0])])
    np.testing.assert_array_equal(values, (images.transpose(0, 3, 1, 2) - np.float32(1)) / 2)


def test_padding_fills_in_the_domain_of_its_place() -> None:
    images = noise(1, 2, 2)
    before = preprocess(images, [v1.Pad(pixels=1, value=255.0), v1.Rescale(scale=1 / 255)])
    after = preprocess(images, [v1.Rescale(scale=1 / 255), v1.Pad(pixels=1, value=1.0)])
    np.testing.assert_array_equal(before, after)


def test_grayscale_is_pillows() -> None:
    image = noise(32, 32, 3)
    grey = preprocess(image[None], [v1.Grayscale()])
    assert grey.shape == (1, 1, 32, 32)
    # Pillow rounds to whole levels: half a level, and the error of its 16-bit weights.
    np.testing.assert_allclose(grey[0, 0], np.asarray(Image.fromarray(image).convert("L")), atol=0.5 + 255 * 2**-15)
    np.testing.assert_array_equal(preprocess(noise(2, 3, 4), [v1.Grayscale()]), preprocess(noise(2, 3, 4), []))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 16), (17, 21), (64, 48), (32, 40), (15, 41)])
def test_resize_is_pillows(interpolation: str, size: tuple[int, int]) -> None:
    image = noise(32, 40, 3)
    op = v1.Resize.model_validate({"size": list(size), "interpolation": interpolation})
    values = preprocess(image[None], [op])[0].transpose(1, 2, 0)
    # One axis at a time, since versions of Pillow differ in which one they take first.
    wide = Image.fromarray(image).resize((size[1], 32), PILLOW[interpolation])
    reference = np.asarray(wide.resize((size[1], size[0]), PILLOW[interpolation]))
    # Pillow rounds after each of two axes: half a level each, and the second axis weighs the first one's by a
    # filter whose absolute weights sum to 1 (bilinear) or at most 1.36 (bicubic).
    tolerance = {"bilinear": 1.01, "bicubic": 1.2}[interpolation]
    assert np.abs(values - reference).max() <= tolerance


@pytest.mark.parametrize("size", [(16, 20), (64, 48), (32, 40), (8, 80)])
def test_nearest_is_pillows_where_no_centre_lies_on_an_edge(size: tuple[int, int]) -> None:
    image = noise(32, 40)
    values = preprocess(image[None], [v1.Resize(size=list(size), interpolation="nearest")])[0, 0]
    reference = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(values, np.asarray(reference))


@given(size=st.integers(1, 50), new_size=st.integers(1, 50))
@settings(deadline=None)
def test_nearest_takes_the_pixel_that_holds_the_centre(size: int, new_size: int) -> None:
    line = np.arange(size, dtype=np.uint8)[None, :, None]
    values = preprocess(line, [v1.Resize(size=[new_size, 1], interpolation="nearest")])[0, 0, :, 0]
    centres = [Fraction(2 * place + 1, 2) * size / new_size for place in range(new_size)]
    assert values.tolist() == [math.floor(centre) for centre in centres]


def test_resize_on_a_smooth_picture_is_pillows_to_a_level() -> None:
    ramp = np.asarray(Image.linear_gradient("L"))
    op = v1.Resize(size=[60, 100], interpolation="bilinear")
    reference = np.asarray(Image.fromarray(ramp).resize((100, 60), Image.Resampling.BILINEAR))
    assert np.abs(preprocess(ramp[None], [op])[0, 0] - reference).max() <= 1.01


def test_without_antialiasing_only_neighbours_count() -> None:
    image = np.zeros((1, 8, 8), np.uint8)
    image[:, ::4] = 255
    op = v1.Resize(size=[2, 2], interpolation="bilinear", antialias=False)
    np.testing.assert_array_equal(preprocess(image, [op]), np.zeros((1, 1, 2, 2)))
    smooth = v1.Resize(size=[2, 2], interpolation="bilinear")
    assert preprocess(image, [smooth]).min() > 0


def test_center_crop() -> None:
    image = noise(1, 7, 6)
    cropped = preprocess(image, [v1.CenterCrop(size=[4, 4])])
    np.testing.assert_array_equal(cropped[0, 0], image[0, 1:5, 1:5])


@pytest.mark.parametrize(
    ("shape", "op", "message"),
    [
        (
            (1, 4, 4, 3),
            {"op": "normalize", "mean": [0, 0], "std": [1, 1]},
            "2 means and deviations, expected 3",
        ),
        (
            (1, 4, 4),
            {"op": "normalize", "mean": [0] * 3, "std": [1] * 3},
            "3 means and deviations, expected 1",
        ),
        ((1, 4, 4, 2), {"op": "grayscale"}, "2 channels, expected 3 (RGB) or 1"),
        ((1, 4, 4), {"op": "center_crop", "size": [5, 4]}, "4 x 4 images, expected at least 5 x 4"),
        (
            (1, 4, 4),
            {"op": "solarize"},
            "the operation 'solarize', expected an operation that this version knows",
        ),
        ((1, 4, 4), {"op": "rescale", "scale": 1e38}, "values beyond the range of float32"),
        ((1, 4, 4), {"op": "normalize", "mean": [1], "std": [1e-300]}, "values beyond the range of float32"),
        ((1, 4, 4), {"op": "pad", "pixels": 1, "value": 1e300}, "values beyond the range of float32"),
        ((1, 4, 4), {"op": "pad", "pixels": 65_536}, "1 images of 131076 x 131076, expected at most"),
        ((1, 4, 4), {"op": "resize", "size": [65_536] * 2, "interpolation": "nearest"}, "1 images of 65536"),
    ],
)
def test_operations_that_do_not_fit(shape: tuple[int, ...], op: dict[str, object], message: str) -> None:
    ops = v1.PREPROCESSING.validate_python([{"op": "rescale", "scale": 1.0}, op])
    with pytest.raises(DataError) as error:
        preprocess(noise(*shape), ops)
    assert str(error.value).startswith(f"preprocessing[1] ({op['op']}): found {message}")


@pytest.mark.parametrize("images", [np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8)])
def test_only_images_are_preprocessed(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \[n, h, w\] or \[n, h, w, c\]"):
        preprocess(images, [])


numbers = st.floats(-4, 4, width=32)
affine = st.one_of(
    st.builds(lambda scale, offset: v1.Rescale(scale=scale, offset=offset), numbers, numbers),
    st.builds(
        lambda mean, std: v1.Normalize(mean=mean, std=std),
        st.lists(numbers, min_size=3, max_size=3),
        st.lists(st.floats(0.125, 4), min_size=3, max_size=3),
    ),
)
pad = st.builds(
    lambda pixels, value: v1.Pad(pixels=pixels, value=value),
    st.one_of(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=4, max_size=4)),
    st.floats(-300, 300, width=32),
)
resize = st.builds(
    lambda size, mode, antialias: v1.Resize(size=size, interpolation=mode, antialias=antialias),
    st.lists(st.integers(1, 6), min_size=2, max_size=2),
    st.sampled_from(["nearest", "bilinear", "bicubic"]),
    st.booleans(),
)


def extremes() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Every combination of dark and bright channels beside noise."""
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
    return np.concatenate([np.broadcast_to(corners[:, None, None], (8, 3, 3, 3)), noise(4, 3, 3, 3)])


@given(ops=st.lists(st.one_of(affine, pad), max_size=5))
@settings(max_examples=150, deadline=None)
def test_bounds_hold_and_are_reached(ops: list[v1.Op]) -> None:
    values = preprocess(extremes(), ops)
    low, high = input_bounds(ops, 3)
    # Exactly: every operation is monotone in float32 too, and both sides run the same ones.
    np.testing.assert_array_equal(values.min(axis=(0, 2, 3)), low)
    np.testing.assert_array_equal(values.max(axis=(0, 2, 3)), high)


@given(ops=st.lists(st.one_of(affine, pad, resize, st.just(v1.Grayscale())), max_size=5))
@settings(max_examples=150, deadline=None)
def test_bounds_hold_with_every_operation(ops: list[v1.Op]) -> None:
    # After grayscale there is one channel, so three means no longer fit.
    grey = next((place for place, op in enumerate(ops) if isinstance(op, v1.Grayscale)), len(ops))
    ops = [op for place, op in enumerate(ops) if place <= grey or not isinstance(op, v1.Normalize)]
    values = preprocess(extremes(), ops)
    low, high = input_bounds(ops, 3)
    assert np.all(values.min(axis=(0, 2, 3)) >= low)
    assert np.all(values.max(axis=(0, 2, 3)) <= high)


def test_bounds_of_imagenet() -> None:
    low, high = input_bounds([v1.Rescale(scale=1 / 255), v1.Normalize(mean=[0.485], std=[0.229])], 1)
    np.testing.assert_allclose([low[0], high[0]], [-0.485 / 0.229, 0.515 / 0.229], rtol=1e-6)


def test_bounds_of_an_unknown_operation() -> None:
    with pytest.raises(DataError, match=r"preprocessing\[0\] \(solarize\)"):
        input_bounds(v1.PREPROCESSING.validate_python([{"op": "solarize"}]), 3)


def test_every_operation_of_the_format_is_implemented() -> None:
    examples: dict[str, dict[str, object]] = {
        "rescale": {"scale": 1.0},
        "resize": {"size": [2, 2], "interpolation": "bicubic"},
        "pad": {"pixels": 1},
        "center_crop": {"size": [2, 2]},
        "normalize": {"mean": [0.0], "std": [1.0]},
        "grayscale": {},
    }
    assert set(examples) == set(v1.KNOWN_OPS)
    for name, members in examples.items():
        ops = v1.PREPROCESSING.validate_python([{"op": name, **members}])
        assert preprocess(noise(1, 4, 4, 3), ops).ndim == 4
