"""What leaves the house: small classes refused or withheld, and nothing published that gives them back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.errors import DataError
from dfmeta.records import Gathered, RecordPlan, SitePlan
from dfmeta.records.publication import publication

SITE = SitePlan("s0", "x", "x", "float32", ("batch", 5), 1)
MOMENTS = RecordPlan(SITE, "moments", True, "flattened")
SPECTRUM = RecordPlan(SITE, "spectrum", True, "flattened", {"rank": 4})
POOLED = RecordPlan(SITE, "moments", False, "flattened")
TOGETHER = RecordPlan(SITE, "moments", False, "flattened", gathered_by_class=False)


def gather(counts, plan=(MOMENTS, SPECTRUM, POOLED), batch=None):
    """As many units of each class as ``counts`` says, each class around a place of its own."""
    gathered = Gathered(plan, classes=len(counts))
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    values = torch.randn(len(group), 5, generator=torch.Generator().manual_seed(0)) + 10 * group[:, None]
    step = batch or max(len(group), 1)
    for start in range(0, len(group), step):
        part = slice(start, start + step)
        gathered.update({"s0": values[part]}, group[part])
    return gathered, values.double().numpy(), group.numpy()


def records_of(recording):
    return {(taken.plan.kind, taken.by_class): taken for taken in reversed(recording.records)}


@pytest.mark.parametrize("counts", [[30, 9, 25], [30, 1, 25], [9, 40], [10, 0, 10], [3, 5, 12, 9]])
def test_all_minus_the_rest_gives_nothing_back(counts):
    gathered, values, group = gather(counts)
    recording = publication(gathered, suppress=True)
    hidden = [row for row, units in enumerate(counts) if units < 10]
    kept = ~np.isin(group, hidden)
    assert recording.suppression == "complementary"
    assert recording.unit_count == kept.sum()
    for kind in ("moments", "spectrum"):
        pooled, grouped = (records_of(recording)[kind, by_class] for by_class in (False, True))
        assert grouped.suppressed == tuple(hidden)
        assert pooled.unit_count == grouped.unit_count == kept.sum()
        count = grouped.tensors["count"].astype(np.float64)
        assert pooled.tensors["count"] == count.sum()
        rest = pooled.tensors["mean"] * count.sum() - (grouped.tensors["mean"] * count[:, None]).sum(0)
        np.testing.assert_allclose(rest, 0, atol=1e-4 * np.abs(values).sum())
        np.testing.assert_allclose(pooled.tensors["mean"], values[kept].mean(0), rtol=1e-5, atol=1e-5)
        for name, array in grouped.tensors.items():
            assert not array[hidden].any(), name


def test_a_record_that_is_published_for_all_units_alone_leaves_them_out_too():
    gathered, values, group = gather([30, 4], (POOLED,))
    recording = publication(gathered, suppress=True)
    (taken,) = recording.records
    assert not taken.by_class
    assert taken.unit_count == 30
    np.testing.assert_allclose(taken.tensors["mean"], values[group == 0].mean(0), atol=1e-5)


def test_classes_that_were_not_kept_apart_cannot_be_withheld():
    with pytest.raises(DataError, match="class 1: found too few units in a 'moments' record at 'x'"):
        publication(gather([30, 4], (TOGETHER,))[0], suppress=True)
    assert publication(gather([30, 14], (TOGETHER,))[0], suppress=True).suppression == "none"


def test_every_small_class_is_refused_unless_withheld():
    with pytest.raises(DataError, match="class 1: found 9 units, expected at least 10"):
        publication(gather([30, 9])[0])
    assert publication(gather([30, 9])[0], min_units=9).suppression == "none"


def test_nothing_large_enough():
    with pytest.raises(DataError, match="no class large enough"):
        publication(gather([9, 9, 9])[0], suppress=True)
    with pytest.raises(DataError, match="records: found 9 units"):
        publication(gather([4, 5])[0], suppress=True)


def test_a_batch_that_held_everything_does_not_tell_how_many_were_withheld():
    assert publication(gather([30, 9])[0], suppress=True).batch_size == 30
    assert publication(gather([30, 9], batch=7)[0], suppress=True).batch_size == 7


def test_a_class_keeps_one_eigenpair_for_each_ten_of_its_units():
    grouped = records_of(publication(gather([35, 19, 100])[0]))["spectrum", True]
    assert [(row > 0).sum() for row in grouped.tensors["eigenvalues"]] == [3, 1, 4]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=2, max_size=5), st.integers(1, 15))
def test_no_published_row_stands_for_fewer_units_than_the_minimum(counts, minimum):
    gathered, _, _ = gather(counts)
    large = [units for units in counts if units >= minimum]
    if not large:
        with pytest.raises(DataError):
            publication(gathered, min_units=minimum, suppress=True)
        return
    recording = publication(gathered, min_units=minimum, suppress=True)
    assert recording.unit_count == sum(large)
    for taken in recording.records:
        if taken.by_class:
            shown = taken.tensors["count"][taken.tensors["count"] > 0]
            assert (shown >= minimum).all()
            assert len(shown) == len(large)
