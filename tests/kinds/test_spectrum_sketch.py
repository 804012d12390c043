"""`spectrum` from a sketch: its error bound against float64 covariances, its laws, and large eigenproblems."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.kinds._scatter import upper_float32
from dfmeta.kinds.spectrum.accumulate import Accumulator, accumulator_bytes, merge_tolerance
from dfmeta.kinds.spectrum.spec import check, layout
from dfmeta.numerics.eigen import leading_eigenpairs, row_eigenpairs
from dfmeta.testing import KindCase, KindContract

ROUNDING = 1e-11


def scatter(made, group):
    """What a sketch says the co-moment is."""
    rows = made.sketch(group)
    return rows.T @ rows


def agree(one, other):
    """Equal arrays where merging defines them; elsewhere between the truth less T and the truth, both of them."""
    left, right = one.state(), other.state()
    for name, tolerance in merge_tolerance(one.configuration).items():
        scale = np.abs(left[name]).max(initial=0.0)
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance * scale, err_msg=name)
    for group in range(one.groups):
        values = np.linalg.eigvalsh(scatter(one, group) - scatter(other, group))
        slack = ROUNDING * max(left["trace"].max(), right["trace"].max())
        assert values.max() <= float(other.shrinkage[group]) + slack
        assert -values.min() <= float(one.shrinkage[group]) + slack


SKETCHED = [
    KindCase("spectrum", features=6, configuration={"rank": 2, "sketch": 2}, compare=agree),
    KindCase("spectrum", features=6, configuration={"rank": 2, "sketch": 6}, compare=agree),
]


@pytest.mark.parametrize("case", SKETCHED, ids=str)
class TestSketchedSpectrum(KindContract):
    pass


def gathered(samples, group, groups=1, cuts=(), rank=2, directions=4):
    made = Accumulator(samples.shape[1], groups, {"rank": rank, "sketch": directions})
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    for start, end in pairwise(edges):
        if end > start:
            made.update(torch.as_tensor(samples[start:end]), torch.as_tensor(group[start:end]))
    return made


def centred_scatter(samples):
    centred = samples - samples.mean(0)
    return centred.T @ centred


def assert_bound(made, samples, group):
    """Every group's sketch lies below the true co-moment, by no more than it says, which is no more than promised."""
    directions = made.configuration["sketch"]
    for row in range(made.groups):
        mine = samples[group == row]
        if not len(mine):
            assert not scatter(made, row).any()
            continue
        expected = centred_scatter(mine)
        # Centring costs rounding in proportion to the mean.
        slack = ROUNDING * (np.trace(expected) + np.abs(mine.mean(0)).sum())
        missing = np.linalg.eigvalsh(expected - scatter(made, row))
        assert missing.min() >= -slack
        assert missing.max() <= float(made.shrinkage[row]) + slack
        assert float(made.trace[row]) == pytest.approx(np.trace(expected), rel=1e-9, abs=slack)
        values = np.linalg.eigvalsh(expected)[::-1].clip(min=0)
        for kept in range(min(directions, len(values)) + 1):
            assert float(made.shrinkage[row]) <= values[kept:].sum() / (directions + 1 - kept) + slack


@st.composite
def streams(draw):
    count, features, groups = draw(st.integers(0, 80)), draw(st.integers(1, 10)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from(["flat", "decaying", "axes"]))
    samples = generator.normal(size=(count, features))
    if shape == "decaying":
        samples *= 0.5 ** np.arange(features)
    if shape == "axes":
        samples = 10 * np.eye(features)[np.arange(count) % features]
    samples += draw(st.sampled_from([0.0, 1.0, -1e4]))
    group = generator.integers(0, groups, count)
    return samples, group, groups, draw(st.lists(st.integers(0, 80), max_size=8)), draw(st.integers(1, 6))


@given(stream=streams())
@settings(max_examples=100, deadline=None)
def test_the_bound_holds_for_the_centred_comoment_wherever_batches_are_cut(stream):
    samples, group, groups, cuts, directions = stream
    assert_bound(gathered(samples, group, groups, cuts, directions=directions), samples, group)


@given(stream=streams())
@settings(max_examples=100, deadline=None)
def test_merging_and_pooling_keep_the_bound(stream):
    samples, group, groups, cuts, directions = stream
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    parts = [gathered(samples[a:b], group[a:b], groups, directions=directions) for a, b in pairwise(edges)]
    whole = parts.pop()
    for part in parts:
        whole.merge(part)
    assert_bound(whole, samples, group)
    assert_bound(whole.pooled(), samples, np.zeros_like(group))


def test_the_published_bound_covers_the_published_eigenvalues():
    generator = np.random.default_rng(11)
    samples = generator.normal(size=(3000, 50)) * 0.9 ** np.arange(50) + 3
    made = gathered(samples, np.zeros(3000, np.int64), cuts=range(100, 3000, 100), rank=8, directions=16)
    tensors = made.tensors(made.count, 10)
    covariance = centred_scatter(samples) / 3000
    truth = np.linalg.eigvalsh(covariance)[::-1][:8]
    short = truth - tensors["eigenvalues"][0]
    assert tensors["error_bound"][0] > 0
    assert (short >= -1e-6 * truth[0]).all()
    assert short.max() <= tensors["error_bound"][0] * (1 + 1e-6)
    # The trace is exact, so what the sketch lost is in the residual.
    total = tensors["eigenvalues"][0].sum(dtype=np.float64) + tensors["residual_trace"][0]
    assert total == pytest.approx(np.trace(covariance), rel=1e-6)
    # Worth having: far from the largest value there is.
    assert tensors["error_bound"][0] < 0.2 * truth[0]


def test_fewer_rows_than_directions_are_exact():
    """d far above n, and n below l: the eigenpairs are those of the exact accumulator, and the bound is 0."""
    samples = np.random.default_rng(3).normal(size=(20, 300)) * np.linspace(3, 1, 20)[:, None]
    group = np.zeros(20, np.int64)
    sketched = gathered(samples, group, cuts=(3, 4, 11), rank=2, directions=30).tensors(torch.tensor([20]), 10)
    exact = Accumulator(300, 1, {"rank": 2})
    exact.update(torch.from_numpy(samples), torch.from_numpy(group))
    expected = exact.tensors(torch.tensor([20]), 10)
    assert sketched.pop("error_bound") == 0
    assert set(sketched) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(sketched[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_group_of_one_sample_has_no_pairs_and_no_residual():
    made = gathered(np.full((1, 5), 7.0), np.zeros(1, np.int64))
    tensors = made.tensors(torch.tensor([1000]), 10)
    np.testing.assert_array_equal(tensors["mean"], np.full((1, 5), 7, np.float32))
    for name in ("eigenvalues", "eigenvectors", "residual_trace", "error_bound"):
        assert not tensors[name].any(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_activations_are_gathered_in_float64(dtype):
    samples = torch.from_numpy(np.random.default_rng(4).normal(2, 1, (500, 12))).to(dtype)
    made = Accumulator(12, 1, {"rank": 3, "sketch": 12})
    for batch in samples.split(50):
        made.update(batch, torch.zeros(len(batch), dtype=torch.int64))
    expected = centred_scatter(samples.double().numpy())
    np.testing.assert_allclose(scatter(made, 0), expected, rtol=0, atol=1e-10 * np.trace(expected))


def test_a_huge_mean_with_a_tiny_variance():
    generator = np.random.default_rng(0)
    samples = 1e6 + 1e-3 * generator.normal(size=(1000, 8)) * 0.5 ** np.arange(8)
    made = gathered(samples, np.zeros(1000, np.int64), cuts=range(10, 1000, 10), directions=3)
    tensors = made.tensors(made.count, 10)
    truth = np.linalg.eigvalsh(centred_scatter(samples) / 1000)[::-1][:2]
    assert (np.abs(truth - tensors["eigenvalues"][0]) <= tensors["error_bound"][0] + 1e-4 * truth[0]).all()


def test_empty_is_the_identity_to_the_bit():
    samples = np.random.default_rng(8).normal(size=(40, 6))
    group = np.arange(40) % 2
    made, expected = gathered(samples, group, 2), gathered(samples, group, 2)
    made.merge(gathered(samples[:0], group[:0], 2))
    empty = gathered(samples[:0], group[:0], 2)
    empty.merge(expected)
    for name, values in expected.state().items():
        np.testing.assert_array_equal(made.state()[name], values, err_msg=name)
        np.testing.assert_array_equal(empty.state()[name], values, err_msg=name)


def test_memory_is_that_of_the_rows():
    configuration = {"rank": 32, "sketch": 64}
    rows = 2 * 64 * 25088 * 8
    assert rows <= accumulator_bytes(25088, 1, configuration) <= 1.01 * rows
    made = Accumulator(7, 3, {"rank": 2, "sketch": 5})
    assert accumulator_bytes(7, 3, made.configuration) == sum(values.nbytes for values in made.state().values())


@pytest.mark.parametrize("filled", [-1, 9])
def test_a_state_that_fills_more_than_there_is_is_refused(filled):
    made = gathered(np.ones((3, 2)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="filled"):
        made.restore({**made.state(), "filled": np.array([filled])})


@pytest.mark.parametrize("directions", [None, True, "9", 2.0, 1, 0, -3, 6, 2**70, [4]])
def test_a_sketch_that_is_none_is_refused(directions):
    with pytest.raises(ValueError, match="sketch"):
        layout(5, None, {"rank": 2, "sketch": directions})


def test_a_sketch_adds_its_bound_and_nothing_else():
    exact, sketched = layout(5, 3, {"rank": 2}), layout(5, 3, {"rank": 2, "sketch": 4})
    assert sketched.pop("error_bound").shape == (3,)
    assert sketched == exact


@pytest.mark.parametrize(
    ("bound", "codes"),
    [([0.5, 0], []), ([-0.5, 0], ["negative"]), ([np.nan, 0], ["not-finite"]), ([0.5, 1], ["filler"])],
)
def test_a_bound_that_cannot_be_is_a_problem(bound, codes):
    tensors = {
        "count": np.array([20, 0]),
        "mean": np.array([[1.0, 2], [0, 0]], np.float32),
        "eigenvalues": np.array([[2.0, 1], [0, 0]], np.float32),
        "eigenvectors": np.array([np.eye(2), np.zeros((2, 2))], np.float32),
        "residual_trace": np.array([0.5, 0], np.float32),
        "error_bound": np.array(bound, np.float32),
    }
    found = check(tensors, "records[0]")
    assert [problem.code for problem in found] == codes
    assert all(problem.where == "records[0].error_bound" for problem in found)


@given(st.floats(0, 1e30))
def test_a_bound_is_never_rounded_down(bound):
    rounded = float(upper_float32(bound))
    assert bound <= rounded <= bound * (1 + 2e-7) + 2e-45


def spectra(size):
    return {
        "decaying": 1 / np.arange(1, size + 1),
        "ten in all": (np.arange(size) < 10) * 1.0,
        "twenty equal": np.where(np.arange(size) < 20, 1.0, 0.1),
        "all equal": np.ones(size),
        "close together": 1 - 1e-4 * np.arange(size),
        "none": np.zeros(size),
    }


@pytest.mark.parametrize("name", spectra(2))
def test_leading_pairs_of_a_large_matrix_are_those_of_the_whole_decomposition(name):
    """Whether they were sought or, where that does not end, all were computed."""
    size, rank = 730, 2
    values = spectra(size)[name]
    basis = np.linalg.qr(np.random.default_rng(6).normal(size=(size, size)))[0]
    matrix = (basis * values) @ basis.T
    found, rows = leading_eigenpairs(matrix, rank)
    np.testing.assert_allclose(found, values[:rank], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(rows @ rows.T, np.eye(rank), atol=1e-6)
    residual = np.linalg.norm(rows @ matrix - found[:, None] * rows, axis=1)
    assert residual.max(initial=0.0) <= 1e-6 * values[0]
    again = leading_eigenpairs(matrix, rank)
    np.testing.assert_array_equal(again[0], found)
    np.testing.assert_array_equal(again[1], rows)


def test_few_pairs_of_a_large_matrix_need_no_whole_decomposition(monkeypatch):
    samples = np.random.default_rng(9).normal(size=(900, 730)) / np.arange(1, 731)
    covariance = samples.T @ samples / 900
    whole = np.linalg.eigh

    def eigh(matrix):
        assert len(matrix) < 200
        return whole(matrix)

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    found, _ = leading_eigenpairs(covariance, 2)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(covariance)[::-1][:2], rtol=1e-6)


def test_pairs_of_rows_of_very_unlike_lengths_are_orthonormal():
    generator = np.random.default_rng(13)
    basis = np.linalg.qr(generator.normal(size=(40, 20)))[0].T
    lengths = np.geomspace(1e3, 1e-12, 20)
    rows = np.linalg.qr(generator.normal(size=(20, 20)))[0] @ (basis * lengths[:, None])
    values, vectors = row_eigenpairs(rows, 20)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(20), atol=1e-6)
    np.testing.assert_allclose(values, lengths**2, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.abs((vectors[:6] * basis[:6]).sum(1)), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (1, 4), (0, 4)])
def test_pairs_of_rows_are_those_of_their_gram_matrix(shape):
    rows = np.random.default_rng(10).normal(size=shape)
    rank = min(2, *shape)
    values, vectors = row_eigenpairs(rows, rank)
    expected, directions = leading_eigenpairs(rows.T @ rows, rank)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(vectors, directions, atol=1e-5)
