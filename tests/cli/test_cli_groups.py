"""Options in groups: the command line sees each of them, the verb sees the group."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from dfmeta.cli import app, options
from dfmeta.cli.groups import Preprocessing, expanded
from dfmeta.cli.publishing import Options
from dfmeta.data import from_flags


@dataclass(frozen=True)
class Size:
    height: Annotated[int, typer.Option(min=1)] = 2
    wide: Annotated[bool, typer.Option("--wide")] = False


def run(*words: str) -> tuple[int, dict[str, Any]]:
    found: dict[str, Any] = {}

    def draw(*, name: Annotated[str, typer.Argument()], size: Size, colour: str = "red") -> None:
        """Draw it."""
        found.update(name=name, size=size, colour=colour)

    # What a file with postponed annotations has.
    draw.__annotations__ = {"name": Annotated[str, typer.Argument()], "size": Size, "colour": str, "return": None}
    made = typer.Typer()
    made.command()(expanded(draw))
    return CliRunner().invoke(made, list(words)).exit_code, found


def test_a_group_is_gathered_from_its_options() -> None:
    assert run("box") == (0, {"name": "box", "size": Size(), "colour": "red"})
    assert run("--height", "5", "box", "--wide", "--colour", "blue") == (
        0,
        {"name": "box", "size": Size(5, wide=True), "colour": "blue"},
    )
    assert run("box", "--height", "0") == (2, {})


@pytest.mark.parametrize("verb", app.VERBS, ids=lambda verb: verb.__name__)
def test_every_option_of_a_verb_stands_once(verb: Any) -> None:
    """A group's field of the name of another parameter would take its place."""
    parameters = inspect.signature(expanded(verb)).parameters
    assert "size" not in parameters
    groups = [each.annotation for each in inspect.signature(verb, eval_str=True).parameters.values()]
    sizes = [len(getattr(each, "__dataclass_fields__", [each])) for each in groups]
    assert len(parameters) == sum(sizes)


def test_flags_of_preprocessing_are_what_they_were() -> None:
    given = Preprocessing(scale="1/255", mean="0.5", std="0.25", pad="2", pad_value="-2", resize="32,24")
    expected = from_flags(scale=1 / 255, mean=[0.5], std=[0.25], pad=2, pad_value=-2.0, resize=[32, 24])
    assert given.operations() == expected
    assert Preprocessing().operations() == options.preprocessing(None, None, None, None, "0", None, None)


def test_what_is_said_of_a_release() -> None:
    said = Options(name="teacher", release_version="2.0.0", dataset_name="digits", min_units=3, budget_bytes="2MB")
    made = said.publishing()
    assert (made.release.name, made.release.version, made.release.dataset) == ("teacher", "2.0.0", "digits")
    assert (made.min_units, made.suppress, made.privacy, said.budget) == (3, False, None, 2_000_000)
    # What is left out keeps its default.
    assert (made.release.unit, made.release.contains_personal_data) == ("image", "no-assertion")
    assert Options().publishing().min_units == 10
    Options().refuse()


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (Options(name="x"), "--name"),
        (Options(suppress_small=True), "--suppress-small"),
        (Options(dp_rho=0.5), "--dp-rho"),
        (Options(budget_bytes="1kB"), "--budget-bytes"),
        (Options(dataset_name="x"), "--dataset-name"),
    ],
)
def test_a_shard_takes_nothing_of_a_release(given: Options, option: str) -> None:
    with pytest.raises(typer.BadParameter, match="a shard is not published") as error:
        given.refuse()
    assert error.value.param_hint == f"'{option}'"
