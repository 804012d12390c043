"""Shards at the command line: written, merged, and everything that is wrong use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfmeta.bundle import Bundle
from dfmeta.records.shard_checkpoint import Checkpoint

Command = Callable[..., Any]
MODEL = ("--data", "digits:train", "--scale", "1/255", "--preset", "all-layers")


@pytest.fixture(scope="module")
def halves(release: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two shards of the digits."""
    folder = tmp_path_factory.mktemp("halves")
    for number, name in enumerate(("north", "south"), 1):
        words = ("--shard", name, "--part", f"{number}/2", "--out", folder / name)
        done = command("record", "--model", release / "model.onnx", *MODEL, *words)
        assert done.code == 0, done.err
        assert "(private: never publish it)" in done.out
    return folder / "north", folder / "south"


def test_merge_publishes(command: Command, halves: tuple[Path, Path], tmp_path: Path) -> None:
    about = ("--name", "digits teacher", "--license", "MIT", "--min-units", 20)
    done = command("merge", *halves, "--out", tmp_path / "out", *about, "--json")
    assert done.code == 0, done.err
    assert (done.json["units"], done.json["records"], done.json["shards"]) == (1442, 8, 2)
    assert "merge: 2 of 2" in done.err
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.model.name == "digits teacher"
    assert manifest.licenses is not None
    assert manifest.licenses.records == "MIT"
    assert manifest.privacy is not None
    assert manifest.privacy.min_unit_count == 20
    assert command("validate", tmp_path / "out", "--strict").code == 0


def test_merge_for_people(command: Command, halves: tuple[Path, Path], tmp_path: Path) -> None:
    done = command("merge", *halves, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "units     1,442\n" in done.out


def test_merge_into_a_larger_shard(command: Command, halves: tuple[Path, Path], tmp_path: Path) -> None:
    done = command("merge", *halves, "--shard", "both", "--out", tmp_path / "both", "--json")
    assert done.code == 0, done.err
    assert (done.json["name"], done.json["parts"], done.json["units"]) == ("both", 2, 1442)
    assert command("merge", tmp_path / "both", "--out", tmp_path / "out").code == 0
    again = command("merge", tmp_path / "both", halves[0], "--out", tmp_path / "again")
    assert again.code == 2
    assert "found the 768 units of part 'north'" in again.err


def test_a_shard_is_no_bundle(command: Command, halves: tuple[Path, Path]) -> None:
    assert command("validate", halves[0]).code == 1
    assert command("show", halves[0]).code == 1


def test_a_bundle_is_no_shard(command: Command, halves: tuple[Path, Path], release: Path, tmp_path: Path) -> None:
    done = command("merge", halves[0], release, "--out", tmp_path / "out", "--json")
    assert done.code == 2
    assert done.json["error"]["type"] == "MergeError"
    assert "spectrum records were truncated" in done.json["error"]["found"]
    assert not (tmp_path / "out").exists()


WRONG = {
    "a-part-of-no-shard": (("--part", "1/2"), "name it with --shard"),
    "a-part-too-many": (("--shard", "a", "--part", "3/2"), "is not I/N"),
    "no-part": (("--shard", "a", "--part", "half"), "is not I/N"),
    "a-path-as-name": (("--shard", "../a"), "is no name"),
    "a-shard-with-a-title": (("--shard", "a", "--title", "One"), "a shard is not published"),
    "a-shard-with-few-units": (("--shard", "a", "--min-units", "3"), "a shard is not published"),
    "a-shard-that-suppresses": (("--shard", "a", "--suppress-small"), "a shard is not published"),
    "no-device": (("--device", "tpu"), "expected cpu, cuda"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_of_record(command: Command, release: Path, tmp_path: Path, name: str) -> None:
    words, text = WRONG[name]
    done = command("record", "--model", release / "model.onnx", *MODEL, *words, "--out", tmp_path / "out")
    assert done.code == 2
    assert text in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--shard", "a", "--license", "MIT"), "a shard is not published"),
        (("--shard", "a", "--preset", "all-layers"), "holds all of what its parts hold"),
        (("--preset", "spectral"), "found no spectrum"),
        (("--preset", "spectra"), "Did you mean 'spectral'"),
    ],
)
def test_wrong_use_of_merge(
    command: Command, halves: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    done = command("merge", *halves, *words, "--out", tmp_path / "out")
    assert done.code == 2
    assert text in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_at_the_command_line(command: Command, release: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", tmp_path / "ck", "--checkpoint-seconds", 0, "--out", tmp_path / "out")
    done = command("record", "--model", release / "model.onnx", *MODEL, *words)
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_checkpoint_that_outlived_its_work(
    command: Command, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--checkpoint", tmp_path / "ck", "--checkpoint-seconds", 0, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        assert command("record", "--model", release / "model.onnx", *MODEL, *words).code == 0
    done = command("record", "--model", release / "model.onnx", *MODEL, *words)
    assert done.code == 2
    assert "found a complete bundle, and a checkpoint beside it" in done.err
    assert f"remove the checkpoint ({tmp_path / 'ck'})" in done.err
