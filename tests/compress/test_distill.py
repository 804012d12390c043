"""Distillation: a small student reaches its teacher, the same way every time, or says why it cannot."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dfmeta import students
from dfmeta.compress.distill import Config, distill, shift
from dfmeta.errors import StepError
from dfmeta.graph import TorchGraph

QUICK = Config(steps=30, batch=32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def teacher(digits_teacher):
    return TorchGraph(digits_teacher).eval()


def source(images, seed=0):
    draws = generator(seed)
    return lambda count: images[torch.randint(len(images), (count,), generator=draws)]


def student(seed=0):
    return students.build("tiny8", (1, 8, 8), 10, seed)


def test_a_small_student_reaches_its_teacher(digits, teacher):
    images = digits[0]
    made = student()
    done = distill(made, teacher, source(images), Config(steps=600, batch=128), generator())
    assert done.steps == 600
    assert 0 < done.loss < 0.1
    assert not made.training
    with torch.no_grad():
        agreement = (made(images).argmax(1) == teacher(images).argmax(1)).float().mean()
    assert agreement > 0.95


def test_the_seeds_decide_everything(digits, teacher):
    moving = Config(steps=30, batch=32, shift=0.2)

    def run(seed):
        made = student()
        loss = distill(made, teacher, source(digits[0]), moving, generator(seed)).loss
        return loss, torch.cat([p.detach().flatten() for p in made.parameters()])

    state = torch.get_rng_state()
    # The generator draws the shifts: another one shifts otherwise.
    first, again, other = run(0), run(0), run(1)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(state, torch.get_rng_state())


def test_the_loss_is_that_of_the_last_step(digits, teacher):
    told = []
    done = distill(student(), teacher, source(digits[0]), QUICK, generator(), lambda *facts: told.append(facts))
    assert [facts[:3] for facts in told] == [("distill", step, 30) for step in range(1, 31)]
    assert done.loss == told[-1][3]
    assert done.loss != min(facts[3] for facts in told[:-1])


def test_the_loss_is_in_units_of_the_teachers_variance(digits):
    """A student that always says 0 has an error of mean square over variance, whatever the logits' units."""

    class Zero(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return 0 * self.weight + x.new_zeros(len(x), 10)

    wanted = torch.randn(32, 10, generator=generator())
    expected = float((wanted**2).mean() / wanted.var())
    for unit in (1e-3, 1e3):
        done = distill(Zero(), lambda x, unit=unit: unit * wanted, source(digits[0]), QUICK, generator())
        assert done.loss == pytest.approx(expected, rel=1e-4)


def test_shifted_inputs_are_labelled_by_the_teacher(digits, teacher):
    """Whatever the student sees, the teacher saw the same."""
    seen = {"teacher": [], "student": []}

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student()

        def forward(self, x):
            seen["student"].append(x)
            return self.inner(x)

    def watched(x):
        seen["teacher"].append(x)
        return teacher(x)

    fixed = digits[0][:32]
    distill(Watching(), watched, lambda count: fixed, Config(steps=8, batch=32, shift=0.25), generator())
    assert all(torch.equal(one, two) for one, two in zip(seen["teacher"], seen["student"], strict=True))
    assert not all(torch.equal(one, fixed) for one in seen["teacher"])


MISFITS = {
    "input": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(65, 10)), r"Sequential.*inputs \[1, 8, 8\]"),
    "channels": (lambda: nn.Conv2d(3, 10, 8), r"Conv2d.*inputs \[1, 8, 8\]"),
    "classes": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), r"outputs \[32, 9\].*\[32, 10\]"),
    "axes": (lambda: nn.Conv2d(1, 10, 8), r"outputs \[32, 10, 1, 1\].*\[32, 10\]"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_student_that_does_not_fit(digits, teacher, name):
    make, text = MISFITS[name]
    with pytest.raises(StepError, match=text):
        distill(make(), teacher, source(digits[0]), QUICK, generator())


def test_a_loss_that_is_not_finite(digits, teacher):
    made = student()
    with torch.no_grad():
        next(iter(made.parameters())).fill_(float("nan"))
    with pytest.raises(StepError, match=r"step 1: found a loss that is not finite.*Lower lr"):
        distill(made, teacher, source(digits[0]), QUICK, generator())


def test_a_learning_rate_that_is_too_high(digits, teacher):
    with pytest.raises(StepError, match="not finite"):
        distill(student(), teacher, source(digits[0]), Config(steps=30, batch=32, lr=1e30), generator())


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_a_shift_only_moves_pixels(shape, share, seed):
    """Each channel of each image is a cyclic move of itself, by no more than the share, the same for all."""
    inputs = torch.randn(shape, generator=generator(seed))
    moved = shift(inputs, share, generator(seed))
    assert torch.equal(moved.flatten(2).sort(2).values, inputs.flatten(2).sort(2).values)
    reach = [round(share * size) for size in shape[2:]]
    moves = [(up, left) for up in range(-reach[0], reach[0] + 1) for left in range(-reach[1], reach[1] + 1)]
    assert any(torch.equal(moved, inputs.roll(move, (2, 3))) for move in moves)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda sizes: len(sizes) != 4),
    share=st.floats(0, 0.5),
)
@settings(max_examples=30, deadline=None)
def test_what_is_no_image_is_not_shifted(shape, share):
    inputs = torch.randn(shape, generator=generator())
    assert shift(inputs, share, generator()) is inputs


def test_shifts_differ_and_reach_their_limit():
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 8, 8] = 1
    draws = generator()
    places = {tuple(shift(image, 0.125, draws).nonzero()[0, 2:].tolist()) for _ in range(300)}
    assert places == {(row, column) for row in range(6, 11) for column in range(6, 11)}
