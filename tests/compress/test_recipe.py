"""Recipes: read strictly, and refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dfmeta.compress import factorize, finetune, prune, quantize
from dfmeta.compress.recipe import STEPS, Distillation, Inputs, Recipe, Step, common, load, parse
from dfmeta.errors import DataError, UnknownName

TEXT = """
[inputs]
method = "noise"
count = 300
settings = { iterations = 40, exact = true }

[[step]]
name = "prune"
channels = 0.5
ranking = "energy"

[[step]]
name = "factorize"
params = 0.75
forms = ["svd", "tucker"]
keep = ["Conv_0"]

[[step]]
name = "finetune"
steps = 20
lr = 1

[[step]]
name = "quantize"
bits = "w4a8"
first_last_bits = 0
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    found = load(path)
    assert found.inputs == Inputs("noise", 300, {"iterations": "40", "exact": "true"})
    assert [step.config for step in found.steps] == [
        prune.Config(channels=0.5, ranking="energy"),
        factorize.Config(params=0.75, forms=("svd", "tucker"), keep=("Conv_0",)),
        finetune.Config(steps=20, lr=1.0),
        quantize.Config("w4a8", first_last_bits=0),
    ]
    assert [step.requires for step in found.steps] == [
        ("second-moment",),
        ("second-moment",),
        (),
        ("second-moment", "histogram"),
    ]
    assert [step.trains for step in found.steps] == [False, False, True, False]
    told: Any = found.as_dict()
    assert told["step"][1]["name"] == "factorize"
    assert told["step"][3]["rounding"] == "gptq"


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (quantize.Config("w4"), ("second-moment",)),
        (quantize.Config("w8a8", rounding="nearest"), ("second-moment", "histogram")),
        (quantize.Config("w8", rounding="nearest", bias_correction=False), ()),
    ],
    ids=str,
)
def test_what_quantizing_reads_depends_on_its_settings(config: quantize.Config, kinds: tuple[str, ...]) -> None:
    assert Step("quantize", config).requires == kinds


def test_flags_stand_for_the_usual_order() -> None:
    found = common(equalize=True, prune=0.5, factorize=0.75, finetune=500, bits="w4a8")
    assert [step.name for step in found.steps] == ["equalize", "prune", "factorize", "finetune", "quantize"]
    assert found.steps[1].config.channels == 0.5
    assert found.steps[2].config.params == 0.75
    assert found.steps[3].config.steps == 500
    assert found.steps[4].config.bits == "w4a8"
    assert [step.name for step in common(bits="w2", finetune=5).steps] == ["quantize", "finetune"]


def test_every_step_has_defaults_or_says_what_it_lacks() -> None:
    for name in STEPS:
        given: dict[str, object] = {"name": name}
        given |= {"channels": 0.5} if name == "prune" else {}
        assert parse({"step": [given]}).steps[0].name == name
    assert parse({"step": [{"name": "distill"}]}).steps[0].config == Distillation()


def step(**given: object) -> Mapping[str, object]:
    return {"step": [given]}


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, DataError, "no steps"),
        ({"steps": []}, UnknownName, "Did you mean 'step'"),
        ({"step": {"name": "prune"}}, DataError, r"a list of tables: \[\[step\]\]"),
        (step(channels=0.5), DataError, "step 1: found no name"),
        (step(name=3), DataError, "found name 3"),
        (step(name="prun", channels=0.5), UnknownName, "Did you mean 'prune'"),
        (step(name="prune", chanels=0.5), UnknownName, r"step 1 \(prune\), setting: .*Did you mean 'channels'"),
        (step(name="prune"), DataError, "nothing to do"),
        (step(name="prune", channels=1.5), DataError, "a share above 0 and up to 1"),
        (step(name="prune", channels="half"), DataError, r"'half' \(str\), expected a number"),
        (step(name="prune", channels=True), DataError, r"True \(bool\), expected a number"),
        (step(name="prune", channels=0.5, affine=1), DataError, "true or false"),
        (step(name="prune", channels=0.5, ranking="energi"), UnknownName, "Did you mean 'energy'"),
        (step(name="factorize", params=2.0), DataError, "a share above 0 and below 1"),
        (step(name="factorize", forms="svd"), DataError, "a list of texts"),
        (step(name="factorize", forms=["sdv"]), UnknownName, "Did you mean 'svd'"),
        (step(name="finetune", steps=0), DataError, "1 or more"),
        (step(name="finetune", steps=1.5), DataError, "a whole number"),
        (step(name="equalize", rounds=0), DataError, "rounds"),
        (step(name="equalize", limit=1.0), DataError, "limit"),
        (step(name="quantize", bits="w9"), DataError, "w2 to w8"),
        (step(name="quantize", ranges="mean"), UnknownName, "minmax"),
        (step(name="quantize", percentile=20.0), DataError, "percentile"),
        (step(name="distill", steps=-1), DataError, "steps"),
        (step(name="distill", loss="mee"), UnknownName, "Did you mean 'mse'"),
        ({"inputs": 3, **step(name="equalize")}, DataError, r"a table: \[inputs\]"),
        ({"inputs": {"conut": 3}, **step(name="equalize")}, UnknownName, "Did you mean 'count'"),
        ({"inputs": {"count": 0}, **step(name="equalize")}, DataError, "1 or more"),
        ({"inputs": {"count": "9"}, **step(name="equalize")}, DataError, "a whole number"),
        ({"inputs": {"settings": 1}, **step(name="equalize")}, DataError, "the method's settings"),
        ({"step": [{"name": "quantize"}, {"name": "prune", "channels": 0.5}]}, DataError, "prune after quantize"),
        ({"step": [{"name": "quantize"}, {"name": "quantize"}]}, DataError, "quantize after quantize"),
        ({"step": [{"name": "equalize"}, {"name": "distill"}]}, DataError, "distill as the first step"),
    ],
    ids=str,
)
def test_bad_recipes(given: Mapping[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse(given)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[[step", "no TOML"), (b"\xff\xfe", "no TOML"), (b"#" * (1 << 21), "bytes"), (None, "no readable file")],
    ids=["toml", "utf8", "size", "missing"],
)
def test_bad_files(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ": found no steps, expected one or more of"),
        ('[[step]]\nname = "prune"\n', ", step 1: prune: found nothing to do, expected channels"),
        ('[[step]]\nname = "factorize"\nforms = ["sdv"]\n', ", step 1: form: found 'sdv'"),
        ('[[step]]\nname = "equalize"\n[[step]]\nname = "distill"\n', ", step 2: found distill after equalize"),
    ],
)
def test_errors_name_the_file_and_the_step(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises((DataError, UnknownName)) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}{said}")


def test_recipes_made_in_code_are_checked_too() -> None:
    with pytest.raises(UnknownName, match="step"):
        Recipe((Step("trim", None),))
    with pytest.raises(DataError, match="above 0"):
        common(prune=0.0)
    with pytest.raises(DataError, match="no steps"):
        common()


@pytest.mark.parametrize(("more", "bits"), [({}, "w8a8"), ({"budget_bytes": 9}, "w4a8"), ({"bits": "w3"}, "w3")])
def test_bits_that_follow_from_the_budget_are_written_out(more: Mapping[str, object], bits: str) -> None:
    recipe = parse(step(name="quantize", **more))
    assert recipe.as_dict()["step"] == [{"name": "quantize", **recipe.steps[0].settings}]
    assert recipe.steps[0].settings["bits"] == bits
