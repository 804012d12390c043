"""Wrong use, outputs that exist, unknown names, and what the command promises about itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfmeta import __version__
from dfmeta.cli import app, failures, main
from dfmeta.cli.groups import expanded
from dfmeta.compress.distill import Config
from dfmeta.errors import OutputExists
from dfmeta.pipeline import distill, evaluate, reconstruct, record
from dfmeta.records import PRESETS

Command = Callable[..., Any]


def test_version_and_help(command: Command) -> None:
    assert command("--version").out == f"dfmeta {__version__}\n"
    for words in (["--help"], ["-h"]):
        done = command(*words)
        assert (done.code, done.err) == (0, "")
        assert all(f"\n  {verb.__name__} " in done.out for verb in app.VERBS)


def test_no_verb_at_all_is_wrong_use_with_the_help(command: Command) -> None:
    done = command()
    assert done.code == 2
    assert "Usage: dfmeta" in done.out


@pytest.mark.parametrize("verb", [verb.__name__ for verb in app.VERBS])
def test_every_verb_explains_itself_with_an_example(command: Command, verb: str) -> None:
    done = command(verb, "--help")
    assert done.code == 0
    # Its first sentence is whole in the list of verbs.
    sentence = done.out.split("\n\n")[1].strip()
    assert sentence.endswith(".")
    assert sentence in command("--help").out
    assert f"\n      dfmeta {verb} " in done.out
    assert all(option in done.out for option in ("--json", "--help"))


def test_help_names_what_there_is(command: Command) -> None:
    words = " ".join(command("distill", "--help").out.split())
    for name in ("tiny8", "lenet5-half", "matched-generator", "noise"):
        assert f"{name}," in words or f"{name} (" in words
    assert f"What to record: {', '.join(PRESETS)}." in " ".join(command("record", "--help").out.split())


PIPELINE = {"record": record, "reconstruct": reconstruct, "distill": distill, "evaluate": evaluate}


@pytest.mark.parametrize("verb", PIPELINE)
def test_defaults_are_the_pipelines(verb: str) -> None:
    """The command repeats them so that its help needs no torch; here is where a difference shows."""
    command = next(each for each in app.VERBS if each.__name__ == verb)
    mine = inspect.signature(expanded(command)).parameters
    theirs = {name: each.default for name, each in inspect.signature(PIPELINE[verb]).parameters.items()}
    if verb == "record":
        theirs = {**theirs, "preset": ",".join(theirs["presets"]), "suppress_small": theirs["suppress"]}
        # With --plan neither is needed; left out, the minimum is the pipeline's.
        theirs = {name: value for name, value in theirs.items() if name not in ("data", "out", "min_units")}
    shared = [name for name in mine if name in theirs and name not in ("preprocessing", "settings")]
    assert len(shared) > 3
    assert {name: mine[name].default for name in shared} == {name: theirs[name] for name in shared}


def test_help_tells_the_defaults_of_training(command: Command) -> None:
    """Left out, an option is the method's or the training's own: what the latter is stands in the help."""
    words = " ".join(command("distill", "--help").out.split())
    defaults = [f"({getattr(Config(), name):g})" for name in ("steps", "batch", "lr", "shift")]
    assert [text for text in defaults if text not in words] == []


WRONG: dict[str, tuple[list[str], str]] = {
    "unknown-verb": (["distil"], "Did you mean 'distill'?"),
    "unknown-flag": (["show", "BUNDLE", "--verbos"], "--verbos"),
    "missing-argument": (["show"], "BUNDLE"),
    "missing-option": (["evaluate", "model.onnx"], "--data"),
    "no-number": (["evaluate", "model.onnx", "--data", "digits", "--limit", "ten"], "--limit"),
    "seed-below-zero": (["evaluate", "model.onnx", "--data", "digits", "--seed", "-1"], "--seed"),
    "limit-of-zero": (["evaluate", "model.onnx", "--data", "digits", "--limit", "0"], "--limit"),
    "scale": (["evaluate", "model.onnx", "--data", "digits", "--scale", "1/0"], "'1/0' is no number"),
    "mean": (["evaluate", "model.onnx", "--data", "digits", "--mean", "a,b"], "--mean"),
    "mean-without-std": (["evaluate", "model.onnx", "--data", "digits", "--mean", "0.5"], "Add --std."),
    "pad": (["evaluate", "model.onnx", "--data", "digits", "--pad", "1,2"], "expected 1 or 4"),
    "resize": (["evaluate", "model.onnx", "--data", "digits", "--resize", "3.5"], "--resize"),
    "set": (["reconstruct", "BUNDLE", "--out", "NEW.safetensors", "--set", "lr"], "KEY=VALUE"),
    "set-twice": (
        ["reconstruct", "BUNDLE", "--out", "NEW.safetensors", "--set", "lr=1", "--set", "lr=2"],
        "given twice",
    ),
    "empty-preset": (
        ["record", "--model", "m.onnx", "--data", "d", "--out", "NEW", "--preset", "a,"],
        "empty",
    ),
    "suffix": (["reconstruct", "BUNDLE", "--out", "NEW.npz"], ".safetensors"),
    "suffix-of-student": (["distill", "BUNDLE", "--student", "tiny8", "--out", "NEW.tflite"], ".onnx"),
    "no-folder-for-it": (["reconstruct", "BUNDLE", "--out", "NEW/deep/x.safetensors"], "no folder"),
    "zero-steps": (
        ["distill", "BUNDLE", "--student", "tiny8", "--out", "NEW.onnx", "--steps", "0"],
        "--steps",
    ),
    "setting-with-a-flag": (
        ["distill", "BUNDLE", "--student", "tiny8", "--out", "NEW.onnx", "--train", "steps=5", "--steps", "3"],
        "'steps' has a flag of its own: --steps",
    ),
    "unknown-student": (
        ["distill", "BUNDLE", "--student", "lenet5-haf", "--out", "NEW.onnx"],
        "Did you mean 'lenet5-half'?",
    ),
    "unknown-method": (
        ["distill", "BUNDLE", "--student", "tiny8", "--out", "NEW.onnx", "--method", "lopes:all-layer"],
        "Did you mean 'lopes:all-layers'?",
    ),
    "unknown-setting": (
        ["reconstruct", "BUNDLE", "--out", "NEW.safetensors", "--set", "iteration=3"],
        "Did you mean 'iterations'?",
    ),
    "unknown-class": (
        ["reconstruct", "BUNDLE", "--out", "NEW.safetensors", "--classes", "3,horse"],
        "class: found 'horse'",
    ),
    "setting-no-number": (
        ["reconstruct", "BUNDLE", "--out", "NEW.safetensors", "--set", "iterations=few"],
        "'few'",
    ),
    "unknown-preset": (
        ["record", "--model", "MODEL", "--data", "digits", "--out", "NEW", "--preset", "spectra"],
        "Did you mean 'spectral'?",
    ),
    "existing-bundle": (
        ["record", "--model", "MODEL", "--data", "digits", "--out", "BUNDLE"],
        "already there",
    ),
    "existing-student": (["distill", "BUNDLE", "--student", "tiny8", "--out", "TAKEN.onnx"], "already there"),
    "existing-inputs": (["reconstruct", "BUNDLE", "--out", "TAKEN.safetensors"], "already there"),
    "existing-demo": (["demo", "--out", "BUNDLE"], "already there"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(command: Command, release: Path, tmp_path: Path, name: str) -> None:
    words, part = WRONG[name]
    places = {"BUNDLE": str(release), "MODEL": str(release / "model.onnx")}
    for suffix in (".onnx", ".safetensors"):
        (tmp_path / f"taken{suffix}").write_text("mine")
        places |= {f"TAKEN{suffix}": str(tmp_path / f"taken{suffix}")}
    given = [places.get(word, word.replace("NEW", str(tmp_path / "new"))) for word in words]
    done = command(*given)
    assert done.code == 2, done.err
    assert part in done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    as_json = command(*given, "--json")
    assert as_json.code == 2
    assert as_json.json["error"]["exit_code"] == 2
    assert as_json.err == done.err
    assert (tmp_path / "taken.onnx").read_text() == "mine"


def test_a_dangling_link_is_something_too(command: Command, release: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(tmp_path / "nowhere")
    done = command("distill", release, "--student", "tiny8", "--out", tmp_path / "link.onnx")
    assert done.code == OutputExists.exit_code


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the next verb fail in a way that no input is known to cause."""

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("dfmeta.bundle.reader.read_manifest", fail)


def test_a_bug_of_ours_is_one_line_that_asks_to_report_it(
    command: Command, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(failures.DEBUG, raising=False)
    fail_with(monkeypatch, ZeroDivisionError("oh"))
    done = command("show", release, "--json")
    assert done.code == failures.OUR_BUG
    assert done.json["error"]["type"] == "ZeroDivisionError"
    assert done.err.count("\n") == 1
    assert "This is a bug in dfmeta (ZeroDivisionError: oh). Please report it" in done.err
    monkeypatch.setenv(failures.DEBUG, "1")
    assert "Traceback" in command("show", release).err


ENDS: dict[str, tuple[BaseException, int, str]] = {
    "interrupted": (KeyboardInterrupt(), failures.INTERRUPTED, ""),
    "broken-pipe": (BrokenPipeError(32, "Broken pipe"), failures.BROKEN_PIPE, ""),
    "no-room": (OSError(28, "No space left on device", "disk"), 3, "disk: no space left on device."),
    "no-memory": (MemoryError(), 3, "--batch-size"),
}


@pytest.mark.parametrize("name", ENDS)
def test_other_ends(command: Command, release: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error, exit_code, part = ENDS[name]
    fail_with(monkeypatch, error)
    done = command("show", release)
    assert done.code == exit_code
    assert part in done.err
    assert done.out == ""
    assert done.err.count("\n") == bool(part)


def test_main_takes_the_words_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dfmeta", "--nothing-like-it"])
    assert main() == 2


@pytest.mark.parametrize("verb", [verb.__name__ for verb in app.VERBS])
def test_help_says_what_an_option_takes_in_our_words(command: Command, verb: str) -> None:
    shown = command(verb, "--help").out
    assert not [kind for kind in ("<str>", "<int", "<float") if kind in shown]


def test_a_python_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failures.show_warning("old", DeprecationWarning, "some/file.py", 12)
    assert capsys.readouterr().err == "warning: old\n"
