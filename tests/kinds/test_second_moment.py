"""`second-moment` in every form and storage against plain loops over unfolded patches in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.kinds.second_moment import geometry, toeplitz
from dfmeta.kinds.second_moment.reading import matrix
from dfmeta.testing import KindCase, KindContract

SPEC = KINDS.load("second-moment", "spec")
GATHERING = KINDS.load("second-moment", "accumulate")
FORMS = ("full", "toeplitz", "kronecker", "diagonal")


def windowed(kernel, strides=None, dilations=None, pads=None, groups=1, **more):
    axes = len(kernel)
    window = {
        "kernel": list(kernel),
        "strides": list(strides or [1] * axes),
        "dilations": list(dilations or [1] * axes),
        "pads": list(pads or [0] * 2 * axes),
        "groups": groups,
    }
    return {"form": "full", "storage": "float32", **window, **more}


# Window and the map's channels and sizes. Sizes of 11 are long enough for the transform to be the shorter way.
WINDOWS = {
    "padded": (windowed([3, 3], pads=[1, 1, 1, 1]), 4, (11, 11)),
    "strided": (windowed([3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 3, (7, 8)),
    "dilated": (windowed([3, 2], dilations=[2, 3], pads=[2, 0, 2, 1]), 3, (8, 9)),
    "asymmetric": (windowed([2, 3], strides=[1, 2], pads=[0, 1, 1, 2]), 3, (6, 7)),
    "grouped": (windowed([3, 3], pads=[1, 1, 1, 1], groups=2), 4, (6, 6)),
    "depthwise": (windowed([3, 3], pads=[1, 1, 1, 1], groups=4), 4, (5, 6)),
    "pointwise": (windowed([1, 1], strides=[2, 2]), 5, (5, 5)),
    "wider-than-the-map": (windowed([5, 3], pads=[2, 1, 2, 1]), 2, (3, 2)),
    "one-axis": (windowed([3], pads=[1, 1]), 6, (24,)),
    "one-axis-strided": (windowed([4], strides=[3], dilations=[2], pads=[2, 5]), 3, (13,)),
    "three-axes": (windowed([2, 3, 2], strides=[1, 2, 1], pads=[1, 1, 0, 0, 1, 1], groups=2), 4, (3, 5, 4)),
}
CASES = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)


def made(window, form, **more):
    configuration, channels, _ = window
    features = channels // configuration["groups"] * int(np.prod(configuration["kernel"]))
    return features, {**configuration, "form": form, **more}


def maps(window, units=5, seed=0, dtype=torch.float64):
    _, channels, sizes = window
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(units, channels, *sizes, generator=generator, dtype=torch.float64)
    value = value + 0.5 * value.roll(1, -1) + 0.3 * value.roll(1, 1)
    return (value.relu() + 0.1).to(dtype)


def unfolded(value, configuration):
    """``[g, patches, d]``, one patch and one tap at a time."""
    value = value.double().numpy()
    kernel, strides, dilations = (configuration[key] for key in ("kernel", "strides", "dilations"))
    pads, groups, axes = configuration["pads"], configuration["groups"], len(configuration["kernel"])
    value = np.pad(value, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    outputs = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, s, d in zip(value.shape[2:], kernel, strides, dilations, strict=True)
    ]
    rows = []
    for unit in value:
        for place in itertools.product(*map(range, outputs)):
            taps = [
                unit[(slice(None), *(q * s + k * d for q, s, k, d in zip(place, strides, tap, dilations, strict=True)))]
                for tap in itertools.product(*map(range, kernel))
            ]
            rows.append(np.stack(taps, 1).reshape(groups, -1))
    return np.stack(rows, 1)


def reference(rows, form, configuration):
    """Mean and the matrix that the form stands for, from ``[g, m, d]``."""
    mean, whole = rows.mean(1), np.einsum("gmi,gmj->gij", rows, rows) / rows.shape[1]
    if form == "diagonal":
        whole = whole * np.eye(whole.shape[1])
    if form in ("toeplitz", "kronecker"):
        taps = list(itertools.product(*map(range, configuration["kernel"])))
        blocks = whole.reshape(len(whole), -1, len(taps), whole.shape[1] // len(taps), len(taps))
        blocks = toeplitz_of(blocks, taps) if form == "toeplitz" else kronecker_of(blocks)
        whole = blocks.reshape(whole.shape)
    return mean, whole


def toeplitz_of(blocks, taps):
    """Every block replaced by the mean of the blocks of pairs of taps that lie equally far apart."""
    found = np.empty_like(blocks)
    for one, other in itertools.product(range(len(taps)), repeat=2):
        apart = np.subtract(taps[other], taps[one])
        alike = [
            blocks[:, :, i, :, j]
            for i, j in itertools.product(range(len(taps)), repeat=2)
            if (np.subtract(taps[j], taps[i]) == apart).all()
        ]
        found[:, :, one, :, other] = np.mean(alike, 0)
    return found


def kronecker_of(blocks):
    """The two partial traces, their product scaled to the trace of the whole."""
    channels, taps = np.einsum("gckdk->gcd", blocks), np.einsum("gckcl->gkl", blocks)
    trace = np.einsum("gcc->g", channels)
    return np.einsum("gcd,gkl,g->gckdl", channels, taps, 1 / trace)


def fed(features, configuration, *values):
    accumulator = GATHERING.Accumulator(features, 1, configuration)
    for value in values:
        accumulator.update(value, torch.zeros(len(value), dtype=torch.int64))
    return accumulator


def read(accumulator, features, configuration):
    tensors = accumulator.tensors(torch.tensor([100]), 10)
    layout = SPEC.layout(features, 1, configuration)
    assert {name: (values.shape, str(values.dtype) in layout[name].dtypes) for name, values in tensors.items()} == {
        name: (expected.shape, True) for name, expected in layout.items()
    }
    assert SPEC.check(tensors, "record") == []
    alone = {name: values[0] for name, values in tensors.items()}
    return alone, matrix(alone, features, configuration)


def close(found, expected, tolerance):
    """Relative to the roots of the two diagonal entries."""
    roots = np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1)) + 1e-300
    assert found.shape == expected.shape
    assert np.abs((found - expected) / roots[..., None] / roots[..., None, :]).max() <= tolerance


@CASES
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_form_equals_the_reference(window, form, dtype):
    features, configuration = made(window, form)
    value = maps(window, dtype=dtype)
    rows = unfolded(value, configuration)
    accumulator = fed(features, configuration, value[:2], value[2:])
    mean, expected = reference(rows, form, configuration)
    alone, found = read(accumulator, features, configuration)
    assert alone["count"] == rows.shape[1]
    np.testing.assert_allclose(alone["mean"], mean, rtol=1e-6, atol=1e-7)
    # Float32 products and storage, and what the form itself lacks of being semi-definite, which reading repairs.
    rounding = 1.5e-6 if dtype == torch.float32 else 5e-7
    lacking = max(-np.linalg.eigvalsh(expected).min() / np.abs(expected).max(), 0) * features
    close(found, expected, rounding + 2 * lacking)
    assert np.linalg.eigvalsh(found).min() >= -1e-7 * np.abs(found).max()


@CASES
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "exact", "tolerance"), [(torch.float32, False, 1e-6), (torch.float32, True, 1e-13)])
def test_sums_are_as_near_to_the_reference_as_promised(window, form, dtype, exact, tolerance):
    """The state, which no storage rounds: within 1e-6 of float64 at each entry, or to rounding if exact."""
    features, configuration = made(window, form, exact=exact)
    value = maps(window, dtype=dtype)
    expected = fed(features, configuration, value.double())
    found = fed(features, configuration, value)
    for name, sums in expected.sums.items():
        scale = sums.abs().amax()
        assert (found.sums[name] - sums).abs().amax() <= tolerance * scale, name


@CASES
@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker"])
@pytest.mark.parametrize(("storage", "step"), [("float16", 2**-11), ("int8", 1 / 127)])
def test_few_bits_cost_less_than_their_step(window, form, storage, step):
    features, configuration = made(window, form, storage=storage)
    value = maps(window)
    _, exact = read(fed(features, made(window, form)[1], value), *made(window, form))
    alone, found = read(fed(features, configuration, value), features, configuration)
    assert {str(values.dtype) for values in alone.values()} == {"int64", "float32", storage}
    assert np.linalg.eigvalsh(found).min() >= -1e-7 * np.abs(found).max()
    np.testing.assert_allclose(
        np.diagonal(found, axis1=-2, axis2=-1), np.diagonal(exact, axis1=-2, axis2=-1), rtol=1e-6
    )
    # One rounding of each entry, and a repair that moves no entry by more than the roundings together.
    close(found, exact, step * (1 + features))


@pytest.mark.parametrize("form", ["full", "diagonal"])
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5)], ids=["linear", "attention"])
def test_inputs_of_matrix_products(form, shape):
    configuration = {"form": form, "storage": "float32"}
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).reshape(-1, 5)
    mean, expected = reference(rows.double().numpy()[None], form, configuration)
    alone, found = read(fed(5, configuration, rows[:2], rows[2:]), 5, configuration)
    np.testing.assert_allclose(alone["mean"], mean[0], rtol=1e-6, atol=1e-7)
    close(found, expected, 3e-7)


@CASES
@pytest.mark.parametrize("units", [1, 5, 70])
def test_all_ways_to_the_lags_agree(window, units):
    """Whichever takes the least is taken; here each is that is open to the window."""
    configuration, channels, sizes = window
    features = channels // configuration["groups"] * int(np.prod(configuration["kernel"]))
    parsed = geometry.window_of(features, configuration)
    value = maps(window, units=units)
    expected = toeplitz.lag_sums(value, parsed)
    if len(sizes) == 1:
        value, parsed = value.unsqueeze(2), toeplitz._two_axes(parsed)
    ways = toeplitz.ways(parsed, tuple(value.shape[2:]), channels // parsed.groups)
    # Rows need two axes, and the transform strides of 1 too.
    assert len(ways) == 2 + (len(sizes) < 3) + (len(sizes) < 3 and set(parsed.strides) == {1})
    for way in ways:
        torch.testing.assert_close(way.sums(value), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("window", "channels", "size", "expected"),
    [
        *((windowed([3, 3], pads=[1, 1, 1, 1]), c, size, "Spectra") for c, size in ((16, 32), (32, 16), (64, 8))),
        (windowed([3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 16, 32, "Patchwise"),
        (windowed([1, 1]), 64, 8, "Patchwise"),
        (windowed([3, 3], pads=[1, 1, 1, 1]), 3, 32, "Rowwise"),
        *((windowed([5, 5]), c, size, "Rowwise") for c, size in ((1, 32), (6, 14))),
    ],
)
def test_each_window_takes_its_way(window, channels, size, expected):
    parsed = geometry.window_of(channels * int(np.prod(window["kernel"])), window)
    assert type(min(toeplitz.ways(parsed, (size, size), channels), key=lambda way: way.cost)).__name__ == expected


def test_a_toeplitz_record_has_thirteen_lags_of_a_3x3_kernel():
    parsed = geometry.window_of(9, windowed([3, 3]))
    assert parsed.lags() == [
        *[(0, 0), (0, 1), (0, 2), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2)],
        *[(2, -2), (2, -1), (2, 0), (2, 1), (2, 2)],
    ]
    assert parsed.lag_count == 13


@pytest.mark.parametrize("form", FORMS)
def test_one_sample_and_constant_features(form):
    window = (windowed([2, 2]), 3, (2, 2))
    features, configuration = made(window, form)
    for value in (torch.full((1, 3, 2, 2), -1.5), torch.zeros(4, 3, 2, 2)):
        alone, found = read(fed(features, configuration, value), features, configuration)
        _, expected = reference(unfolded(value, configuration), "full", configuration)
        expected = expected * np.eye(features) if form == "diagonal" else expected
        assert alone["count"] == len(value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_huge_mean_costs_nothing_that_the_kind_promises(form, dtype):
    window = WINDOWS["padded"]
    features, configuration = made(window, form)
    value = (1e6 + 1e-3 * maps(window)).to(dtype)
    _, expected = reference(unfolded(value, configuration), form, configuration)
    _, found = read(fed(features, configuration, value), features, configuration)
    lacking = max(-np.linalg.eigvalsh(expected).min() / np.abs(expected).max(), 0) * features
    # A product of two factors, each within 1e-6.
    close(found, expected, 3e-6 + 2 * lacking)


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (2, 3, 8), (2, 3, 8, 8, 8), (2, 3)])
def test_a_map_that_the_window_does_not_read_is_refused(shape):
    features, configuration = made((windowed([3, 3]), 3, ()), "full")
    with pytest.raises(ValueError, match=r"not \[n, 3, size, size\]"):
        fed(features, configuration, torch.zeros(shape))


def test_a_kernel_larger_than_the_map_sees_no_patch():
    for form in FORMS:
        features, configuration = made((windowed([3, 3]), 3, ()), form)
        accumulator = fed(features, configuration, torch.ones(2, 3, 2, 2))
        assert int(accumulator.count) == 0
        assert not any(values.any() for values in accumulator.tensors(torch.tensor([2]), 1).values())


PADDED = windowed([3, 3], pads=[1, 1, 1, 1], groups=2)
LAWS = [
    *(
        KindCase("second-moment", 9, {**PADDED, "form": form, "storage": storage}, item_shape=(2, 4, 4))
        for form, storage in (*zip(FORMS, ["float32"] * 4, strict=True), ("full", "float16"), ("toeplitz", "int8"))
    ),
    KindCase("second-moment", 3, {"form": "full", "storage": "float32"}),
    KindCase("second-moment", 3, {"form": "diagonal", "storage": "float32", "exact": True}),
]


@pytest.mark.parametrize("case", LAWS, ids=str)
class TestLaws(KindContract):
    pass
