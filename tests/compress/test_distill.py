"""Distillation: a small student reaches its teacher, the same way every time, or says why it cannot."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dfmeta import students
from dfmeta.compress._optimizer import Schedule
from dfmeta.compress.augment import augmented, shift
from dfmeta.compress.distill import Config, configured, distill
from dfmeta.errors import DataError, Diverged, StepError, UnknownName
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
    with pytest.raises(StepError, match=r"step 1: found a loss of nan.*Lower the learning rate"):
        distill(made, teacher, source(digits[0]), QUICK, generator())


def test_a_learning_rate_that_is_too_high(digits, teacher):
    with pytest.raises(Diverged, match=r"found a loss of (nan|inf)"):
        distill(student(), teacher, source(digits[0]), Config(steps=30, batch=32, lr=1e30), generator())


def test_the_last_good_student_is_kept(digits, teacher):
    """Inputs go bad at step 120: the student is that of the last hundred steps, not of the bad one."""
    calls = 0

    def turning_bad(inputs):
        nonlocal calls
        calls += 1
        return teacher(inputs) if calls < 120 else teacher(inputs) * float("nan")

    made = student()
    with pytest.raises(Diverged) as caught:
        distill(made, turning_bad, source(digits[0]), Config(steps=200, batch=32, schedule="constant"), generator())
    assert (caught.value.step, caught.value.kept) == (120, 100)
    alone = student()
    distill(alone, teacher, source(digits[0]), Config(steps=100, batch=32, schedule="constant"), generator())
    for kept, reference in zip(made.parameters(), alone.parameters(), strict=True):
        assert torch.equal(kept, reference)
    assert not made.training


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


def test_inputs_that_break_down_keep_the_last_good_student_too(digits, teacher):
    calls = 0

    def breaking(count):
        nonlocal calls
        calls += 1
        if calls == 60:
            raise Diverged("dafl, step 60", "a loss of nan", "a finite number")
        return digits[0][:count]

    with pytest.raises(Diverged, match="dafl") as caught:
        distill(student(), teacher, breaking, Config(steps=80, batch=16), generator())
    assert caught.value.kept == 50


def test_half_of_the_images_are_mirrored():
    images = torch.randn(400, 1, 4, 5, generator=generator())
    turned = augmented(images, 0.0, True, generator(1))
    mirrored = (turned == images.flip(3)).flatten(1).all(1)
    assert ((turned == images).flatten(1).all(1) ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250
    vectors = torch.randn(4, 7, generator=generator())
    assert augmented(vectors, 0.1, True, generator()) is vectors


def losses(logits, wanted, config):
    """The loss of the first step of a student that always says ``logits``."""

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return logits + 0 * self.weight

    batch = torch.zeros(len(logits), 3)
    return distill(Fixed(), lambda x: wanted, lambda count: batch, replace(config, steps=1), generator()).loss


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_losses_are_those_of_the_papers(temperature):
    ours, theirs = torch.randn(2, 32, 10, generator=generator()).double() * 5
    soft = [torch.softmax(values / temperature, 1) for values in (ours, theirs)]
    divergence = (soft[1] * (soft[1].log() - soft[0].log())).sum(1).mean() * temperature**2
    assert losses(ours, theirs, Config(loss="kl", temperature=temperature)) == pytest.approx(float(divergence))
    assert losses(ours, theirs, Config(loss="l1")) == pytest.approx(float((ours - theirs).abs().mean()))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_one_cycle_is_torchs(optimizer):
    """Rates and momenta of a whole training, against the library's own schedule."""
    ours, theirs = (optimizer([nn.Parameter(torch.zeros(1))], lr=0.5) for _ in range(2))
    steps = 300
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.5, steps + 1)
    made = Schedule(ours, "one-cycle", 0.5, steps, None)
    for step in range(steps):
        made.set(step)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=0.5 * 0.02)
        for key in ("betas", "momentum"):
            if key in theirs.param_groups[0]:
                assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], abs=0.004)
        theirs.step()
        reference.step()
    assert made.finished(steps)
    assert not made.finished(steps - 1)


@pytest.mark.parametrize(("name", "ends"), [("cosine", (1.0, 0.0)), ("constant", (1.0, 1.0))])
def test_the_other_schedules(name, ends):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = Schedule(optimizer, name, 0.2, 1000, None)
    for step, share in ((0, ends[0]), (999, ends[1])):
        made.set(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * share, abs=1e-5)


def test_a_time_limit_ends_the_schedule_too(digits, teacher):
    """Slow steps: the rate has come down when time is up, whatever number of steps that was."""
    rates = []

    def slow(count):
        time.sleep(0.02)
        return digits[0][:count]

    def watch(step, seconds, network):
        rates.append((step, seconds))

    config = Config(steps=100_000, batch=32, seconds=1.0)
    done = distill(student(), teacher, slow, config, generator(), watch=watch)
    assert done.steps == len(rates) < 60
    assert rates[-1][1] == pytest.approx(1.0, abs=0.3)


def test_averaged_weights_lie_among_those_of_the_last_steps(digits, teacher):
    seen = []
    made = student()
    config = Config(steps=60, batch=32, ema=0.9, schedule="constant")
    distill(made, teacher, source(digits[0]), config, generator(), watch=lambda *facts: seen.append(flat(facts[2])))
    mean = flat(student())
    for count, weights in enumerate(seen, start=1):
        decay = min(0.9, count / (count + 10))
        mean = decay * mean + (1 - decay) * weights
    torch.testing.assert_close(flat(made), mean, rtol=1e-4, atol=1e-6)
    assert not torch.equal(flat(made), seen[-1])


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_settings_as_text():
    given = {"steps": "7", "loss": "kl", "flip": "true", "ema": "0", "seconds": "2.5", "temperature": "4"}
    made = configured(Config(batch=9), given)
    assert made == Config(steps=7, batch=9, loss="kl", flip=True, ema=0.0, seconds=2.5, temperature=4.0)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("steps", "0", DataError),
        ("steps", "1.5", DataError),
        ("lr", "nan", DataError),
        ("ema", "-0.1", DataError),
        ("ema", "1.5", DataError),
        ("seconds", "inf", DataError),
        ("flip", "yes", DataError),
        ("loss", "mae", UnknownName),
        ("stepz", "1", UnknownName),
    ],
)
def test_settings_that_mean_nothing(name, text, error):
    with pytest.raises(error, match="training"):
        configured(Config(), {name: text})
