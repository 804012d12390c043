"""Interrupted and started again: the result is that of a pass that nothing disturbed, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from dfmeta.data import from_flags
from dfmeta.errors import MergeError, OutputExists
from dfmeta.pipeline import Gathering, Publishing, Running, record, record_shard, record_with
from dfmeta.records.shard_checkpoint import Checkpoint, checkpoint_of_rank, checkpoints_at

OPS = from_flags(1 / 255)
HOW = Gathering(presets=("top-layer", "all-layers"), preprocessing=OPS, batch_size=50)

# Children of one process, since each start of Python costs seconds. They are killed later and later, so that on a slow
# machine too one of them comes through.
PROGRAM = """
import json, os, random, signal, sys, time
from dfmeta.data import from_flags
from dfmeta.graph import Graph
from dfmeta.pipeline import Gathering, Running, record_shard

model, out, checkpoint, seed = sys.argv[1:]
graph, chance = Graph.from_file(model), random.Random(int(seed))
how = Gathering(presets=("top-layer", "all-layers"), preprocessing=from_flags(1 / 255), batch_size=50)
patience, kills = 0.3, 0
while True:
    child = os.fork()
    if child == 0:
        running = Running(checkpoint, 0, progress=lambda *facts: time.sleep(0.01))
        record_shard(graph, "digits:train", out, name="all", gathering=how, running=running)
        os._exit(0)
    end = time.monotonic() + chance.uniform(0.2, patience)
    status = None
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0.002)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills, patience = kills + 1, patience * 1.4
        continue
    print(json.dumps({"kills": kills, "status": status}))
    break
"""


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def undisturbed(digits_teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "shard"
    record_shard(digits_teacher, "digits:train", out, name="all", gathering=HOW)
    return files(out)


class Interrupted(Exception):
    """What stops a pass in these tests."""


def interrupted(graph, folder, *, after, data="digits:train", how=HOW):
    """A pass that stops after so many units, and leaves its checkpoint."""

    def stop(stage, done, total, loss):
        if done >= after:
            raise Interrupted

    running = Running(folder / "ck", 0, progress=stop)
    with pytest.raises(Interrupted):
        record_shard(graph, data, folder / "out", name="all", gathering=how, running=running)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["ck"]


def resumed(graph, folder, *, data="digits:train", how=HOW, **options):
    told = []
    running = Running(folder / "ck", 0, progress=lambda *facts: told.append(facts[1]))
    record_shard(graph, data, folder / "out", name="all", gathering=how, running=running, **options)
    return told


@pytest.mark.parametrize("after", [50, 700, 1442])
def test_it_goes_on_where_it_was(digits_teacher, undisturbed, tmp_path, after):
    interrupted(digits_teacher, tmp_path, after=after)
    told = resumed(digits_teacher, tmp_path)
    assert told[:1] == ([after + 50] if after < 1400 else [])
    assert files(tmp_path / "out") == undisturbed
    assert not (tmp_path / "ck").exists()


def test_killed_again_and_again(digits_teacher, undisturbed, tmp_path):
    (tmp_path / "model.onnx").write_bytes(digits_teacher.raw)
    words = [tmp_path / "model.onnx", tmp_path / "out", tmp_path / "ck", 7]
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["status"] == 0, done.stderr
    assert facts["kills"] >= 3
    assert files(tmp_path / "out") == undisturbed
    # Writers that were killed leave hidden folders of the output's; the checkpoint's own were cleaned up.
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"model.onnx", "out"}


def test_a_bundle_is_resumed_too(digits_teacher, tmp_path):
    def stop(stage, done, total, loss):
        if done > 700:
            raise Interrupted

    options = {"presets": ["top-layer"], "preprocessing": OPS, "batch_size": 50}
    with pytest.raises(Interrupted):
        record(
            digits_teacher,
            "digits:train",
            tmp_path / "a",
            **options,
            running=Running(tmp_path / "ck", 0),
            progress=stop,
        )
    one = record(digits_teacher, "digits:train", tmp_path / "a", **options, running=Running(tmp_path / "ck", 0))
    two = record(digits_teacher, "digits:train", tmp_path / "b", **options)
    assert one.units == 1442
    assert numbers(one.path) == numbers(two.path)
    assert not (tmp_path / "ck").exists()


def numbers(bundle):
    """The bytes of the tensors: the header before them holds the bundle's own random id."""
    raw = (bundle / "dfmeta" / "records.safetensors").read_bytes()
    return raw[8 + int.from_bytes(raw[:8], "little") :]


CHANGES = {
    "batch_size": (
        Gathering(presets=HOW.presets, preprocessing=OPS, batch_size=64),
        "batch_size: found 50, expected 64",
    ),
    "presets": (Gathering(presets=("top-layer",), preprocessing=OPS, batch_size=50), "plan"),
    "preprocessing": (Gathering(presets=HOW.presets, preprocessing=from_flags(1 / 128), batch_size=50), "scale: found"),
    "classes": (Gathering(HOW.presets, OPS, by_class=False, batch_size=50), "classes: found 10, expected null"),
    "limit": (Gathering(HOW.presets, OPS, batch_size=50, limit=1000), "units: found 1442, expected 1000"),
    "exact": (Gathering(HOW.presets, OPS, batch_size=50, exact=True), "exact: found false, expected true"),
    "engine": (Gathering(HOW.presets, OPS, batch_size=50, engine="torch"), "engine.name: found"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_configuration_is_refused(digits_teacher, tmp_path, name):
    how, text = CHANGES[name]
    interrupted(digits_teacher, tmp_path, after=100)
    with pytest.raises(MergeError, match=text):
        resumed(digits_teacher, tmp_path, how=how)
    assert not (tmp_path / "out").exists()
    # It is still there, for the command that it belongs to.
    assert resumed(digits_teacher, tmp_path)[0] == 150


def test_another_part_is_refused(digits_teacher, tmp_path):
    interrupted(digits_teacher, tmp_path, after=100)
    with pytest.raises(MergeError, match=r"batches\[1\]: found 29, expected 14"):
        resumed(digits_teacher, tmp_path, part=(1, 2))


def test_the_checkpoint_of_another_model_is_refused(digits_teacher, linear, tmp_path):
    interrupted(linear((1, 8, 8), (10,)), tmp_path, after=100)
    with pytest.raises(
        MergeError, match=r"graph_sha256: found .*as in what is asked now.*model and options that it was started with"
    ):
        resumed(digits_teacher, tmp_path)


def test_data_that_changed_meanwhile_is_refused(digits_teacher, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8)).astype(np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, x=x, y=np.arange(200) % 10)
    interrupted(digits_teacher, tmp_path, after=100, data=str(path))
    np.savez(path, x=x[::-1], y=np.arange(200) % 10)
    with pytest.raises(MergeError, match="batch 1: found other data than when the checkpoint was written"):
        resumed(digits_teacher, tmp_path, data=str(path))


def killed_at_the_end(graph, folder, monkeypatch, what):
    """All is done and written, but the checkpoint is still there."""
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            again(graph, folder, what)
    assert sorted(path.name for path in folder.iterdir()) == ["ck", "out"]


def again(graph, folder, what):
    running = Running(folder / "ck", 0)
    if what == "bundle":
        return record_with(graph, "digits:train", folder / "out", HOW, Publishing(), running)
    return record_shard(graph, "digits:train", folder / "out", name="all", gathering=HOW, running=running)


@pytest.mark.parametrize("what", ["bundle", "shard"])
def test_killed_after_the_work_and_before_the_checkpoint_is_gone(digits_teacher, tmp_path, monkeypatch, what):
    killed_at_the_end(digits_teacher, tmp_path, monkeypatch, what)
    before = files(tmp_path / "ck")
    with pytest.raises(OutputExists) as error:
        again(digits_teacher, tmp_path, what)
    assert error.value.found == f"a complete {what}, and a checkpoint beside it"
    assert f"the work is done: remove the checkpoint ({tmp_path / 'ck'})" in error.value.fix
    assert files(tmp_path / "ck") == before


def test_an_output_that_is_not_complete_is_not_called_so(digits_teacher, tmp_path, monkeypatch):
    killed_at_the_end(digits_teacher, tmp_path, monkeypatch, "bundle")
    (tmp_path / "out" / "dfmeta.json").unlink()
    with pytest.raises(OutputExists, match="found something already there"):
        again(digits_teacher, tmp_path, "bundle")


def test_checkpoints_of_ranks_are_found_too(tmp_path):
    for name in ("ck[1]-0-of-2", "ck[1]-1-of-2", "ck1-0-of-2"):
        (tmp_path / name / "slot-0").mkdir(parents=True)
        (tmp_path / name / "slot-0" / "dfmeta-checkpoint.json").touch()
    expected = [checkpoint_of_rank(tmp_path / "ck[1]", rank, 2) for rank in (0, 1)]
    assert checkpoints_at(tmp_path / "ck[1]") == expected
    assert checkpoints_at(tmp_path / "ck") == []
