"""A search for the best student that fits a target: from a bundle alone to a folder, or to none."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dfmeta.compress.recipe import Inputs
from dfmeta.data import from_flags, open_data
from dfmeta.errors import DataError, OutputExists, StepError, UnknownName
from dfmeta.export import targets
from dfmeta.graph import Graph, OrtGraph, TorchGraph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import _candidates, _finals, check_target, reconstruct, record, searching
from dfmeta.pipeline._candidates import Workshop
from dfmeta.pipeline._halving import Material, School, Score
from dfmeta.pipeline._out_of_reach import nothing_fits
from dfmeta.pipeline._target_form import Made, TargetForm
from dfmeta.pipeline.closed_form import open_source
from dfmeta.pipeline.inputs import make_task
from dfmeta.pipeline.searching import Config, Searched, search_target
from dfmeta.records.foreign_moments import LeftOut

MADE = Inputs("", 300, {"iterations": "3", "inputs": "512"})
FILES = ["pareto.png", "ranges.json", "report.json", "student-float.onnx", "student.onnx"]
BUDGET: dict[str, Any] = {"ram": 3000, "flash": 4400}


@pytest.fixture(scope="module")
def calibrated(digits_teacher: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' teacher with what a compressor and the default method read.

    As generated C it takes 4,638 bytes of flash: 2,238 of constants at 8 bits, and 2,400 of code.
    """
    out = tmp_path_factory.mktemp("searching") / "bundle"
    presets = ("calibration", "spectral")
    return record(digits_teacher, "digits:train", out, presets=presets, preprocessing=from_flags(1 / 255)).path


@pytest.fixture(scope="module")
def searched(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A student for generated C that fits a budget which the teacher exceeds."""
    out = tmp_path_factory.mktemp("searched") / "student"
    config = Config(candidates=5, steps=60)
    return search_target(calibrated, out, "c-codegen", **BUDGET, config=config, wanted=MADE, data="digits:test")


@pytest.fixture(autouse=True)
def _small_zoo(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """To build the large students and find them too large takes a second; one search does it."""
    assert len(searched.left_out) > 10
    monkeypatch.setattr(_candidates, "zoo_names", lambda: ("lenet5", "tiny8"))


def quick(bundle: Path, out: Path, target: str, **given: Any) -> Searched:
    """A search that shows the way and not what it is worth."""
    settings = {"config": Config(candidates=2, steps=2), "wanted": Inputs("noise", 60), **given}
    return search_target(bundle, out, target, **settings)


def test_what_it_writes_fits_and_says_so(searched: Searched) -> None:
    assert sorted(path.name for path in searched.path.iterdir()) == FILES
    found = check_target(searched.model, "c-codegen", **BUDGET)
    assert found.fits
    assert (found.costs, found.ram_bytes) == (searched.checked.costs, searched.checked.ram_bytes)
    chosen = searched.candidates[0]
    assert found.costs is not None
    assert (chosen.name, chosen.flash_bytes) == (searched.chosen, found.costs.flash_bytes)
    assert not check_target(searched.path / "student-float.onnx", "c-codegen").fits


def test_the_quantized_student_runs_and_agrees(searched: Searched, calibrated: Path) -> None:
    teacher, student = Graph.from_file(calibrated / "model.onnx"), Graph.from_file(searched.model)
    assert any(node.op_type == "QLinearConv" for node in student.model.graph.node)
    images = next(open_data("digits:test").batches(500)).inputs["x"][:, None].astype(np.float32) / 255
    guesses = [
        OrtGraph(one, dynamic_batch=True).run({"image": images})["logits"].argmax(1) for one in (teacher, student)
    ]
    agreement = 100 * float((guesses[0] == guesses[1]).mean())
    assert agreement > 85
    assert [one.name for one in searched.measured] == ["teacher", "float student", "student"]
    assert searched.measured[2].agreement == pytest.approx(agreement)
    assert searched.measured[0].agreement == 100
    assert searched.agreement > 90


def test_the_best_half_goes_on_and_the_best_of_the_last_is_chosen(searched: Searched) -> None:
    rows = {row.name: row for row in searched.candidates}
    trained = [row for row in searched.candidates if row.rounds]
    assert len(trained) == 5
    assert sorted(len(row.rounds) for row in trained) == [1, 1, 2, 3, 3]
    assert [score.steps for score in trained[0].rounds] == [15, 45, 105]
    last = [row for row in trained if row.final is not None]
    assert [row.chosen for row in last] == [True, False]
    assert last[0].final is not None
    assert last[1].final is not None
    assert last[0].final.rank <= last[1].final.rank
    first = {row.name: row.rounds[0].rank for row in trained}
    assert all(first[one.name] <= first[two.name] for one in trained[:3] for two in trained[3:])
    assert not rows["teacher"].fits
    assert "at most 4400" in rows["teacher"].why_not[0]
    assert {row.family for row in trained} == {"scaled", "prune", "factorize"}


def test_a_family_starts_with_the_largest_that_fits(searched: Searched) -> None:
    for family in ("scaled", "prune", "factorize"):
        mine = [row for row in searched.candidates if row.family == family]
        flash = [row.flash_bytes for row in mine if row.rounds and row.flash_bytes is not None]
        too_large = [row.flash_bytes for row in mine if not row.fits and row.flash_bytes is not None]
        assert flash
        assert 0.85 * BUDGET["flash"] < max(flash) <= BUDGET["flash"] < min(too_large)


def test_what_cannot_be_made_is_told_with_its_reason(searched: Searched, digits_bundle: Path, tmp_path: Path) -> None:
    reasons = {one.name: one.reason for one in searched.left_out}
    assert "expected [channels, 32, 32]" in reasons["lenet5"]
    assert "expected fewer than the teacher's" in reasons["resnet8"]
    assert "prune" not in reasons
    # Without second moments there is nothing to prune by; ranges are taken anew.
    plain = quick(digits_bundle, tmp_path / "student", "onnxruntime-int8", config=Config(3, 2))
    reasons = {one.name: one.reason for one in plain.left_out}
    assert "no second moment" in reasons["prune"]
    assert "no second moment" in reasons["factorize"]
    assert plain.chosen == "teacher"


def test_the_report_says_all_of_it(searched: Searched, calibrated: Path) -> None:
    report = json.loads((searched.path / "report.json").read_text())
    assert report == json.loads(json.dumps(searched.as_dict()))
    assert report["chosen"] == searched.chosen
    assert report["candidates"][0]["rounds"][0].keys() == {"steps", "agreement", "error"}
    assert report["checked"]["fits"] is True
    assert report["source"] == open_source(calibrated, "x").opened.bundle.identity
    notes = {entry.key: entry.value for entry in onnx.load(searched.model).metadata_props}
    recipe = json.loads(notes["dfmeta.recipe"])
    assert recipe["student"] == searched.chosen
    assert (recipe["target"], recipe["ram"], recipe["flash"], recipe["fpu"]) == ("c-codegen", 3000, 4400, None)
    assert recipe["trained_steps"] == searched.candidates[0].rounds[-1].steps
    asked = report["recipe"]
    assert asked.items() <= recipe.items()
    assert (asked["candidates"], asked["steps"], asked["seed"]) == (5, 60, 0)
    assert asked["inputs"] == {"from": searched.inputs_from, "count": 300, "settings": dict(MADE.settings)}
    assert (searched.path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_a_smaller_budget_gives_a_smaller_student(searched: Searched, calibrated: Path, tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def progress(stage: str, done: int, total: int, _: float) -> None:
        told.setdefault(stage, []).append((done, total))

    small = quick(calibrated, tmp_path / "student", "c-codegen", ram=1200, flash=3300, progress=progress)
    assert {"candidates", "last round, 1 to 2", f"{small.chosen}, record"} < told.keys()
    assert len(told["candidates"]) > 5
    for stage, steps in told.items():
        assert steps[-1][0] == steps[-1][1], stage
        assert all(before[0] <= after[0] <= after[1] for before, after in pairwise(steps)), stage
    assert small.checked.costs is not None
    assert searched.checked.costs is not None
    assert small.checked.costs.flash_bytes <= 3300 < searched.checked.costs.flash_bytes
    assert small.checked.ram_bytes is not None
    assert small.checked.ram_bytes <= 1200


def test_inputs_that_were_kept(calibrated: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    reconstruct(calibrated, kept, method="noise", count=60)
    found = quick(calibrated, tmp_path / "student", "c-codegen", **BUDGET, inputs=str(kept))
    assert found.inputs_from == str(kept)
    assert (found.inputs, found.held_out) == (48, 12)
    assert found.recipe["inputs"] == {"from": str(kept), "count": 60, "settings": {}}


def test_a_core_without_a_floating_point_unit_gets_a_smaller_student(calibrated: Path, tmp_path: Path) -> None:
    found = quick(calibrated, tmp_path / "student", "c-codegen", flash=4700, fpu=False)
    teacher = next(row for row in found.candidates if row.name == "teacher")
    # With such a unit it would fit.
    assert (teacher.fits, teacher.flash_bytes) == (False, 4638 + 1200)
    assert found.checked == check_target(found.model, "c-codegen", flash=4700, fpu=False)
    assert (found.checked.fits, found.checked.fpu) == (True, False)
    recipe = {entry.key: entry.value for entry in onnx.load(found.model).metadata_props}["dfmeta.recipe"]
    assert json.loads(recipe)["fpu"] is found.recipe["fpu"] is False


def test_a_seed_gives_the_same_bytes_whatever_is_measured(calibrated: Path, tmp_path: Path) -> None:
    measured: tuple[dict[str, Any], ...] = ({}, {"data": "digits:test", "limit": 20})
    made = [
        quick(calibrated, tmp_path / str(place), "cortex-m", flash=1500, seed=3, **given)
        for place, given in enumerate(measured)
    ]
    assert [len(one.measured) for one in made] == [0, 3]
    for name in ("student.onnx", "student-float.onnx", "ranges.json", "pareto.png"):
        first, second = ((one.path / name).read_bytes() for one in made)
        assert first == second, name
    assert made[0].candidates == made[1].candidates


def test_a_target_that_quantizes_itself_gets_the_float_model(calibrated: Path, tmp_path: Path) -> None:
    found = quick(calibrated, tmp_path / "student", "esp-dl", board="esp32-s3")
    assert found.chosen == "teacher"
    assert (found.ram, found.flash) == (327680, 8388608)
    assert check_target(found.model, "esp-dl", board="esp32-s3").fits
    student = Graph.from_file(found.model)
    assert not any("Quantize" in node.op_type for node in student.model.graph.node)
    assert found.model.read_bytes() == (found.path / "student-float.onnx").read_bytes()
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = TorchGraph(Graph.from_file(calibrated / "model.onnx"))(images)
    torch.testing.assert_close(TorchGraph(student)(images), wanted, atol=1e-4, rtol=1e-4)


def test_every_value_of_the_float_student_has_a_range(searched: Searched) -> None:
    assert (searched.ranges, searched.notes) == ("ort-calibration", ())
    document = json.loads((searched.path / "ranges.json").read_text())
    ends = {name: (one["lowest"]["data"], one["highest"]["data"]) for name, one in document["data"].items()}
    student = Graph.from_file(searched.path / "student-float.onnx")
    computed = [name for node in student.model.graph.node for name in node.output]
    assert ends.keys() == {student.inputs[0].name, *computed}
    images = next(open_data("digits:test").batches(500)).inputs["x"][:, None].astype(np.float32) / 255
    found = OrtGraph(student, values=computed, dynamic_batch=True).run({"image": images})
    # A quantizer writes what a Relu leaves of a value, and not the value.
    cut = {node.input[0] for node in student.model.graph.node if node.op_type == "Relu"}
    for name, values in found.items():
        low, high = ends[name]
        kept = np.maximum(values, 0) if name in cut else values
        assert ((kept >= low) & (kept <= high)).mean() > 0.9, name


def test_a_value_without_a_range_is_told(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise StepError("histograms", "none", "one for each value")

    monkeypatch.setattr(searching, "ranges_of", none)
    found = quick(calibrated, tmp_path / "none", "esp-dl")
    assert (found.ranges, (found.path / "ranges.json").exists()) == ("", False)
    assert "ranges.json was left out: histograms" in found.notes[0]
    lacking = (b"{}", (LeftOut("logits", "nothing is recorded of it"),))
    monkeypatch.setattr(searching, "ranges_of", lambda *_: lacking)
    source = open_source(calibrated, tmp_path / "x")
    told = searching._ranges(source, Made(source.graph, source.graph, source.records))
    assert told == (b"{}", ("ranges.json has no 'logits': nothing is recorded of it",))


def test_inputs_to_choose_by_are_none_to_train_on(digits: Any, digits_teacher: Graph) -> None:
    # As a method gives them that draws with replacement.
    drawn = digits[0][torch.randint(80, (400,), generator=torch.Generator().manual_seed(0))]
    material = Material.of(drawn, digits_teacher, seed=0)
    training, held = ({one.numpy().tobytes() for one in part} for part in (material.training, material.held))
    assert training.isdisjoint(held)
    assert training | held == {one.numpy().tobytes() for one in drawn}
    assert len(material.training) == len(training)
    assert len(held) == (len(training) + len(held)) // 5
    with torch.no_grad():
        torch.testing.assert_close(material.wanted, TorchGraph(digits_teacher)(material.held))
    other = Material.of(drawn, digits_teacher, seed=1)
    assert not torch.equal(other.held, material.held)
    with pytest.raises(DataError, match="9 different ones, expected 10 or more"):
        Material.of(digits[0][[*range(9), 0, 1]], digits_teacher, seed=0)


def test_rounds_halve_and_double() -> None:
    assert School.rounds(8, 1000) == [(4, 250), (2, 500)]
    assert School.rounds(5, 60) == [(3, 15), (2, 30)]
    assert School.rounds(2, 100) == School.rounds(1, 100) == []
    assert School.rounds(5, 1) == [(3, 1), (2, 1)]


def test_agreement_counts_before_error() -> None:
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    same, other = Score.of(1, 9 * wanted, wanted), Score.of(1, wanted.flip(1) * 0.6, wanted)
    broken = Score.of(1, wanted * torch.nan, wanted)
    assert (same.agreement, other.agreement) == (100, 0)
    assert same.error == pytest.approx(float((8 * wanted).square().mean() / wanted.var()))
    assert sorted([broken, other, same], key=lambda one: one.rank) == [same, other, broken]


@pytest.mark.parametrize(
    ("ram", "flash", "words"),
    [
        (100, 4400, ("100 bytes of RAM and 4,400 bytes of flash", "What binds is RAM: give --ram 488 or more")),
        (9000, 50, ("smallest flash is 2,634 bytes (scaled:0.06)", "What binds is flash: give --flash 2634 or more")),
        (100, 50, ("Both RAM and flash bind: give at least --ram 488 and --flash 2634",)),
        (100, None, ("expected at most 100 bytes of RAM.", "What binds is RAM: give --ram 488 or more")),
    ],
)
def test_a_budget_that_nothing_can_meet(
    ram: int | None, flash: int | None, words: tuple[str, ...], calibrated: Path, tmp_path: Path
) -> None:
    with pytest.raises(StepError) as caught:
        quick(calibrated, tmp_path / "student", "c-codegen", ram=ram, flash=flash)
    text = str(caught.value)
    assert text.startswith("target c-codegen: found none of")
    assert all(word in text for word in words), text
    assert "a smaller input, or another target" in text
    assert list(tmp_path.iterdir()) == []
    # What it advises is enough.
    if flash == 50 and ram == 100:
        assert quick(calibrated, tmp_path / "student", "c-codegen", ram=488, flash=2634).checked.fits


def test_budgets_that_can_only_be_met_apart(calibrated: Path, tmp_path: Path) -> None:
    source = open_source(calibrated, tmp_path / "x")
    task = make_task(source.opened.bundle, source.graph, 0)
    form = TargetForm(targets.load("c-codegen"), "", 1480, 4500)
    workshop = Workshop.of(source, form, task, 0)
    teacher = workshop.teacher()
    factors = workshop.candidate("factorize:0.5", "factorize", workshop.factorized(0.5))
    assert teacher.over("flash")
    assert factors.over("ram")
    text = str(nothing_fits(form, [teacher, factors], ()))
    assert "Either can be met, but not both at once" in text
    assert "--flash 4638 or more (as teacher needs)" in text
    assert "--ram 1531 or more (as factorize:0.5 needs)" in text


def test_operators_that_every_candidate_has_and_the_target_has_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ELU(), nn.Linear(12, 10)).eval()
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    graph = export_module(network, (torch.rand(1, 1, 8, 8),), **names, dynamic_batch=True)
    bundle = record(
        graph, "digits:train", tmp_path / "bundle", presets=("calibration",), preprocessing=from_flags(1 / 255)
    ).path
    with pytest.raises(StepError) as caught:
        quick(bundle, tmp_path / "student", "ethos-u55")
    assert "operators:" in str(caught.value)
    assert "Elu" in str(caught.value)
    assert "in teacher, scaled" in str(caught.value)
    assert "Use another target" in str(caught.value)
    assert not (tmp_path / "student").exists()


def test_a_candidate_that_is_larger_than_predicted_gives_way_to_the_next(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the first two are held against a budget that they do not meet."""
    honest, seen = _finals.Judge.finished, []

    def stricter(self: _finals.Judge, one: Any) -> Any:
        seen.append(one.candidate.name)
        strict = replace(self, form=TargetForm(self.form.target, "", 9, 9))
        return honest(self if len(seen) in allowed else strict, one)

    monkeypatch.setattr(_finals.Judge, "finished", stricter)
    allowed = {3}
    found = quick(calibrated, tmp_path / "student", "c-codegen", **BUDGET, config=Config(3, 4))
    assert found.chosen == seen[2]
    rows = {row.name: row for row in found.candidates}
    assert [rows[name].fits for name in seen] == [False, False, True]
    assert "at most 9" in rows[seen[0]].why_not[0]
    allowed.clear()
    with pytest.raises(StepError, match="expected a trained candidate that fits"):
        quick(calibrated, tmp_path / "none", "c-codegen", **BUDGET)
    assert not (tmp_path / "none").exists()


def test_without_matplotlib_the_picture_is_left_out(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = quick(calibrated, tmp_path / "student", "float-any")
    assert sorted(path.name for path in found.path.iterdir()) == [name for name in FILES if name != "pareto.png"]
    assert any("pareto.png was left out" in note and "dfmeta[plots]" in note for note in found.notes)
    assert json.loads((found.path / "report.json").read_text())["notes"] == list(found.notes)


def test_nothing_is_left_of_a_search_that_fails(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faulty_disk: Any
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searching, "rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            quick(calibrated, tmp_path / "student", "float-any")
    assert list(tmp_path.iterdir()) == []
    with faulty_disk.refusing(4), pytest.raises(Exception, match="no space left"):
        quick(calibrated, tmp_path / "student", "float-any")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"target": "cortex"}, UnknownName, "cortex-m"),
        ({"board": "stm32l4r"}, UnknownName, "Did you mean 'stm32l4r5'"),
        ({"fpu": False}, DataError, "--no-fpu: found target 'cortex-m', expected one whose code is predicted"),
        ({"ram": 0}, DataError, "--ram: found 0 bytes, expected 1 or more"),
        ({"config": Config(0, 5)}, DataError, "--candidates"),
        ({"config": Config(5, 0)}, DataError, "--steps"),
        ({"wanted": Inputs("nois")}, UnknownName, "noise"),
        ({"wanted": Inputs("noise", 5)}, DataError, "5 different ones"),
        ({"data": "none.npz"}, DataError, "none.npz"),
    ],
    ids=str,
)
def test_wrong_use(given: dict[str, Any], error: type[Exception], words: str, calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        quick(calibrated, tmp_path / "student", **{"target": "cortex-m", **given})
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_left_alone(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExists):
        quick(calibrated, tmp_path, "cortex-m")
