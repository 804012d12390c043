"""Every student of the catalogue, and the consumer's own through ``module:callable``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta import students
from dfmeta._catalog import STUDENTS
from dfmeta.errors import StepError, UnknownName

CANONICAL = {
    "alexnet": ((3, 32, 32), 10, 1_659_178),
    "alexnet-half": ((3, 32, 32), 10, 417_434),
    "ds-cnn": ((1, 49, 10), 12, 23_180),
    "hinton-1200": ((784,), 10, 2_395_210),
    "hinton-800": ((784,), 10, 1_276_810),
    "lenet5": ((1, 32, 32), 10, 61_706),
    "lenet5-half": ((1, 32, 32), 10, 15_738),
    "lenet5-half-lopes": ((1, 32, 32), 10, 35_820),
    "mobilenet-v1-025": ((3, 96, 96), 2, 213_586),
    "resnet18": ((3, 32, 32), 10, 11_173_962),
    "resnet20": ((3, 32, 32), 10, 269_722),
    "resnet34": ((3, 32, 32), 10, 21_282_122),
    "resnet8": ((3, 32, 32), 10, 77_946),
    "tiny8": ((1, 8, 8), 10, 1_898),
    "vgg11": ((3, 32, 32), 10, 9_231_114),
    "wrn-16-1": ((3, 32, 32), 10, 175_066),
    "wrn-40-2": ((3, 32, 32), 10, 2_243_546),
}
SMALL = sorted(name for name, (_, _, count) in CANONICAL.items() if count < 1_000_000)

OWN_CODE = """
import torch
from torch import nn

def good(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], classes))

def wrong_shape(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))

def not_a_module(input_shape, classes):
    return [input_shape, classes]

def breaks(input_shape, classes):
    raise RuntimeError("no such width")

def breaks_on_input(input_shape, classes):
    return nn.Linear(5, classes)

class Pair(nn.Module):
    def forward(self, x):
        return x, x

def pair(input_shape, classes):
    return Pair()

not_callable = 3
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_students.py").write_text(OWN_CODE)
    (tmp_path / "broken_students.py").write_text("raise ValueError('half written')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_students", "broken_students"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "own_students"


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_table_above_covers_the_catalogue() -> None:
    plain = {name for name in students.names() if hasattr(STUDENTS.load(name), "build")}
    assert plain == set(CANONICAL)
    assert all(hasattr(STUDENTS.load(name), "derive") for name in set(students.names()) - plain)


@pytest.mark.parametrize("name", CANONICAL)
def test_parameter_counts_are_those_of_the_literature(name: str) -> None:
    shape, classes, count = CANONICAL[name]
    assert parameters(students.build(name, shape, classes, seed=0)) == count


@pytest.mark.parametrize("name", CANONICAL)
def test_the_docstring_states_the_parameter_count(name: str) -> None:
    assert f"{CANONICAL[name][2]:,} parameters" in str(STUDENTS.load(name).__doc__)


@pytest.mark.parametrize("name", SMALL)
def test_initial_weights_come_from_the_seed_alone(name: str) -> None:
    shape, classes, _ = CANONICAL[name]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = students.build(name, shape, classes, seed=7).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    second = students.build(name, shape, classes, seed=7).state_dict()
    other = students.build(name, shape, classes, seed=8).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(value, other[key]) for key, value in first.items() if value.dim() > 1)


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_kaiming_uniform_and_the_rest_is_neutral(name: str) -> None:
    shape, classes, _ = CANONICAL[name]
    shares = []
    for key, value in students.build(name, shape, classes, seed=0).state_dict().items():
        if value.dim() > 1:
            shares.append(value.flatten() / (6 / value[0].numel()) ** 0.5)
        else:
            neutral = 1.0 if key.endswith(("weight", "running_var")) else 0.0
            assert (value == neutral).all(), key
    drawn = torch.cat(shares)
    assert drawn.abs().max() <= 1
    assert drawn.std().item() == pytest.approx(1 / 3**0.5, rel=0.05)


@given(channels=st.integers(1, 4), classes=st.integers(1, 12), batch=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_any_channels_classes_and_batch_fit(channels: int, classes: int, batch: int) -> None:
    for name, side in (("lenet5-half", 32), ("tiny8", 8), ("hinton-800", 4)):
        student = students.build(name, (channels, side, side), classes, seed=0)
        assert student(torch.ones(batch, channels, side, side)).shape == (batch, classes)


@pytest.mark.parametrize("name", ["lenet5", "lenet5-half", "lenet5-half-lopes"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (784,), (3, 32, 31)])
def test_an_input_that_does_not_fit_says_what_fits(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(StepError) as caught:
        students.build(name, shape, 10, seed=0)
    assert f"student '{name}': found input shape {list(shape)}, expected [channels, 32, 32]" in str(caught.value)
    assert "Pad or resize" in str(caught.value)


def test_tiny8_wants_8_by_8() -> None:
    with pytest.raises(StepError, match=r"expected \[channels, 8, 8\]"):
        students.build("tiny8", (1, 32, 32), 10, seed=0)


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 0), ((), 10), ((1, 0, 8), 10)])
def test_sizes_of_zero_are_refused(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(StepError, match="1 or more"):
        students.build("tiny8", shape, classes, seed=0)


def test_an_unknown_name_offers_a_near_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'lenet5'"):
        students.build("lenet-5", (1, 32, 32), 10, seed=0)


@pytest.mark.parametrize("name", ["os", "dfmeta.students.lenet5", "../lenet5", "_parts", ""])
def test_only_catalogue_names_are_looked_up(name: str) -> None:
    with pytest.raises(UnknownName):
        students.build(name, (1, 32, 32), 10, seed=0)


def test_own_code_is_built_under_the_seed(own_code: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (
        students.build(f"{own_code}:good", (1, 8, 8), 4, seed=seed)[1].weight  # type: ignore[index]
        for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_student_stays_in_train_mode(own_code: str) -> None:
    assert students.build(f"{own_code}:good", (1, 8, 8), 4, seed=0).training


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("own_students:wrong_shape", "found output [2, 5] on a zero batch of 2, expected shape [2, 4]"),
        ("own_students:pair", "found output tuple on a zero batch of 2, expected shape [2, 4]"),
        ("own_students:not_a_module", "found an object of type list, expected a torch.nn.Module"),
        ("own_students:breaks", "found RuntimeError while building it: no such width"),
        ("own_students:breaks_on_input", "found RuntimeError on a zero batch of shape [2, 1, 8, 8]"),
        (
            "own_students:not_callable",
            "found an object of type int, which cannot be called, at own_students:not_callable",
        ),
        ("own_students:missing", "found no such attribute at own_students:missing"),
        ("own_students:", "found no such attribute at own_students:"),
        ("no_such_module_here:build", "found ModuleNotFoundError while importing 'no_such_module_here'"),
        ("broken_students:build", "found ValueError while importing 'broken_students': half written"),
        (":build", "found ValueError while importing ''"),
    ],
)
def test_own_code_that_does_not_work_is_named(own_code: str, spec: str, text: str) -> None:
    with pytest.raises(StepError) as caught:
        students.build(spec, (1, 8, 8), 4, seed=0)
    assert str(caught.value).startswith(f"student '{spec}': ")
    assert text in str(caught.value)


def test_a_missing_module_points_at_the_search_path(own_code: str) -> None:
    with pytest.raises(StepError, match="PYTHONPATH"):
        students.build("no_such_module_here:build", (1, 8, 8), 4, seed=0)
