"""Frequent Directions: its guarantee on streams made to break it, held against float64 Gram matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.frequent_directions import append, shrunk

ROUNDING = 1e-12


def sketch(rows, directions, cuts=()):
    """Rows taken in as batches that end at ``cuts``; the rows held, and T."""
    buffer, filled, total = np.zeros((2 * directions, rows.shape[1])), 0, 0.0
    for part in np.split(rows, sorted(cuts)):
        filled, subtracted = append(buffer, filled, part)
        total += subtracted
    assert not buffer[filled:].any()
    return buffer[:filled], total


def joined(one, other, directions):
    """The sketch of both streams, from their sketches."""
    buffer = np.zeros((2 * directions, one[0].shape[1]))
    filled, first = append(buffer, 0, one[0])
    filled, second = append(buffer, filled, other[0])
    return buffer[:filled], one[1] + other[1] + first + second


def assert_guarantee(rows, held, total, directions):
    """Both halves of the guarantee, by whole eigendecompositions."""
    slack = ROUNDING * max(np.square(rows).sum(), 1e-300)
    missing = np.linalg.eigvalsh(rows.T @ rows - held.T @ held)
    assert missing.min() >= -slack
    assert missing.max() <= total + slack
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    tails = squares.sum() - np.concatenate([[0.0], np.cumsum(squares)])
    for kept in range(min(directions, len(squares)) + 1):
        assert total <= tails[kept] / (directions + 1 - kept) + slack
        if kept < directions:  # as published, which is weaker
            assert total <= tails[kept] / (directions - kept) + slack


def streams():
    generator = np.random.default_rng(5)
    basis = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    yield "orthogonal", np.tile(basis, (5, 1))
    yield "orthogonal, one at a time", np.repeat(basis, 6, axis=0)
    yield "decaying", generator.normal(size=(300, 40)) * 0.8 ** np.arange(40)
    yield "growing", generator.normal(size=(300, 40)) * 1.05 ** np.arange(300)[:, None]
    yield "huge mean", 1e6 + generator.normal(size=(200, 40))
    yield "one huge row late", np.concatenate([basis, basis, 1e5 * basis[:1], basis])
    yield "flat", generator.normal(size=(500, 40))
    yield "wider than long", generator.normal(size=(30, 200))
    yield "tiny", 1e-30 * generator.normal(size=(100, 12))
    yield "repeated and zero", np.concatenate([np.ones((50, 8)), np.zeros((30, 8))])


@pytest.mark.parametrize("directions", [1, 5, 16])
@pytest.mark.parametrize(("name", "rows"), [pytest.param(name, rows, id=name) for name, rows in streams()])
def test_the_guarantee_holds_on_adversarial_streams(name, rows, directions):
    assert_guarantee(rows, *sketch(rows, directions), directions)


def test_the_bound_is_reached_where_nothing_can_be_left_out():
    """Equal orthogonal directions, more than are kept: the error is what the bound says, so it cannot be tightened."""
    held, loss = shrunk(np.eye(8), 7)
    assert len(held) == 0
    assert loss == pytest.approx(np.square(np.eye(8)).sum() / (7 + 1))


@st.composite
def cut_streams(draw):
    count, features = draw(st.integers(0, 60)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    decay = draw(st.sampled_from([1.0, 0.7, 0.1]))
    rows = generator.normal(draw(st.sampled_from([0.0, 100.0])), 1, (count, features)) * decay ** np.arange(features)
    cuts = draw(st.lists(st.integers(0, 60), max_size=6))
    return rows, cuts, draw(st.integers(1, 8))


@given(stream=cut_streams())
@settings(max_examples=150, deadline=None)
def test_the_guarantee_does_not_depend_on_the_cuts(stream):
    rows, cuts, directions = stream
    assert_guarantee(rows, *sketch(rows, directions, [min(cut, len(rows)) for cut in cuts]), directions)


@given(stream=cut_streams())
@settings(max_examples=150, deadline=None)
def test_merging_keeps_the_guarantee_in_any_order(stream):
    rows, cuts, directions = stream
    parts = [sketch(part, directions) for part in np.split(rows, sorted(min(cut, len(rows)) for cut in cuts))]
    empty = np.zeros((0, rows.shape[1])), 0.0
    forwards, backwards, paired = empty, empty, list(parts)
    for part in parts:
        forwards = joined(forwards, part, directions)
    for part in reversed(parts):
        backwards = joined(part, backwards, directions)
    while len(paired) > 1:
        paired = [joined(*paired[:2], directions), *paired[2:]]
    for held, total in (forwards, backwards, paired[0]):
        assert_guarantee(rows, held, total, directions)


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_few_rows_lose_nothing(count):
    rows = np.random.default_rng(0).normal(size=(count, 20))
    held, total = sketch(rows, 8)
    np.testing.assert_array_equal(held, rows)
    assert total == 0


def test_a_stream_of_low_rank_loses_nothing():
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(400, 5)) @ generator.normal(size=(5, 30))
    held, total = sketch(rows, 5)
    scale = np.square(rows).sum()
    assert total <= ROUNDING * scale
    np.testing.assert_allclose(held.T @ held, rows.T @ rows, atol=ROUNDING * scale)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-9])
def test_shrinking_equals_that_by_singular_values(spread):
    """The small Gram matrix squares the condition, which the result must not show."""
    generator = np.random.default_rng(2)
    lengths = np.geomspace(1, spread, 12)
    basis = np.linalg.qr(generator.normal(size=(30, 12)))[0].T
    rows = np.linalg.qr(generator.normal(size=(12, 12)))[0] @ (basis * lengths[:, None])
    found, loss = shrunk(rows, 6)
    assert loss == pytest.approx(lengths[6] ** 2, abs=1e-15)
    expected = (basis[:6].T * (lengths[:6] ** 2 - lengths[6] ** 2)) @ basis[:6]
    np.testing.assert_allclose(found.T @ found, expected, atol=1e-15)
    assert len(found) <= 6


def test_shrinking_zeros_leaves_nothing():
    found, loss = shrunk(np.zeros((6, 4)), 3)
    assert found.shape == (0, 4)
    assert loss == 0


def test_what_is_subtracted_is_known_to_be_less_than_feared():
    """On a decaying stream the sum is far below the bound that is known beforehand."""
    rows = np.random.default_rng(3).normal(size=(2000, 60)) * 0.7 ** np.arange(60)
    _, total = sketch(rows, 16)
    assert 0 < total < 0.5 * np.square(rows).sum() / 17
