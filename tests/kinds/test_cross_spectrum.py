"""`cross-spectrum`: against float64 singular values, its laws, its sketch's bound, its check and its distance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.kinds.cross_spectrum import spec
from dfmeta.kinds.cross_spectrum.accumulate import Accumulator, accumulator_bytes, merge_tolerance
from dfmeta.kinds.cross_spectrum.match import distance
from dfmeta.numerics.eigen import leading_singular_pairs, product_singular_pairs
from dfmeta.testing import KindCase, KindContract

ROUNDING = 1e-11
SHAPES = pytest.mark.parametrize("widths", [(6, 4), (4, 6), (5, 5), (1, 3)], ids=str)


def cross_of_sketch(made, group):
    rows = made.sketch(group)
    return rows[:, : made.features].T @ rows[:, made.features :]


def agree(one, other):
    """Equal arrays where merging defines them; cross-moments from two sketches within half of both bounds together."""
    left, right = one.state(), other.state()
    for name, tolerance in merge_tolerance(one.configuration).items():
        scale = np.abs(left[name]).max(initial=0.0)
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance * scale, err_msg=name)
    for group in range(one.groups):
        gap = np.linalg.norm(cross_of_sketch(one, group) - cross_of_sketch(other, group), 2)
        bound = float(one.shrinkage[group] + other.shrinkage[group]) / 2
        assert gap <= bound + ROUNDING * left["trace"].max()


CASES = [
    KindCase("cross-spectrum", 2, {"rank": 2, "paired_feature_count": 5}, paired_shape=(5,)),
    KindCase("cross-spectrum", 4, {"rank": 2, "paired_feature_count": 3, "sketch": 3}, (), (3,), compare=agree),
    KindCase("cross-spectrum", 4, {"rank": 2, "paired_feature_count": 3, "sketch": 7}, (), (3,), compare=agree),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestCrossSpectrum(KindContract):
    pass


def related(seed, count, widths, groups=1, offset=0.0):
    """Samples of two sites that share causes, and a group for each."""
    generator = np.random.default_rng(seed)
    causes = generator.normal(size=(count, 3)) * [3, 1, 0.3]
    sites = [
        causes @ generator.normal(size=(3, width)) + 0.2 * generator.normal(size=(count, width)) + offset
        for width in widths
    ]
    return *sites, generator.integers(0, groups, count)


def gathered(samples, group, paired, groups=1, cuts=(), rank=3, **configuration):
    configuration |= {"rank": rank, "paired_feature_count": paired.shape[1]}
    made = Accumulator(samples.shape[1], groups, configuration)
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    for start, end in pairwise(edges):
        if end > start:
            made.update(*(torch.as_tensor(array[start:end]) for array in (samples, group, paired)))
    return made


def covariance(samples, paired):
    return (samples - samples.mean(0)).T @ (paired - paired.mean(0)) / len(samples)


@SHAPES
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_it_equals_the_reference(widths, offset):
    samples, paired, group = related(0, 400, widths, 3, offset)
    made = gathered(samples, group, paired, 3, cuts=(1, 50, 51, 333))
    tensors = made.tensors(torch.full((3,), 1000), 10)
    kept = min(3, *widths)
    for row in range(3):
        mine = group == row
        left, values, right = np.linalg.svd(covariance(samples[mine], paired[mine]), full_matrices=False)
        np.testing.assert_allclose(tensors["mean"][row], samples[mine].mean(0), rtol=1e-6)
        np.testing.assert_allclose(tensors["paired_mean"][row], paired[mine].mean(0), rtol=1e-6)
        np.testing.assert_allclose(tensors["singular_values"][row, :kept], values[:kept], rtol=1e-5)
        assert not tensors["singular_values"][row, kept:].any()
        part = (left[:, :kept] * values[:kept]) @ right[:kept]
        found = (tensors["left"][row].T * tensors["singular_values"][row]) @ tensors["right"][row]
        np.testing.assert_allclose(found, part, atol=1e-5 * values[0])
        np.testing.assert_allclose(tensors["residual"][row], np.linalg.norm(values[kept:]), atol=1e-6 * values[0])
    assert spec.check(tensors, "record") == []


def test_the_largest_entry_of_a_left_vector_is_positive():
    samples, paired, group = related(1, 100, (6, 4))
    left = gathered(samples, group, paired).tensors(torch.tensor([100]), 10)["left"][0]
    assert (left[np.arange(3), np.abs(left).argmax(1)] > 0).all()


def test_a_group_keeps_one_pair_for_each_ten_units_and_the_rest_is_residual():
    samples, paired, group = related(2, 400, (6, 4), 4)
    for extra in ({}, {"sketch": 10}):
        made = gathered(samples, group, paired, 4, **extra)
        tensors = made.tensors(torch.tensor([100, 29, 9, 0]), 10)
        np.testing.assert_array_equal((tensors["singular_values"] > 0).sum(1), [3, 2, 0, 0])
        np.testing.assert_array_equal(tensors["left"].any(2).sum(1), [3, 2, 0, 0])
        for row in range(4):
            mine = group == row
            total = np.square(covariance(samples[mine], paired[mine])).sum()
            squares = np.square(tensors["singular_values"][row], dtype=np.float64).sum() + tensors["residual"][row] ** 2
            assert squares == pytest.approx(total, rel=1e-5)


def test_rows_of_the_two_sites_are_the_same_units():
    """In another order the sites have nothing to do with each other."""
    samples, paired, group = related(3, 2000, (4, 4))
    told = gathered(samples, group, paired).tensors(torch.tensor([2000]), 10)
    mixed = gathered(samples, group, paired[::-1].copy()).tensors(torch.tensor([2000]), 10)
    assert mixed["singular_values"][0, 0] < 0.1 * told["singular_values"][0, 0]


@pytest.mark.parametrize("extra", [{}, {"sketch": 9}], ids=["exact", "sketched"])
def test_one_sample_and_constant_features_have_no_covariance(extra):
    for count in (1, 30):
        made = gathered(np.full((count, 4), 2.5), np.zeros(count, np.int64), np.full((count, 5), -3.0), **extra)
        tensors = made.tensors(torch.tensor([1000]), 10)
        assert not tensors["singular_values"].any()
        assert not tensors["residual"].any()
        np.testing.assert_array_equal(tensors["paired_mean"], np.full((1, 5), -3, np.float32))
        assert spec.check(tensors, "record") == []


def test_a_huge_mean_with_a_tiny_covariance():
    samples, paired, group = related(4, 1000, (3, 3))
    cuts = range(10, 1000, 10)
    made = gathered(1e6 + 1e-3 * samples, group, 1e6 + 1e-3 * paired, cuts=cuts)
    found = made.tensors(made.count, 10)["singular_values"][0]
    expected = np.linalg.svd(covariance(samples, paired), compute_uv=False) * 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_activations_are_gathered_in_float64(dtype):
    samples, paired, group = related(5, 300, (4, 3), offset=2)
    samples, paired = (torch.from_numpy(array).to(dtype) for array in (samples, paired))
    made = gathered(samples, group, paired)
    expected = covariance(samples.double().numpy(), paired.double().numpy())
    np.testing.assert_allclose(made.comoment[0] / 300, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 80),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    directions=st.integers(1, 8),
    scale=st.sampled_from([1.0, 1e-3, 50.0]),
)
@settings(max_examples=100, deadline=None)
def test_the_bound_of_the_sketch_holds_wherever_batches_are_cut(seed, count, cuts, directions, scale):
    """Also when the values of one site are much larger, or batches were gathered apart and merged."""
    samples, paired, group = related(seed, count, (5, 4))
    paired = paired * scale
    whole = gathered(samples, group, paired, cuts=cuts, rank=1, sketch=directions)
    merged = gathered(samples[:0], group[:0], paired[:0], rank=1, sketch=directions)
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    for start, end in pairwise(edges):
        part = slice(start, end)
        merged.merge(gathered(samples[part], group[part], paired[part], rank=1, sketch=directions))
    truth = covariance(samples, paired)
    slack = ROUNDING * (samples.var(0).sum() + paired.var(0).sum())
    for made in (whole, merged):
        missing = np.linalg.norm(truth - cross_of_sketch(made, 0) / count, 2)
        tensors = made.tensors(torch.tensor([1000]), 10)
        assert missing <= float(tensors["error_bound"][0]) + slack
        gap = abs(float(tensors["singular_values"][0, 0]) - np.linalg.norm(truth, 2))
        assert gap <= float(tensors["error_bound"][0]) + slack + 1e-6 * np.linalg.norm(truth, 2)
        joined = np.linalg.eigvalsh(np.cov(np.hstack([samples, paired]).T, bias=True))[::-1].clip(min=0)
        for kept in range(min(directions, 9) + 1):
            promise = joined[kept:].sum() / (directions + 1 - kept) / 2
            assert float(tensors["error_bound"][0]) <= promise * (1 + 1e-6) + slack


def test_half_the_bound_is_enough_and_not_more_than_is_needed():
    """Two directions of equal weight at 45 degrees between the sites: the lost one is all in the cross block."""
    rows = np.array([[1.0, 1], [1, -1]])
    rows = np.concatenate([rows, -rows])
    made = gathered(rows[:, :1], np.zeros(4, np.int64), rows[:, 1:], cuts=(1, 2, 3), rank=1, sketch=1)
    truth = covariance(rows[:, :1], rows[:, 1:])[0, 0]
    tensors = made.tensors(torch.tensor([1000]), 10)
    assert tensors["error_bound"][0] > 0
    assert abs(truth - cross_of_sketch(made, 0)[0, 0] / 4) <= tensors["error_bound"][0] * (1 + 1e-6)


def test_enough_directions_are_exact():
    samples, paired, group = related(6, 300, (5, 4), 2)
    exact = gathered(samples, group, paired, 2).tensors(torch.tensor([150, 150]), 10)
    sketched = gathered(samples, group, paired, 2, sketch=9).tensors(torch.tensor([150, 150]), 10)
    assert sketched.pop("error_bound").max() < 1e-10
    for name, values in exact.items():
        np.testing.assert_allclose(sketched[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("extra", [{}, {"sketch": 6}])
def test_memory_is_that_of_the_state(extra):
    samples, paired, group = related(7, 20, (5, 4), 3)
    made = gathered(samples, group, paired, 3, **extra)
    assert accumulator_bytes(5, 3, made.configuration) == sum(array.nbytes for array in made.state().values())


@pytest.mark.parametrize("name", ["rank", "paired_feature_count", "sketch"])
@pytest.mark.parametrize("value", [None, True, "3", 3.0, 0, -1, 2**70, [3], {}])
def test_a_configuration_that_cannot_be_is_refused(name, value):
    configuration = {"rank": 2, "paired_feature_count": 4, "sketch": 5}
    assert spec.layout(3, None, configuration)["right"].shape == (2, 4)
    with pytest.raises(ValueError, match=name):
        spec.layout(3, None, {**configuration, name: value})


@pytest.mark.parametrize(("rank", "directions", "fits"), [(4, 4, False), (3, 2, False), (3, 8, False), (3, 7, True)])
def test_rank_and_sketch_have_their_limits(rank, directions, fits):
    """At most as many pairs as the smaller site has features, from at most as many directions as there are."""
    configuration = {"rank": rank, "paired_feature_count": 4, "sketch": directions}
    if fits:
        assert spec.layout(3, 2, configuration)["error_bound"].shape == (2,)
    else:
        with pytest.raises(ValueError, match=r"rank|sketch"):
            spec.layout(3, 2, configuration)
    with pytest.raises(ValueError, match="rank"):
        spec.layout(6, 2, {"rank": 5, "paired_feature_count": 4})


def published():
    return {
        "count": np.array([20, 0]),
        "mean": np.array([[1.0, 2], [0, 0]], np.float32),
        "paired_mean": np.array([[1.0, 2, 3], [0, 0, 0]], np.float32),
        "singular_values": np.array([[2.0, 1], [0, 0]], np.float32),
        "left": np.array([np.eye(2), np.zeros((2, 2))], np.float32),
        "right": np.array([np.eye(2, 3), np.zeros((2, 3))], np.float32),
        "residual": np.array([0.5, 0], np.float32),
        "error_bound": np.array([0.1, 0], np.float32),
    }


@pytest.mark.parametrize(
    ("name", "index", "value", "code", "where"),
    [
        ("count", 0, -1, "negative", "count"),
        ("mean", (0, 0), np.nan, "not-finite", "mean"),
        ("right", (0, 0, 0), np.inf, "not-finite", "right"),
        ("singular_values", (0, 1), -1, "negative", "singular_values"),
        ("singular_values", (0, 1), 3, "unsorted", "singular_values"),
        ("residual", 0, -1, "negative", "residual"),
        ("error_bound", 0, -1, "negative", "error_bound"),
        ("paired_mean", (1, 0), 1, "filler", "paired_mean"),
        ("left", (0, 0, 1), 0.5, "not-orthonormal", "left"),
        ("right", (0, 1, 1), 2, "not-orthonormal", "right"),
        ("right", (0, 1, 1), 0, "incomplete-pair", ""),
        ("left", (0, 1, 1), 0, "incomplete-pair", ""),
    ],
)
def test_numbers_that_contradict_the_kind_are_problems(name, index, value, code, where):
    tensors = published()
    assert spec.check(tensors, "records[0]") == []
    tensors[name][index] = value
    found = spec.check(tensors, "records[0]")
    assert [problem.code for problem in found] == [code]
    assert found[0].where == ("records[0]." + where).rstrip(".")


def test_a_value_without_its_vectors_is_a_problem():
    tensors = published()
    tensors["left"][0, 1] = tensors["right"][0, 1] = 0
    assert [problem.code for problem in spec.check(tensors, "records[0]")] == ["incomplete-pair"]


def test_an_ungrouped_record_is_checked_alike():
    tensors = {name: values[0] for name, values in published().items()}
    assert spec.check(tensors, "record") == []
    tensors["right"][1] = 0
    assert [problem.code for problem in spec.check(tensors, "record")] == ["incomplete-pair"]


@pytest.fixture(scope="module")
def matched():
    """A batch of two groups, and the record of that very batch, in float64."""
    samples, paired, group = related(8, 60, (5, 4), 2, offset=1)
    tensors = gathered(samples, group, paired, 2).tensors(torch.tensor([1000, 1000]), 10)
    record = {name: torch.from_numpy(array).double() for name, array in tensors.items()}
    return torch.from_numpy(samples), torch.from_numpy(group), record, torch.from_numpy(paired)


def test_distance_is_zero_where_batch_and_record_agree(matched):
    assert 0 <= float(distance(*matched)) < 1e-10


def test_distance_is_the_relative_error_of_the_covariances(matched):
    """One site twice as large: each covariance is off by its whole value, over value and floor."""
    samples, group, record, paired = matched
    mean = record["mean"][group]
    values = record["singular_values"]
    expected = (values / (values + 0.01 * values.mean(1, keepdim=True))).square().mean()
    for factor, share in ((2.0, 1), (1.5, 0.25), (0.0, 1)):
        found = distance(mean + factor * (samples - mean), group, record, paired)
        assert float(found) == pytest.approx(share * float(expected), rel=1e-4)


def test_distance_sees_that_the_sites_go_apart(matched):
    samples, group, record, paired = matched
    assert float(distance(samples, group, record, paired.flip(0))) > 0.3
    assert float(distance(samples, 1 - group, record, paired)) > 1e-3


def test_both_sites_are_taken_from_their_recorded_means(matched):
    """Moved along one pair of vectors, the mean product of that pair grows by the product of the two moves."""
    samples, group, record, paired = matched
    left, right, values = (record[name] for name in ("left", "right", "singular_values"))
    found = distance(samples + 3 * left[group, 0], group, record, paired + 0.5 * right[group, 0])
    scale = values + 0.01 * values.mean(1, keepdim=True)
    expected = (1.5 / scale[:, 0]).square().mean() / 3
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
    alone = distance(samples + 3 * left[group, 0], group, record, paired)
    assert float(alone) < 1e-6


def test_units_do_not_matter(matched):
    samples, group, record, paired = matched
    scaled = {**record, "mean": 1e3 * record["mean"], "singular_values": 1e3 * record["singular_values"]}
    shifted = samples * 1.3
    one = float(distance(shifted, group, record, paired))
    assert float(distance(1e3 * shifted, group, scaled, paired)) == pytest.approx(one, rel=1e-9)
    # Both sites in units so large that squares of singular values are below what float32 can hold.
    tiny = {**record, "singular_values": 1e-24 * record["singular_values"]}
    tiny |= {name: 1e-12 * record[name] for name in ("mean", "paired_mean")}
    tiny = {name: values.float() for name, values in tiny.items()}
    found = distance(1e-12 * shifted.float(), group, tiny, 1e-12 * paired.float())
    assert float(found) == pytest.approx(one, rel=1e-3)


def test_a_single_sample_pulls_without_bias(matched):
    """The mean over samples of what each one says is what the batch says: no spread within a batch is needed."""
    samples, group, record, paired = matched
    mine = group == 0
    along = (samples[mine] - record["mean"][0]) @ record["left"][0].T
    beside = (paired[mine] - record["paired_mean"][0]) @ record["right"][0].T
    np.testing.assert_allclose((along * beside).mean(0), record["singular_values"][0], rtol=1e-4)
    one = samples[mine][:1].clone().requires_grad_()
    distance(one, group[mine][:1], record, paired[mine][:1]).backward()
    assert torch.isfinite(one.grad).all()
    assert one.grad.any()


def test_its_gradient_is_that_of_finite_differences(matched):
    samples, group, record, paired = (part[:12] if isinstance(part, torch.Tensor) else part for part in matched)
    inputs = (samples * 1.1).requires_grad_(), (paired * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: distance(x, group, record, y), inputs)


def test_a_record_without_pairs_asks_nothing(matched):
    samples, group, record, paired = matched
    empty = {name: torch.zeros_like(values) for name, values in record.items()}
    inputs = samples.clone().requires_grad_()
    found = distance(inputs, group, empty, paired)
    assert float(found) == 0


@pytest.mark.parametrize("shape", [(730, 760), (760, 730), (40, 30)])
def test_leading_singular_pairs_are_those_of_the_whole_decomposition(shape):
    generator = np.random.default_rng(9)
    matrix = (generator.normal(size=(shape[0], 20)) / np.arange(1, 21) ** 2) @ generator.normal(size=(20, shape[1]))
    matrix += 1e-4 * generator.normal(size=shape)
    values, left, right = leading_singular_pairs(matrix, 2)
    np.testing.assert_allclose(values, np.linalg.svd(matrix, compute_uv=False)[:2], rtol=1e-9)
    np.testing.assert_allclose(left @ left.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(right @ right.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(left @ matrix, values[:, None] * right, atol=1e-8 * values[0])


@pytest.mark.parametrize("shape", [(730, 760), (12, 7)])
def test_a_matrix_of_zeros_has_pairs_of_value_zero(shape):
    values, left, right = leading_singular_pairs(np.zeros(shape), 2)
    np.testing.assert_allclose(values, 0, atol=1e-12)
    np.testing.assert_allclose(left @ left.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(right @ right.T, np.eye(2), atol=1e-12)


def test_few_pairs_of_a_large_matrix_need_no_whole_decomposition(monkeypatch):
    matrix = np.random.default_rng(10).normal(size=(740, 8)) @ np.random.default_rng(11).normal(size=(8, 730))
    whole = np.linalg.svd

    def svd(array, **options):
        assert len(array) < 200
        return whole(array, **options)

    monkeypatch.setattr(np.linalg, "svd", svd)
    values, _, _ = leading_singular_pairs(matrix, 2)
    np.testing.assert_allclose(values, whole(matrix, compute_uv=False)[:2], rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_pairs_of_a_product_are_those_of_the_product(count):
    generator = np.random.default_rng(12)
    one, other = generator.normal(size=(count, 6)), generator.normal(size=(count, 4))
    values, left, right = product_singular_pairs(one, other)
    assert len(values) == min(count, 4)
    np.testing.assert_allclose((left.T * values) @ right, one.T @ other, atol=1e-12)
    np.testing.assert_allclose(right @ right.T, np.eye(len(values)), atol=1e-12)
