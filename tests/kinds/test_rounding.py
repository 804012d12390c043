"""Values whose float32 rounding errors all have one sign: equal magnitudes, levels of grey, and almost nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfmeta.kinds.moments.accumulate import Accumulator
from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.scratch import scratch
from dfmeta.kinds.second_moment.toeplitz import lag_sums, ways

LAYOUTS = ("positions last", "channels last")


def checkerboard(units, side):
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 2 - 1
    return (0.7123 * board.float()).expand(units, 3, side, side).contiguous()


def pixels(units, side):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (units, 3, side, side), generator=generator).float() / 255


def one_step_away(units, side):
    maps = torch.full((units, 3, side, side), 18.0)
    maps[0, :, 5, 5] = torch.nextafter(maps[0, :, 5, 5], torch.tensor(19.0))
    return maps


def a_little_spread(units, side):
    generator = torch.Generator().manual_seed(0)
    return 18 + 5e-4 * torch.randn(units, 3, side, side, generator=generator)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("made", [checkerboard, pixels, one_step_away, a_little_spread], ids=lambda made: made.__name__)
@pytest.mark.parametrize(("units", "side"), [(16, 32), (8, 64), (2, 100)])
def test_moments_are_within_a_millionth(made, layout, units, side):
    maps = made(units, side)
    samples = maps.permute(0, 2, 3, 1)
    if layout == "channels last":
        samples = samples.contiguous()
    accumulator = Accumulator(3, 1, {})
    for part in samples.split(8):
        accumulator.update(part, torch.zeros(len(part), dtype=torch.int64))
    values = maps.double().transpose(0, 1).flatten(1).numpy()
    found = accumulator.tensors(torch.tensor([units]), 1)
    np.testing.assert_allclose(found["mean"][0], values.mean(1), rtol=1e-6, atol=1e-6 * values.std())
    np.testing.assert_allclose(found["var"][0], values.var(1), rtol=1e-6)


def test_a_variance_is_never_below_zero_nor_minus_zero():
    accumulator = Accumulator(2, 1, {})
    for _ in range(3):
        accumulator.update(torch.full((4, 30, 30, 2), 1e-25), torch.zeros(4, dtype=torch.int64))
    found = accumulator.tensors(torch.tensor([12]), 1)["var"]
    assert not np.signbit(found).any()


@pytest.mark.parametrize(("channels", "side"), [(8, 80), (12, 64), (16, 32), (16, 16)])
def test_transformed_second_moments_of_equal_values_are_within_a_millionth(channels, side):
    """A constant map: every lag is the product of two constants, as often as it fits."""
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1)
    chosen = min(ways(window, (side, side), channels), key=lambda way: way.cost)
    assert type(chosen).__name__ == "Spectra"
    level = 0.7123 + torch.arange(channels) / 97
    maps = level[None, :, None, None].expand(64, channels, side, side)
    found = lag_sums(maps.float(), window)
    often = lag_sums(torch.ones(1, 1, side, side, dtype=torch.float64), window).round() * 64
    exact = level.float().double()
    expected = often * torch.outer(exact, exact)
    assert float((found - expected).abs().max() / expected.max()) < 1e-6


def test_working_memory_survives_inference_mode():
    like = torch.zeros(1)
    with torch.inference_mode():
        scratch("inference", (4, 4), like).zero_()
    scratch("inference", (4, 4), like).add_(1)
