"""A verb's work in a process of its own: what it may use up, and that nothing else about it is different."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper

from dfmeta import _watched
from dfmeta.cli import app, bounds, isolation, memory
from dfmeta.errors import LimitExceeded
from dfmeta.graph import Graph

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compat" / "0.1.0" / "moments"
DFMETA = (sys.executable, "-m", "dfmeta")
LIMIT = 600 * 2**20
# Writes a bundle and stops, or is stopped, before it has its name.
WRITER = """
import os, signal, sys, time
from pathlib import Path
from dfmeta import _watched
from dfmeta.bundle import staging
from dfmeta.cli import isolation

def work():
    out = Path(sys.argv[1])
    import tempfile
    tempfile.mkdtemp()
    with staging.staged(out) as folder:
        folder.mkdir()
        (folder / "dfmeta.json").write_text("{}")
        print(tempfile.gettempdir(), flush=True)
        {what}
    return 0

sys.exit(isolation.run(work, lambda error: print(f"{type(error).__name__}: {error}", file=sys.stderr) or 9))
"""


def graph_file(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    """Numbers [n, 4] in, three scores out, of which ``nodes`` make ``extra``, one number, on the way."""
    last = [helper.make_node("Gemm", ["x", "w"], ["scores"]), helper.make_node("Add", ["scores", "extra"], ["y"])]
    held = {"w": np.ones((4, 3), np.float32), "axes": np.array([0, 1]), "one": np.array([1]), **constants}
    graph = helper.make_graph(
        [*nodes, *last],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def data_file(path: Path, value: float = 0.0) -> Path:
    np.savez(path, x=np.full((3, 4), value, np.float32), y=np.array([0, 1, 2]))
    return path


@pytest.fixture
def as_large_as_its_input_says(tmp_path: Path) -> Path:
    """A vector whose length is a number of the data: no inference of shapes can know it."""
    node = helper.make_node
    return graph_file(
        tmp_path / "model.onnx",
        [
            node("ReduceMax", ["x", "axes"], ["most"], keepdims=0),
            node("Cast", ["most"], ["count"], to=TensorProto.INT64),
            node("Reshape", ["count", "one"], ["shape"]),
            node("ConstantOfShape", ["shape"], ["long"]),
            node("ReduceMean", ["long", "first"], ["extra"], keepdims=0),
        ],
        {"first": np.array([0])},
    )


def declared_huge(path: Path) -> Path:
    """A value of 1.6 GB that everybody can see in the file."""
    node = helper.make_node
    return graph_file(
        path,
        [node("ConstantOfShape", ["sides"], ["huge"]), node("ReduceMean", ["huge", "axes"], ["extra"], keepdims=0)],
        {"sides": np.array([20_000, 20_000])},
    )


def slow(path: Path) -> Path:
    """Some hundred products of large matrices: ten seconds or more of honest work.

    No factor is a constant, of which onnxruntime would make a copy for each product before anything runs.
    """
    node = helper.make_node
    products = [node("MatMul", [f"h{number}", f"h{number}"], [f"h{number + 1}"]) for number in range(400)]
    begin = [node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0), node("Add", ["square", "sum"], ["h0"])]
    end = [node("ReduceMean", ["h400", "axes"], ["extra"], keepdims=0)]
    return graph_file(path, [*begin, *products, *end], {"square": np.eye(1024, dtype=np.float32)})


def _as_from_a_shell() -> None:
    """Signals do what they do there, even where these tests run with some of them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def started(*words: object, **further: str) -> subprocess.Popen[str]:
    """The command in a session of its own, so that all that is left of it can be found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **further}
    return subprocess.Popen(
        [*map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=_as_from_a_shell,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and the two streams, once nothing of it is left."""
    with process:
        out, err = process.communicate(timeout=120)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return process.returncode, out, err


def dfmeta(*words: object, **further: str) -> tuple[int, str, str]:
    return ended(started(*DFMETA, *words, **further))


def test_a_graph_that_takes_what_no_shape_tells_is_killed(as_large_as_its_input_says: Path, tmp_path: Path) -> None:
    data, temporary = data_file(tmp_path / "d.npz", 1e9), tmp_path / "temporary"
    temporary.mkdir()
    words = ("evaluate", as_large_as_its_input_says, "--data", data, "--json", "--max-memory", LIMIT)
    code, out, err = dfmeta(*words, TMPDIR=str(temporary))
    error = json.loads(out)["error"]
    assert (code, error["type"], error["code"], error["exit_code"]) == (3, "LimitExceeded", "memory-limit", 3)
    assert error["where"] == f"{as_large_as_its_input_says}, a first forward pass"
    assert error["expected"] == "at most 600 MiB"
    assert err.startswith("error: ")
    assert "--max-memory" in err
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []


def test_the_same_graph_with_little_to_do_is_run(as_large_as_its_input_says: Path, tmp_path: Path) -> None:
    data = data_file(tmp_path / "d.npz", 10.0)
    code, out, err = dfmeta("evaluate", as_large_as_its_input_says, "--data", data, "--json", "--max-memory", LIMIT)
    assert (code, "error" in err) == (0, False)
    assert json.loads(out)["count"] == 3


def test_a_graph_that_says_how_much_it_takes_is_not_run(tmp_path: Path) -> None:
    model, data = declared_huge(tmp_path / "model.onnx"), data_file(tmp_path / "d.npz")
    code, out, _ = dfmeta("evaluate", model, "--data", data, "--json", "--max-memory", "1G")
    error = json.loads(out)["error"]
    assert (code, error["code"], error["where"]) == (3, "memory-limit", str(model))
    assert error["found"] == "a value 'huge' of 1.5 GiB"


def test_a_first_pass_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    model, data = slow(tmp_path / "model.onnx"), data_file(tmp_path / "d.npz")
    code, out, err = dfmeta("evaluate", model, "--data", data, "--json", "--first-pass-seconds", 3)
    error = json.loads(out)["error"]
    assert (code, error["code"], error["where"]) == (3, "time-limit", str(model))
    assert error["found"] == "a first forward pass that is not done after 3 s"
    assert "--first-pass-seconds" in err


def test_validate_answers_in_its_own_form(tmp_path: Path) -> None:
    code, out, err = dfmeta("validate", KEPT, "--json", "--max-memory", "1M")
    document = json.loads(out)
    assert (code, document["valid"], document["errors"][0]["code"]) == (3, False, "memory-limit")
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("validate", KEPT, "--json"), 0),
        (("validate", ROOT / "spec" / "vectors" / "1.0" / "invalid" / "external-data", "--json"), 1),
        (("validate", KEPT, "--max-memory", "much", "--json"), 2),
        (("evaluate", "nowhere.onnx", "--data", "digits:test", "--json"), 1),
        (("validate", "--no-such-option"), 2),
    ],
)
def test_streams_and_codes_are_those_of_the_verb(words: tuple[object, ...], code: int) -> None:
    """Beside the same command in one process."""
    own = [sys.executable, "-c", "import sys; from dfmeta.cli import main; sys.exit(main(sys.argv[1:]))"]
    alone = subprocess.run([*own, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    found = dfmeta(*words)
    assert found == (alone.returncode, alone.stdout, alone.stderr)
    assert found[0] == code


def writer(path: Path, what: str, out: Path) -> Path:
    path.write_text(WRITER.replace("{what}", what))
    return out


def leaves(process: subprocess.Popen[str], folder: Path) -> tuple[int, str]:
    """Its end, which left nothing: exit code and errors."""
    code, out, err = ended(process)
    assert [path.name for path in folder.iterdir()] == ["writer.py"]
    assert not os.path.exists(out.strip())
    return code, err


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 9, "MemoryError"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 9, "RuntimeError: the work was ended by SIGSEGV"),
        ("_watched.watcher().bound(2**20, 600); time.sleep(60)", 9, "LimitExceeded: memory: found "),
        (
            "_watched.watcher().bound(2**40, 0.2); _watched.watcher().begins('m.onnx', 'a graph'); time.sleep(60)",
            9,
            "m.onnx",
        ),
        ("raise SystemExit(7)", 7, ""),
    ],
)
def test_whatever_ends_the_child_nothing_is_left(tmp_path: Path, what: str, code: int, said: str) -> None:
    out = writer(tmp_path / "writer.py", what, tmp_path / "out")
    found, err = leaves(started(sys.executable, tmp_path / "writer.py", out), tmp_path)
    assert (found, said in err) == (code, True)


@pytest.mark.parametrize(
    ("number", "everybody"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)],
)
def test_signals_reach_the_child(tmp_path: Path, number: int, everybody: bool) -> None:
    """From the terminal, which tells all of its processes, or from elsewhere, which tells one."""
    tidy = (
        "try: print('ready', flush=True); time.sleep(60)\n"
        "        finally: time.sleep(0.2); print('tidied', file=sys.stderr, flush=True)"
    )
    out = writer(tmp_path / "writer.py", tidy, tmp_path / "out")
    process = started(sys.executable, tmp_path / "writer.py", out)
    assert process.stdout is not None
    temporary = process.stdout.readline().strip()
    assert process.stdout.readline() == "ready\n"
    (os.killpg if everybody else os.kill)(process.pid, number)
    code, err = leaves(process, tmp_path)
    # Nobody catches the KeyboardInterrupt here: Python ends such a process by the signal itself.
    assert code == -number
    assert ("tidied" in err) == (number == signal.SIGINT)
    assert not os.path.exists(temporary)


def test_a_second_key_ends_what_does_not_listen(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    out = writer(tmp_path / "writer.py", deaf, tmp_path / "out")
    process = started(sys.executable, tmp_path / "writer.py", out)
    assert process.stdout is not None
    temporary = process.stdout.readline().strip()
    assert process.stdout.readline() == "deaf\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, err = leaves(process, tmp_path)
    assert (code, err) == (9, "KeyboardInterrupt: \n")
    assert not os.path.exists(temporary)


def test_a_child_without_a_parent_ends(tmp_path: Path) -> None:
    out = writer(tmp_path / "writer.py", "time.sleep(60)", tmp_path / "out")
    process = started(sys.executable, tmp_path / "writer.py", out)
    assert process.stdout is not None
    temporary = process.stdout.readline().strip()
    process.kill()
    with process:
        process.communicate(timeout=60)
    for _ in range(200):
        if not any(path.name.startswith(".out") for path in tmp_path.iterdir()):
            break
        time.sleep(0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["writer.py"]
    assert not os.path.exists(temporary)


def test_every_verb_but_two_is_watched() -> None:
    assert [verb.__name__ for verb in app.UNWATCHED] == ["show", "demo"]
    for verb in app.VERBS:
        assert bool(app._runs_graphs([verb.__name__, "x"])) == (verb not in app.UNWATCHED)
        assert bool(app._runs_graphs([verb.__name__, "--title", "-h"])) == (verb not in app.UNWATCHED)
    assert app._runs_graphs(["validate"]) == "validate"
    assert not app._runs_graphs(["--version"])
    assert not app._runs_graphs(["no-such-verb"])


def test_every_watched_verb_has_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in app.VERBS:
        assert app.main([verb.__name__, "--help"]) == 0
        text = capsys.readouterr().out
        assert ("--max-memory" in text) == ("--first-pass-seconds" in text) == (verb not in app.UNWATCHED)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4G", 4 * 2**30),
        ("4GiB", 4 * 2**30),
        ("4 gb", 4 * 10**9),
        ("1.5k", 1536),
        ("7", 7),
        ("7b", 7),
        ("2T", 2**41),
        *((text, None) for text in ("", "G", "-1", "0", "1e3", "4Q", "7IB", "0.1", "4GG", "٤G")),
    ],
)
def test_sizes(text: str, count: int | None) -> None:
    if count is not None:
        assert bounds.size("--max-memory", text) == count
        return
    with pytest.raises(typer.BadParameter, match="500M or 4G"):
        bounds.size("--max-memory", text)


def test_the_memory_of_a_process() -> None:
    before = memory.held_by(os.getpid())
    block = np.ones(2**25)
    assert memory.held_by(os.getpid()) - before > 0.9 * block.nbytes
    # Every POSIX system has ps; it counts pages of files too.
    assert memory.by_ps(os.getpid()) > 0.9 * block.nbytes
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    assert memory.by_proc(nobody.pid) == memory.by_ps(nobody.pid) == 0


def test_what_is_allowed_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = memory.GIB
    for machine, unit, wanted in [
        (16 * gib, 0, 8 * gib),
        (6 * gib, 0, 4 * gib),
        (2 * gib, 0, 2 * gib * 9 // 10),
        (64 * gib, 2**26, 48 * gib),
        (64 * gib, gib, 64 * gib * 9 // 10),
    ]:
        monkeypatch.setattr(memory, "of_the_machine", lambda machine=machine: machine)
        assert memory.allowed(unit) == wanted


@pytest.mark.parametrize(
    ("lines", "files", "wanted"),
    [
        ("", {}, []),
        ("0::/\n", {"memory.max": "max\n"}, []),
        ("0::/\n", {"memory.max": "1000\n"}, [1000]),
        ("", {"memory.max": "1000\n"}, [1000]),
        ("0::/a/b c\n", {"a/b c/memory.max": "max\n", "a/memory.max": "700\n", "memory.max": "900\n"}, [700, 900]),
        ("0::/a/b\n", {"a/b/memory.max": "500\n", "a/memory.max": "700\n", "c/memory.max": "3\n"}, [500, 700]),
        ("0::/../a\n", {"a/memory.max": "500\n", "memory.max": "800\n"}, [800]),
        (
            "5:cpu:/a\n4:memory:/b/c\n",
            {"memory/b/c/memory.limit_in_bytes": "60\n", "memory/a/memory.limit_in_bytes": "1"},
            [60],
        ),
        ("4:cpu,memory:/b\n0::/a\n", {"memory/memory.limit_in_bytes": "70\n", "unified/a/memory.max": "80"}, [70, 80]),
        ("0::/a\n", {"a/memory.max": "a lot", "memory.max": "-1"}, []),
    ],
)
def test_what_control_groups_grant(tmp_path: Path, lines: str, files: dict[str, str], wanted: list[int]) -> None:
    contents = {f"sys/fs/cgroup/{name}": text for name, text in files.items()} | {"proc/self/cgroup": lines}
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(memory.granted(tmp_path)) == wanted
    assert memory.granted(tmp_path / "nowhere") == []


def test_the_least_that_is_granted_is_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(memory, "granted", lambda: [2**62, 12345, 99999])
    assert memory.of_the_machine() == 12345


def test_processes_of_torchrun_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = memory.of_the_machine()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.of_the_machine() == whole // 4


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def hear(*given: object) -> int:
            self.heard.append((name, *given))
            return len(self.heard)

        return hear


def test_what_a_graph_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dfmeta.graph import OrtGraph, TorchGraph

    told = Told()
    monkeypatch.setattr(_watched, "_watcher", told)
    raw = declared_huge(tmp_path / "m.onnx").read_bytes().replace(b"huge", b"tall")
    Graph.from_bytes(raw, "m")
    (sizes,) = [heard[1:] for heard in told.heard if heard[0] == "sizes"]
    assert sizes[:2] == ("m", ("tall", 1_600_000_000))
    assert sizes[2] == 1_600_000_000 + 4 + 4 * (4 + 3 + 3)
    assert sizes[3] == 4 * 12 + 8 * (2 + 1 + 2)
    small = Graph.from_bytes(graph_file(tmp_path / "n.onnx", [extra()], {}).read_bytes(), "n")
    for runs in (OrtGraph(small), TorchGraph(small)):
        told.heard.clear()
        given = np.zeros((2, 4), np.float32)
        for _ in range(3):
            if isinstance(runs, OrtGraph):
                runs.run({"x": given})
            else:
                import torch

                runs.run({"x": torch.from_numpy(given)}, ["y"])
        # The first pass alone: what was run once will run again.
        assert [heard[0] for heard in told.heard] == ["begins", "ends"]
        assert told.heard[0][1:] == ("n", "a first forward pass")


def extra() -> onnx.NodeProto:
    return helper.make_node("ReduceMean", ["x", "axes"], ["extra"], keepdims=0)


def test_the_watch_hears_in_pieces_and_sleeps_with_the_machine() -> None:
    watch = isolation.Watch(0, 100, 10.0)
    watch.hear(b'["begin", 1, "m", "a gr')
    assert watch.running == {}
    watch.hear(b'aph"]\n["stage", "/a/.b.dfmeta-tmp-0"]\n["limits", 200, 5.0]\n')
    assert watch.staged == {"/a/.b.dfmeta-tmp-0"}
    assert watch.verdict(200, 4.0) is None
    too_much = watch.verdict(201, 0.5)
    assert isinstance(too_much, LimitExceeded)
    assert (too_much.code, too_much.where) == ("memory-limit", "m, a graph")
    assert watch.verdict(0, 0.9) is None
    too_long = watch.verdict(0, 0.2)
    assert isinstance(too_long, LimitExceeded)
    assert (too_long.code, too_long.where) == ("time-limit", "m")
    watch.hear(b'["end", 1]\n["settle", "/a/.b.dfmeta-tmp-0"]\n')
    assert (watch.running, watch.staged) == ({}, set())
    assert watch.verdict(0, 100.0) is None


def test_the_page_on_security_says_what_is() -> None:
    text = " ".join((ROOT / "spec" / "security.md").read_text(encoding="utf-8").split())
    for name in ("memory-limit", "time-limit", "--max-memory", "--first-pass-seconds"):
        assert f"`{name}`" in text
    assert f"**Time**: {bounds.FIRST_PASS_SECONDS:g} seconds" in text
    assert f"{round(1 / isolation._PAUSE)} times a second" in text or memory.COSTLY
    assert f"batches of {memory._BATCH} units" in text
    assert f"({memory.in_words(memory._LEAST).replace('.0', '')} at least)" in text
    assert [f"`{verb.__name__}`, which" in text for verb in app.UNWATCHED] == [True, True]
