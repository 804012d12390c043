"""Settings: one check, whether Python, a flag or a file gives them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import pytest

from dfmeta._catalog import SYNTHESIS
from dfmeta._settings import Range, check, from_text, from_values, share, weight, within
from dfmeta.errors import DataError, UnknownName


@dataclass(frozen=True, slots=True)
class Config:
    steps: int = 5
    lr: float = 0.1
    moved: float = within(0.0, Range(least=0, below=1))
    part: float = share(1.0)
    extra: float = weight(0.0)
    grip: float = within(2.0, Range(above=1, most=3))
    seconds: float | None = None
    flip: bool = False
    name: str = "any"
    how: Literal["", "slow", "fast"] = "slow"
    forms: tuple[str, ...] = ("one",)


def test_text_and_values_say_the_same() -> None:
    text = {"steps": "7", "lr": "1", "seconds": "2.5", "flip": "true", "name": "x", "how": "fast", "forms": "a,b"}
    values = {"steps": 7, "lr": 1, "seconds": 2.5, "flip": True, "name": "x", "how": "fast", "forms": ["a", "b"]}
    wanted = Config(7, 1.0, seconds=2.5, flip=True, name="x", how="fast", forms=("a", "b"))
    assert from_text(Config(), text, "it") == from_values(Config(), values, "it") == wanted
    assert isinstance(from_values(Config(), values, "it").lr, float)
    assert from_text(Config(steps=9), {}, "it") == Config(steps=9)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 0, "it, steps: found 0, expected 1 or more"),
        ("steps", -3, "it, steps: found -3, expected 1 or more"),
        ("lr", 0.0, "it, lr: found 0, expected a finite number above 0"),
        ("lr", math.inf, "it, lr: found inf, expected a finite number above 0"),
        ("lr", math.nan, "it, lr: found nan, expected a finite number above 0"),
        ("moved", 1.0, "it, moved: found 1, expected a share of 0 or more and below 1"),
        ("moved", -0.1, "it, moved: found -0.1, expected a share of 0 or more and below 1"),
        ("part", 1.01, "it, part: found 1.01, expected a share of 0 or more and up to 1"),
        ("extra", -1.0, "it, extra: found -1, expected a finite number of 0 or more"),
        ("grip", 1.0, "it, grip: found 1, expected a number above 1 and up to 3"),
        ("seconds", 0.0, "it, seconds: found 0, expected a finite number above 0"),
    ],
)
def test_numbers_out_of_range_are_refused_whoever_gives_them(name: str, value: float, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check(Config(**{name: value}), "it")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=said):
        from_text(Config(), {name: str(value)}, "it")
    with pytest.raises(DataError, match=said):
        from_values(Config(), {name: value}, "it")


def test_ends_that_belong_to_a_range_are_taken() -> None:
    check(Config(moved=0.0, part=0.0, extra=0.0, grip=3.0, how=""), "it")
    check(Config(part=1.0), "it")


@pytest.mark.parametrize("value", [-math.inf, -1e308, -1.0, 0.0, 5e-324, 1.0, 2.0, 1e308, math.inf, math.nan])
def test_a_range_has_what_lies_between_its_ends(value: float) -> None:
    for low, high in itertools.product((-1.0, 0.0, 1.0, 2.0), repeat=2):
        assert Range(above=low, most=high).holds(value) == (low < value <= high)
        assert Range(least=low, below=high).holds(value) == (low <= value < high)
    assert Range().holds(value) == math.isfinite(value)


def test_names_and_words_that_there_are_not() -> None:
    with pytest.raises(UnknownName, match=r"it, setting: found 'stpes'.*Did you mean 'steps'"):
        from_text(Config(), {"stpes": "1"}, "it")
    for call in (
        lambda: check(Config(how="fsat"), "it"),  # type: ignore[arg-type]
        lambda: from_text(Config(), {"how": "fsat"}, "it"),
        lambda: from_values(Config(), {"how": "fsat"}, "it"),
    ):
        with pytest.raises(
            UnknownName, match=r"it, how: found 'fsat', expected one of fast, slow\. Did you mean 'fast'"
        ):
            call()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("steps", "1.5", "a whole number"), ("lr", "much", "a number"), ("flip", "yes", "true or false")],
)
def test_text_that_is_no_value(name: str, text: str, expected: str) -> None:
    with pytest.raises(DataError, match=f"it, {name}: found '{text}', expected {expected}"):
        from_text(Config(), {name: text}, "it")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 1.0, r"1.0 \(float\), expected a whole number"),
        ("steps", True, r"True \(bool\), expected a whole number"),
        ("lr", True, r"True \(bool\), expected a number"),
        ("lr", "1", r"'1' \(str\), expected a number"),
        ("flip", 1, r"1 \(int\), expected true or false"),
        ("name", 1, r"1 \(int\), expected text"),
        ("forms", "one", r"'one' \(str\), expected a list of texts"),
        ("forms", [1], r"\[1\] \(list\), expected a list of texts"),
    ],
)
def test_values_of_another_type(name: str, value: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_values(Config(), {name: value}, "it")


@pytest.mark.parametrize("method", SYNTHESIS.names())
def test_defaults_are_in_range(method: str) -> None:
    check(SYNTHESIS.load(method).Config(), method)
