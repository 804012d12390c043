"""What every record kind obeys: the laws of merging, its own layout, and inputs that are hard on numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.errors import StepError
from dfmeta.testing.cases import KindCase, Stream, feed

GROUPS = 4
FLOAT32_TOLERANCE = 1e-6
_CUTS = st.lists(st.integers(0, 24), max_size=4)
_SEEDS = st.integers(0, 2**32 - 1)
_OFFSETS = st.sampled_from([0.0, 1.0, -50.0])
_HOSTILE: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1.5, float("nan"), "x", "", [], [0], [-1, 2**40], {}, {"a": 1})
# Few examples, for they run over every kind and configuration.
_RUNS = settings(max_examples=20, deadline=None)


class KindContract:
    """Subclass it under ``pytest.mark.parametrize("case", [KindCase(...)], ids=str)``; each method is a test."""

    @given(seed=_SEEDS, cuts=_CUTS, offset=_OFFSETS)
    @_RUNS
    def test_merging_equals_one_pass(self, case: KindCase, seed: int, cuts: list[int], offset: float) -> None:
        """Parts that were gathered apart and merged hold what one pass over all of it holds."""
        stream = case.stream(seed, 24, GROUPS, offset)
        merged = case.accumulator(GROUPS)
        for part in _parts(stream, cuts):
            merged.merge(case.gathered(part))
        case.agree(merged, case.gathered(stream))

    @given(seed=_SEEDS, cuts=st.tuples(st.integers(0, 24), st.integers(0, 24)), offset=_OFFSETS)
    @_RUNS
    def test_merging_commutes_and_associates(
        self, case: KindCase, seed: int, cuts: tuple[int, int], offset: float
    ) -> None:
        """Neither the order nor the grouping of merges matters."""
        parts = _parts(case.stream(seed, 24, GROUPS, offset), list(cuts))
        forwards, backwards, nested, inner = (case.gathered(parts[index]) for index in (0, 2, 0, 1))
        forwards.merge(case.gathered(parts[1]))
        forwards.merge(case.gathered(parts[2]))
        backwards.merge(case.gathered(parts[1]))
        backwards.merge(case.gathered(parts[0]))
        inner.merge(case.gathered(parts[2]))
        nested.merge(inner)
        case.agree(forwards, backwards)
        case.agree(forwards, nested)

    @given(seed=_SEEDS, count=st.integers(0, 12))
    @_RUNS
    def test_empty_is_the_identity(self, case: KindCase, seed: int, count: int) -> None:
        """Merging with what saw nothing changes nothing, from either side."""
        stream = case.stream(seed, count, GROUPS)
        expected, right, left = case.gathered(stream), case.gathered(stream), case.accumulator(GROUPS)
        right.merge(case.accumulator(GROUPS))
        left.merge(expected)
        case.agree(right, expected)
        case.agree(left, expected)

    def test_pooled_is_the_sum_of_the_groups(self, case: KindCase) -> None:
        """All units without groups are the groups together."""
        stream = case.stream(1, 60, GROUPS)
        whole = Stream(stream.samples, torch.zeros_like(stream.group), stream.paired, 1)
        case.agree(case.gathered(stream).pooled(), case.gathered(whole))

    def test_withholding_leaves_no_trace(self, case: KindCase) -> None:
        """A withheld group is gone from its rows and from the sum, and the accumulator still has it."""
        stream = case.stream(2, 80, GROUPS)
        whole = case.gathered(stream)
        before = whole.state()
        left = whole.without([1])
        tensors = left.tensors(_units(left), 1)
        # What says which bin or place an entry belongs to has no group axis.
        for name, values in tensors.items():
            if _grouped(case, name):
                assert not values[1].any(), name
        kept = stream.part(stream.group != 1)
        pooled = Stream(kept.samples, torch.zeros_like(kept.group), kept.paired, 1)
        case.agree(left.pooled(), case.gathered(pooled))
        for name, values in whole.state().items():
            np.testing.assert_array_equal(values, before[name])

    def test_the_state_is_all_there_is(self, case: KindCase) -> None:
        """Written down, taken up again and fed on, an accumulator goes on to the bit; memory is as announced."""
        stream = case.stream(3, 40, GROUPS)
        made = case.gathered(stream.part(slice(0, 25)))
        state = made.state()
        assert {str(values.dtype) for values in state.values()} <= {"float64", "int64", "float32", "uint8"}
        held = sum(values.nbytes for values in state.values())
        assert case.gathering.accumulator_bytes(case.features, GROUPS, case.configuration) >= held
        again = case.accumulator(GROUPS)
        again.restore(state)
        for accumulator in (made, again):
            feed(accumulator, stream.part(slice(25, None)))
        for name, values in made.state().items():
            np.testing.assert_array_equal(values, again.state()[name], err_msg=name)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_kind_that_looks_first_refuses_bad_numbers(self, case: KindCase, dtype: torch.dtype, bad: float) -> None:
        """Where updates have two halves, they are one update together, and the first finds a single bad number."""
        made = case.gathered(case.stream(6, 20, GROUPS))
        if not hasattr(made, "reduced"):
            return
        stream, again = case.stream(7, 20, GROUPS).as_type(dtype), case.accumulator(GROUPS)
        again.restore(made.state())
        before = {name: values.copy() for name, values in made.state().items()}
        spoiled = stream.samples.clone()
        spoiled.view(-1)[len(spoiled) // 2] = bad
        with pytest.raises(StepError):
            made.reduced(spoiled, stream.group)
        for name, values in made.state().items():
            np.testing.assert_array_equal(values, before[name], err_msg=name)
        made.take(made.reduced(stream.samples, stream.group))
        feed(again, stream)
        for name, values in made.state().items():
            np.testing.assert_array_equal(values, again.state()[name], err_msg=name)

    def test_a_state_of_something_else_is_refused(self, case: KindCase) -> None:
        """Missing, further and misshapen arrays are ValueErrors."""
        state = case.gathered(case.stream(4, 10, GROUPS)).state()
        name = next(iter(state))
        bad = [
            {},
            {key: values for key, values in state.items() if key != name},
            {**state, "further": np.zeros(1)},
            {**state, "count": np.zeros(GROUPS + 1, np.int64)},
        ]
        for arrays in bad:
            with pytest.raises(ValueError, match=r"\w"):
                case.accumulator(GROUPS).restore(arrays)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_tensors_keep_to_the_layout_and_pass_the_check(self, case: KindCase, dtype: torch.dtype) -> None:
        """What is published is what the specification says, whatever precision the activations have."""
        stream = case.stream(5, 60, GROUPS).as_type(dtype)
        made = case.gathered(stream)
        _assert_published(case, made, GROUPS)
        exact = case.gathered(stream.as_type(torch.float64))
        if dtype != torch.float32:
            case.agree(made, exact)
        else:
            # Products of one batch may be formed in float32.
            replace(case, tolerance=max(case.tolerance, FLOAT32_TOLERANCE)).agree(made, exact)

    @pytest.mark.parametrize("count", [1, 2, 30])
    @pytest.mark.parametrize("value", [0.0, 4.25, -1e6])
    def test_constant_features(self, case: KindCase, count: int, value: float) -> None:
        """One sample, and samples that do not vary, are records like any other."""
        stream = case.stream(6, count, 1)
        paired = None if stream.paired is None else torch.full_like(stream.paired, value)
        made = case.gathered(Stream(torch.full_like(stream.samples, value), stream.group, paired, 1))
        _assert_published(case, made, 1)

    def test_a_huge_mean_with_a_tiny_variance(self, case: KindCase) -> None:
        """Numbers that swamp their own differences still give a record that obeys its rules."""
        stream = case.stream(7, 50, 1)
        paired = None if stream.paired is None else 1e6 + 1e-3 * stream.paired
        _assert_published(case, case.gathered(Stream(1e6 + 1e-3 * stream.samples, stream.group, paired, 1)), 1)

    def test_nothing_seen_is_a_record_of_zeros(self, case: KindCase) -> None:
        """A group without units counts 0, and everything beside it is 0."""
        _assert_published(case, case.accumulator(GROUPS), GROUPS)

    def test_any_configuration_is_read_or_refused(self, case: KindCase) -> None:
        """A manifest may say anything: what the kind cannot read is a ValueError, and nothing else."""
        keys = [*case.configuration, "unheard_of"]
        for key in keys:
            for value in _HOSTILE:
                _read_or_refuse(case, {**case.configuration, key: value})
        for key in case.configuration:
            _read_or_refuse(case, {name: value for name, value in case.configuration.items() if name != key})


def _read_or_refuse(case: KindCase, configuration: dict[str, Any]) -> None:
    try:
        layout = case.spec.layout(case.features, GROUPS, configuration)
    except ValueError:
        return
    assert "count" in layout


def _parts(stream: Stream, cuts: list[int]) -> list[Stream]:
    edges = [0, *sorted(cuts), len(stream)]
    return [stream.part(slice(start, end)) for start, end in pairwise(edges)]


def _units(accumulator: Any) -> torch.Tensor:
    return torch.as_tensor(accumulator.count, dtype=torch.int64)


def _grouped(case: KindCase, name: str) -> bool:
    """Whether a tensor has a row for each group: then its shape changes when there are none."""
    alone = case.spec.layout(case.features, None, case.configuration)
    return bool(alone[name].shape != case.spec.layout(case.features, GROUPS, case.configuration)[name].shape)


def _assert_published(case: KindCase, accumulator: Any, groups: int) -> None:
    tensors = accumulator.tensors(_units(accumulator), 1)
    layout = case.spec.layout(case.features, groups, case.configuration)
    assert set(tensors) == set(layout)
    lengths: dict[str, int] = {}
    for name, expected in layout.items():
        values = tensors[name]
        assert str(values.dtype) in expected.dtypes, name
        assert len(values.shape) == len(expected.shape), name
        for size, wanted in zip(values.shape, expected.shape, strict=True):
            known = lengths.setdefault(wanted, size) if isinstance(wanted, str) else wanted
            assert size == known, name
    assert case.spec.check(tensors, "record") == []
