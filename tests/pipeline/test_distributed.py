"""Several processes that torchrun started: the result of one, and one clear error where one of them dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file

from dfmeta.bundle import validate
from dfmeta.data import from_flags
from dfmeta.pipeline import Gathering, record, record_shard
from dfmeta.pipeline.distributed import Ranks, cut

OPS = from_flags(1 / 255)
PRESETS = ("top-layer", "all-layers")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# A process that stops after its first batch, as if the machine were gone, or for ever, as if the network were.
DYING = """
import os, signal, sys, time
from dfmeta.cli import main
from dfmeta.records.recorder import Recorder

update = Recorder.update
def stop(self, *given):
    update(self, *given)
    {what}
Recorder.update = stop
sys.exit(main(sys.argv[1:]))
"""
DEATHS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", 120),
    "hanging": ("time.sleep(600)", 4),
}


@pytest.fixture(scope="module")
def model(digits_teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(digits_teacher.raw)
    return path


def words(model, out, *further, data="digits:train"):
    """The command of one process, without the program."""
    how = ("--scale", "1/255", "--preset", ",".join(PRESETS))
    return ["record", "--model", str(model), "--data", str(data), *how, "--out", str(out), *map(str, further)]


def environment(**further):
    # One thread a process: they share the machine. Variables of an outer torchrun would lead them astray.
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", **further}


def torchrun(count, *arguments):
    command = [*TORCHRUN, str(count), "-m", "dfmeta", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=280)


def same(one, two, tolerance):
    """Counts are equal; the rest is, within ``tolerance`` of the largest value of its array."""
    assert one.keys() == two.keys()
    for name, array in one.items():
        if array.dtype.kind in "iu":
            np.testing.assert_array_equal(two[name], array, err_msg=name)
        elif not name.endswith(("eigenvectors", "residual_trace")):
            np.testing.assert_allclose(two[name], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("count", [2, 3])
def test_many_processes_gather_what_one_does(model, digits_teacher, tmp_path, count):
    done = torchrun(count, *words(model, tmp_path / "many", "--shard", "all", "--json"))
    assert done.returncode == 0, done.stderr
    # One document, of the first process; the others print nothing.
    assert json.loads(done.stdout)["units"] == 1442
    how = Gathering(presets=PRESETS, preprocessing=OPS)
    record_shard(digits_teacher, "digits:train", tmp_path / "one", name="all", gathering=how)
    one, many = (load_file(tmp_path / name / "state.safetensors") for name in ("one", "many"))
    same(one, many, 1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one"]


def test_the_first_process_publishes_with_checkpoints_on_the_way(model, digits_teacher, tmp_path):
    often = ("--checkpoint", tmp_path / "ck", "--checkpoint-seconds", "0")
    done = torchrun(2, *words(model, tmp_path / "many", *often, "--json"))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["units"], facts["path"]) == (1442, str(tmp_path / "many"))
    assert validate(tmp_path / "many").valid
    record(digits_teacher, "digits:train", tmp_path / "one", presets=PRESETS, preprocessing=OPS)
    one, many = (load_file(tmp_path / name / "dfmeta" / "records.safetensors") for name in ("one", "many"))
    same(one, many, 1e-6)
    # Both processes' checkpoints are gone.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one"]


def failure_of_the_first(first_command, second_command, code):
    """Start two processes by hand; the one error that the first of them prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank, command in enumerate((first_command, second_command)):
        meeting = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment(**meeting), **pipes))
    first, second = started
    try:
        out, errors = first.communicate(timeout=200)
    finally:
        first.kill()
        second.kill()
        second.communicate()
    assert (first.returncode, out) == (code, ""), errors
    assert "Traceback" not in errors
    (said,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return said


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_dies_midway_stops_the_others(model, tmp_path, death):
    """Started by hand, without torchrun's agent: it would end the others itself, sooner than they notice."""
    what, timeout = DEATHS[death]
    given = words(model, tmp_path / "out", "--timeout", timeout, "--batch-size", 100)
    said = failure_of_the_first(
        [sys.executable, "-m", "dfmeta", *given], [sys.executable, "-c", DYING.format(what=what), *given], 1
    )
    assert said.startswith("error: rank 1: found no answer (")
    assert "--checkpoint" in said
    assert list(tmp_path.iterdir()) == []


def test_processes_that_were_started_differently(model, tmp_path):
    commands = [
        [sys.executable, "-m", "dfmeta", *words(model, tmp_path / "out", "--batch-size", size)] for size in (100, 50)
    ]
    said = failure_of_the_first(*commands, 2)
    assert said.startswith("error: rank 1, batch_size: found 50, expected 100, as in rank 0.")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_under_torchrun_leaves_nothing(model, tmp_path):
    """The data of the second process alone is bad."""
    x = np.random.default_rng(0).random((200, 1, 8, 8)).astype(np.float32)
    x[190] = np.nan
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(200) % 10)
    done = torchrun(2, *words(model, tmp_path / "out", "--batch-size", 50, data=tmp_path / "set.npz"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "error: x[190]: found the value nan" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.parametrize(("batches", "parts"), [(0, 1), (1, 3), (7, 3), (100, 7)])
def test_the_parts_are_even_and_together_everything(batches, parts):
    cuts = [cut(batches, part, parts) for part in range(parts)]
    assert [batch for each in cuts for batch in each] == list(range(batches))
    assert max(map(len, cuts)) - min(map(len, cuts)) <= 1


def test_alone_it_is_all_its_own():
    ranks = Ranks()
    assert ranks.first
    assert ranks.part(5) == range(5)
    ranks.collect({}, dict, lambda *received: pytest.fail("nobody sends"))
    assert ranks.share(lambda: {"a": 1}) == {"a": 1}


def test_shards_of_processes_side_by_side_are_not_mixed_up(digits_teacher, tmp_path):
    """Threads, such as those of a scheduler's worker, each with a part: nothing is shared between calls."""
    how = Gathering(presets=PRESETS, preprocessing=OPS)

    def take(number):
        name = f"part-{number}"
        return record_shard(
            digits_teacher, "digits:train", tmp_path / name, name=name, gathering=how, part=(number, 3)
        ).units

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(take, (1, 2, 3))) == 1442
