"""The histogram kind against a plain reference, the laws of its integers, and what it may not show."""

from __future__ import annotations

import math
import struct
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from dfmeta.errors import StepError
from dfmeta.kinds.histogram import accumulate, counting, spec
from dfmeta.kinds.histogram.accumulate import Accumulator
from dfmeta.kinds.histogram.merging import merged_inward
from dfmeta.kinds.histogram.spec import BINS_BY_VALUE, bin_edges, bin_of, rank_of

LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-126
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def plain_bin(value: float) -> int:
    """By arithmetic, without looking at the bits: frexp gives value = fraction * 2**exponent, 1/2 <= fraction < 1."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    fraction, exponent = math.frexp(abs(rounded))
    if exponent < -125:
        return 0
    sign = 4096 if rounded < 0 else 0
    return (sign + (exponent + 126) * 16 + math.floor(fraction * 32) - 16) if rounded else 0


def plain_tables(samples, group, groups):
    """Values and units of each bin, by counting one value after the other."""
    counts, units = np.zeros((2, groups, 8192), np.int64)
    for row, owner in zip(samples.tolist(), group.tolist(), strict=True):
        for place, number in Counter(plain_bin(value) for value in row).items():
            counts[owner, place] += number
            units[owner, place] += 1
    return counts, units


def filled(samples, group, groups, cuts=()):
    made = Accumulator(samples.shape[1], groups, {})
    for rows in np.split(np.arange(len(samples)), sorted(cuts)):
        made.update(torch.as_tensor(samples[rows]), torch.as_tensor(group[rows]))
    return made


def one_group(samples):
    return filled(np.asarray(samples, np.float32), np.zeros(len(samples), np.int64), 1)


def published(made, min_units):
    """Bin to count of a record of one group, which must pass its own check."""
    tensors = made.tensors(made.count, min_units)
    assert spec.check(tensors, "record") == []
    return dict(zip(tensors["bins"].tolist(), tensors["counts"][0].tolist(), strict=True))


def same(one, other):
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name], strict=True)


@pytest.fixture(params=["unit by unit", "table", "sorting"])
def way(request, monkeypatch):
    """Both ways of counting, whatever the width, in several parts."""
    monkeypatch.setattr(counting, "_TABLE_WIDTH", 1 << 30 if request.param == "sorting" else 0)
    monkeypatch.setattr(counting, "_TABLE_VALUES", 1 if request.param == "unit by unit" else 1 << 17)
    monkeypatch.setattr(counting, "_TABLE_ROWS", 7)
    monkeypatch.setattr(counting, "_SORTED_VALUES", 50)


# Bins


@given(FLOAT32)
def test_the_bin_is_that_of_the_plain_reference(value):
    assert bin_of(np.float32(value)) == plain_bin(value)


@given(FLOAT32)
def test_a_value_lies_within_the_edges_of_its_bin(value):
    lower, upper = bin_edges(bin_of(np.float32(value)))
    if abs(value) < TINY:
        assert lower < value < upper
    elif value > 0:
        assert lower <= value < upper
    else:
        assert lower < value <= upper


@given(FLOAT32, FLOAT32)
def test_bins_are_in_the_order_of_their_values(one, other):
    low, high = sorted([one, other])
    assert rank_of(bin_of(np.float32(low))) <= rank_of(bin_of(np.float32(high)))


def test_the_bins_tile_the_axis_from_end_to_end():
    lower, upper = bin_edges(BINS_BY_VALUE)
    np.testing.assert_array_equal(lower[1:], upper[:-1])
    assert (lower < upper).all()
    assert (lower[0], upper[-1]) == (-(2.0**128), 2.0**128)
    assert len(BINS_BY_VALUE) == 8129
    assert (np.diff(rank_of(BINS_BY_VALUE)) > 0).all()
    relative = (upper - lower) / np.minimum(abs(lower), abs(upper))
    assert relative[BINS_BY_VALUE != 0].max() == 1 / 16


def test_each_edge_nearer_to_zero_is_in_its_bin():
    lower, upper = bin_edges(BINS_BY_VALUE)
    nearer = np.where(BINS_BY_VALUE >= 4096, upper, lower)
    nearer[BINS_BY_VALUE == 0] = 0
    np.testing.assert_array_equal(bin_of(nearer), BINS_BY_VALUE)
    farther = np.where(BINS_BY_VALUE >= 4096, lower, upper)
    farther = np.nextafter(farther / 2, 0, dtype=np.float32) * 2.0  # halved, since float32 does not reach 2**128
    np.testing.assert_array_equal(bin_of(farther), BINS_BY_VALUE)


def test_zeros_and_denormals_share_bin_0():
    inside = np.array([0.0, -0.0, 1e-45, -1e-45, np.nextafter(np.float32(TINY), np.float32(0))], np.float32)
    np.testing.assert_array_equal(bin_of(inside), 0)
    np.testing.assert_array_equal(bin_of(np.array([TINY, -TINY])), [16, 4112])


def test_wider_values_are_rounded_to_float32_first():
    just_below_two = np.nextafter(2.0, 0)
    assert bin_of(np.array(just_below_two)) == bin_of(np.array(2.0)) == 128 * 16
    np.testing.assert_array_equal(bin_of(np.array([[1, -3], [0, 2]])), [[2032, 4096 + 2056], [0, 2048]])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e39])
def test_what_float32_cannot_hold_has_no_bin(bad):
    with pytest.raises(ValueError, match="not finite in float32"):
        bin_of(np.array([1.0, bad]))


# Counting

VALUES = [0.0, -0.0, 1e-45, -1e-40, 1e-38, -7e-39, TINY, -TINY, 1.0, 1.06, -1.0, 0.1, 3e-5, LARGEST, -LARGEST]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_counts_and_touches_equal_the_plain_reference(dtype):
    generator = np.random.default_rng(3)
    samples = torch.from_numpy(generator.normal(0, 1, (40, 23)) * 10.0 ** generator.integers(-6, 4, (40, 23))).to(dtype)
    samples[generator.random((40, 23)) < 0.3] = 0
    group = torch.from_numpy(generator.integers(0, 3, 40))
    made = Accumulator(23, 4, {})
    made.update(samples, group)
    counts, units = plain_tables(samples.double().numpy(), group.numpy(), 4)
    np.testing.assert_array_equal(made.counts.numpy(), counts)
    np.testing.assert_array_equal(made.units.numpy(), units)
    np.testing.assert_array_equal(made.count.numpy(), np.bincount(group, minlength=4))


@st.composite
def batches(draw):
    rows, features, groups = draw(st.integers(0, 10)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    elements = st.one_of(st.sampled_from(VALUES), FLOAT32)
    samples = draw(st_numpy.arrays(np.float32, (rows, features), elements=elements))
    group = draw(st_numpy.arrays(np.int64, rows, elements=st.integers(0, groups - 1)))
    return samples, group, groups


@pytest.mark.usefixtures("way")
def test_any_batch_equals_the_plain_reference():
    # The fixture's settings last for the whole test, so that hypothesis runs inside of it.
    @given(batches())
    @settings(max_examples=60, deadline=None)
    def holds(batch):
        made = filled(*batch)
        counts, units = plain_tables(*batch)
        np.testing.assert_array_equal(made.counts.numpy(), counts)
        np.testing.assert_array_equal(made.units.numpy(), units)

    holds()


@pytest.mark.parametrize("width", [0, 1 << 30])
@pytest.mark.parametrize("groups", [1, 3])
def test_more_units_than_a_byte_counts(groups, width, monkeypatch):
    monkeypatch.setattr(counting, "_TABLE_WIDTH", width)
    generator = np.random.default_rng(8)
    samples = generator.choice(np.float32([0, -0.0, 1e-40, 1, -1, LARGEST, -TINY]), (700, 3))
    group = generator.integers(0, groups, 700)
    made = filled(samples, group, groups)
    for found, expected in zip((made.counts, made.units), plain_tables(samples, group, groups), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


def test_wide_and_narrow_samples_are_counted_alike():
    generator = np.random.default_rng(5)
    samples = np.maximum(generator.normal(size=(3, 1000)), 0).astype(np.float32)
    group = np.array([1, 0, 1])
    wide, narrow = filled(samples, group, 2), filled(samples[:, :300], group, 2)
    narrow_rest = filled(samples[:, 300:], group, 2)
    assert wide.features >= counting._TABLE_WIDTH > narrow.features
    assert torch.equal(wide.counts, narrow.counts + narrow_rest.counts)
    np.testing.assert_array_equal(wide.units.numpy(), plain_tables(samples, group, 2)[1])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e39])
def test_a_value_that_is_not_finite_is_refused_and_nothing_is_counted(bad):
    samples = torch.tensor([[1.0, 2.0], [bad, 0.0]], dtype=torch.float64)
    made = Accumulator(2, 1, {})
    with pytest.raises(StepError, match="not finite in float32"):
        made.update(samples, torch.zeros(2, dtype=torch.int64))
    same(made, Accumulator(2, 1, {}))


# Laws


@given(batch=batches(), cuts=st.lists(st.integers(0, 10), max_size=4))
@settings(max_examples=40, deadline=None)
def test_one_pass_is_the_same_bits_under_any_cut_and_order(batch, cuts):
    samples, group, groups = batch
    whole = filled(samples, group, groups)
    same(filled(samples, group, groups, cuts), whole)
    same(filled(samples[::-1].copy(), group[::-1].copy(), groups, cuts), whole)


@given(batch=batches(), cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)))
@settings(max_examples=40, deadline=None)
def test_merging_has_an_identity_commutes_and_associates(batch, cuts):
    samples, group, groups = batch
    first, second = sorted(cuts)
    spans = [slice(None, first), slice(first, second), slice(second, None)]

    def merged(*order):
        left = Accumulator(samples.shape[1], groups, {})
        for number in order:
            left.merge(filled(samples[spans[number]], group[spans[number]], groups))
        return left

    whole = filled(samples, group, groups)
    same(merged(0, 1, 2), whole)
    same(merged(2, 0, 1), whole)
    nested = merged(0)
    nested.merge(merged(1, 2))
    same(nested, whole)
    whole.merge(Accumulator(samples.shape[1], groups, {}))
    same(nested, whole)


def test_pooled_without_and_restored():
    generator = np.random.default_rng(1)
    samples, group = generator.normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3
    made = filled(samples, group, 3)
    before = made.state()
    same(made.without([1]).pooled(), filled(samples[group != 1], np.zeros(20, np.int64), 1))
    taken_up = Accumulator(5, 3, {})
    taken_up.restore(before)
    same(taken_up, made)
    taken_up.update(torch.ones(1, 5), torch.tensor([0]))
    made.update(torch.ones(1, 5), torch.tensor([0]))
    same(taken_up, made)
    assert before["count"].sum() == 30  # what was written down does not change with the accumulator
    with pytest.raises(ValueError, match="units"):
        taken_up.restore({name: array for name, array in before.items() if name != "units"})
    with pytest.raises(ValueError, match="counts"):
        taken_up.restore({**before, "counts": before["counts"][:2]})


def test_the_memory_that_is_announced_is_the_memory_that_is_held():
    made = Accumulator(7, 3, {})
    assert accumulate.accumulator_bytes(7, 3, {}) == sum(array.nbytes for array in made.state().values())


# Publication


def test_without_a_minimum_the_record_is_every_value():
    generator = np.random.default_rng(2)
    samples = generator.normal(size=(20, 9)).astype(np.float32)
    expected = Counter(plain_bin(value) for value in samples.ravel().tolist())
    for least in (0, 1):
        assert published(one_group(samples), least) == dict(expected)


def test_tensors_keep_to_the_layout_with_and_without_groups():
    generator = np.random.default_rng(4)
    made = filled(generator.normal(size=(90, 4)).astype(np.float32), np.arange(90) % 3, 4)
    tensors = made.tensors(made.count, 10)
    assert spec.check(tensors, "record") == []
    assert tensors["count"].tolist() == [120, 120, 120, 0]
    length = len(tensors["bins"])
    for groups, part in (
        (4, tensors),
        (None, {**tensors, "count": tensors["count"][0], "counts": tensors["counts"][0]}),
    ):
        for name, expected in spec.layout(4, groups, {}).items():
            shape = tuple(length if size == "bins" else size for size in expected.shape)
            assert part[name].shape == shape, name
            assert str(part[name].dtype) in expected.dtypes, name
    assert {name for name, expected in spec.layout(4, 7, {}).items() if 7 not in expected.shape} == spec.SHARED
    assert set(spec.TYPICAL_LENGTHS) == {"bins"}


def test_groups_share_the_union_of_their_bins():
    samples = np.array([[1.0], [1.0], [-2.0], [-2.0]], np.float32)
    tensors = filled(samples, np.array([0, 0, 1, 1]), 3).tensors(torch.tensor([2, 2, 0]), 2)
    assert tensors["bins"].tolist() == [4096 + 2048, 2032]
    assert tensors["counts"].tolist() == [[0, 2], [2, 0], [0, 0]]


def test_constant_features_and_one_sample():
    assert published(one_group(np.full((20, 3), 4.25)), 10) == {plain_bin(4.25): 60}
    assert published(one_group([[4.25, -1.0]]), 1) == {plain_bin(-1.0): 1, plain_bin(4.25): 1}


def test_the_outlier_of_one_unit_never_shows():
    generator = np.random.default_rng(6)
    samples = generator.integers(-2, 3, (50, 30)).astype(np.float32)
    calm = published(one_group(samples), 10)
    samples[17] = np.where(np.arange(30) < 15, 1e30, -1e30)
    wild = published(one_group(samples), 10)
    assert set(wild) == set(calm) == {plain_bin(value) for value in (-2, -1, 0, 1, 2)}
    assert sum(wild.values()) == samples.size
    assert wild[plain_bin(2)] >= 15  # the outermost bin that enough units reached has taken them in


def test_bins_of_few_units_are_merged_towards_zero_wherever_they_are():
    # Ten units each have 8 and -8; one of them has 100, another 9 and -0.5, a third 2 and -9.
    samples = np.tile(np.float32([8, -8, 8, -8]), (10, 1))
    samples[0, 2], samples[1, 2:], samples[2, 2:] = 100, [9, -0.5], [2, -9]
    eights, minus_eights = (Counter(samples.ravel().tolist())[value] for value in (8.0, -8.0))
    # 100 and 9 go to 8 and -9 to -8; 2 and -0.5 go to bin 0, which has too few, and from there to 8, not -8.
    assert published(one_group(samples), 10) == {plain_bin(-8): minus_eights + 1, plain_bin(8): eights + 4}


def test_what_too_few_units_have_at_zero_goes_to_the_nearest_bin():
    samples = np.tile(np.float32([8, -2]), (10, 1))
    samples = np.vstack([samples, np.float32([[0, 0]])])
    assert published(one_group(samples), 10) == {plain_bin(-2): 12, plain_bin(8): 10}


def test_few_values_to_a_unit_prove_how_many_units_there_are():
    # One value to a unit: ten units are together at 4, and the two below go to bin 0 and back to 4.
    samples = 2.0 ** np.arange(12, dtype=np.float32)[:, None]
    assert published(one_group(samples), 10) == {plain_bin(4): 12}
    assert published(one_group(-samples), 12) == {plain_bin(-1): 12}
    # Two values to a unit, in as many bins as there are values: six units at least behind eleven of them.
    assert published(one_group(samples.reshape(6, 2)), 6) == {plain_bin(2): 12}


def test_a_group_in_which_too_few_units_are_together_is_withheld():
    # Twelve values, but one unit may have had them all.
    samples = np.tile(2.0 ** np.arange(12, dtype=np.float32), (5, 1))
    tensors = one_group(samples).tensors(torch.tensor([5]), 6)
    assert {name: array.tolist() for name, array in tensors.items()} == {"count": [0], "bins": [], "counts": [[]]}
    assert spec.check(tensors, "record") == []


def plainly_merged(counts, units, features, least):
    """The rule of the specification, bin by bin, by place from zero."""

    def enough(places):
        have = [units[place] for place in places]
        return bool(have) and (max(have) >= least or sum(have) >= (least - 1) * min(features, len(have)) + 1)

    merged, rest = {}, [place for place in (0,) if units.get(0)]
    for sign in (1, -1):
        passed_on = []
        for place in sorted((place for place in units if units[place] and place * sign > 0), key=abs, reverse=True):
            passed_on = [*passed_on, place]
            if enough(passed_on):
                merged[place], passed_on = sum(counts[step] for step in passed_on), []
        rest += passed_on
    goal = 0 if enough(rest) else min(merged, key=lambda place: (abs(place), -place), default=None)
    if goal is not None and rest:
        merged[goal] = merged.get(goal, 0) + sum(counts[place] for place in rest)
    return merged


@st.composite
def tables(draw):
    half, features = draw(st.integers(0, 8)), draw(st.integers(1, 5))
    units = draw(st_numpy.arrays(np.int64, 2 * half + 1, elements=st.integers(0, 4)))
    further = draw(st_numpy.arrays(np.int64, 2 * half + 1, elements=st.integers(0, 9)))
    return np.where(units > 0, units + further, 0), units, features, draw(st.integers(1, 6))


@given(tables())
@settings(max_examples=300, deadline=None)
def test_the_rule_of_merging_inward_holds_for_any_table(table):
    counts, units, features, least = table
    merged = merged_inward(*table)
    places = np.arange(len(counts)) - len(counts) // 2
    by_place = [dict(zip(places.tolist(), array.tolist(), strict=True)) for array in (counts, units)]
    expected = plainly_merged(*by_place, features, least)
    assert {place: number for place, number in zip(places.tolist(), merged.tolist(), strict=True) if number} == expected
    assert merged.sum() == (counts.sum() if expected else 0)


@given(st_numpy.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(-6, 6)))
@settings(max_examples=200, deadline=None)
def test_enough_units_reached_each_published_extreme(exponents):
    """Whatever the values: as many units as demanded lie at or beyond the outermost published bins."""
    samples = (np.sign(exponents) * 2.0 ** abs(exponents)).astype(np.float32)
    shown = published(one_group(samples), 3)
    lower, upper = bin_edges(np.array(sorted(shown, key=lambda place: rank_of(np.array(place))), np.int64))
    if shown and lower[-1] > 0:
        assert (samples >= lower[-1]).any(1).sum() >= 3
    if shown and upper[0] < 0:
        assert (samples <= upper[0]).any(1).sum() >= 3


# What a record may hold


def record():
    return {
        "count": np.array([9, 0]),
        "bins": np.array([8175, 4112, 0, 16, 4079]),
        "counts": np.array([[1, 2, 3, 2, 1], [0, 0, 0, 0, 0]]),
    }


def changed(name, index, value):
    tensors = record()
    tensors[name][index] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "codes"),
    [
        (record(), []),
        (changed("count", 0, -9), ["negative"]),
        (changed("counts", (0, 1), -2), ["negative"]),
        (changed("counts", (0, 1), 3), ["not-a-sum"]),
        (changed("counts", (1, 1), 3), ["filler"]),
        (changed("bins", 1, 0), ["unsorted"]),
        (changed("bins", slice(None), [4112, 8175, 0, 16, 4079]), ["unsorted"]),
        *((changed("bins", 2, bad), ["unknown-bin"]) for bad in (-1, 1, 15, 4096, 4111)),
        *((changed("bins", 4, bad), ["unknown-bin"]) for bad in (4080, 4095, 2**40)),
        *((changed("bins", 0, bad), ["unknown-bin"]) for bad in (8176, 8191, 8192)),
    ],
)
def test_numbers_that_contradict_the_kind_are_problems(tensors, codes):
    problems = spec.check(tensors, "records[0]")
    assert [problem.code for problem in problems] == codes
    assert all(problem.where.startswith("records[0]") for problem in problems)
    if codes != ["filler"]:
        flat = {**tensors, "count": tensors["count"][0], "counts": tensors["counts"][0]}
        assert [problem.code for problem in spec.check(flat, "records[0]")] == codes


def test_counts_that_wrap_round_to_the_right_sum_are_no_sum():
    half = 2**62
    tensors = {"count": np.array(0), "bins": np.array([0, 16, 17, 18, 19]), "counts": np.array([half] * 4 + [5])}
    tensors["count"] = tensors["counts"].sum()
    assert tensors["count"] == 5
    assert [problem.code for problem in spec.check(tensors, "r")] == ["not-a-sum"]


def test_sums_beyond_32_bits_are_sums():
    counts = np.array([2**32 - 1, 2**32 - 1, 2**40 + 7])
    tensors = {"count": counts.sum(), "bins": np.array([0, 16, 17]), "counts": counts}
    assert spec.check(tensors, "r") == []
