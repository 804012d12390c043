"""Quantized networks where they would run: onnxruntime, OpenVINO, C on this machine and on emulated Cortex-M."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dfmeta import students
from dfmeta.compress.distill import Config
from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph import Graph, costs
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import distill, graph_inputs, quantize, record

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "bench"))

import embedded_boards as boards
import embedded_c as c
import embedded_compare as compare
import embedded_report as report
import embedded_runtimes as runtimes
from embedded_students import of_one

IMAGES = 100


class Residual(nn.Module):
    """Two residual additions, one of them around a stride, and a mean of planes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (
            nn.Conv2d(*sizes, 3, padding=1) for sizes in ((1, 16), (16, 16), (16, 16))
        )
        self.down, self.third, self.skip = (
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.Conv2d(16, 32, 1, 2),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (self.second(self.first(x).relu()) + x).relu()
        x = (self.third(self.down(x).relu()) + self.skip(x)).relu()
        found: torch.Tensor = self.head(x.mean((2, 3)))
        return found


class Files:
    """A network in both forms, and real images.

    Args:
        graph: the network.
        data: what ``--data`` takes, without the split: the training images are recorded.
        pad: of the images.
        folder: for everything that is written.

    Attributes:
        qdq, qoperator: files at batch 1.
        images: ``[n, c, h, w]`` test images.
        on_board: how many of them the emulated boards are given.
        step: of the quantized logits.
    """

    def __init__(self, graph: Graph, data: str, pad: int, folder: Path) -> None:
        settings: dict[str, Any] = {"presets": ("calibration",), "by_class": False, "limit": 500}
        preprocessing = from_flags(1 / 255, pad=pad)
        record(graph, f"{data}:train", folder / "bundle", preprocessing=preprocessing, **settings)
        self.qdq, self.qoperator = (self._quantized(folder, form) for form in ("qdq", "qoperator"))
        source = open_data(f"{data}:test", limit=IMAGES, seed=0)
        batch = next(iter(feed(source, graph_inputs(graph, preprocessing), IMAGES)))
        self.images = next(iter(batch.inputs.values()))
        self.on_board = 20 if costs(graph).macs < 1_000_000 else 3
        self.step = compare.output_step(self.qoperator)

    @staticmethod
    def _quantized(folder: Path, form: Any) -> Path:
        free, one = folder / f"{form}-free.onnx", folder / f"{form}.onnx"
        quantize(folder / "bundle", free, form=form)
        one.write_bytes(of_one(free))
        return one

    def agree(self, found: np.ndarray, form: str, allowed: int = 1) -> None:
        """Compare with the file run node by node."""
        exact = runtimes.in_onnxruntime(getattr(self, form), self.images[: len(found)], optimised=False)
        told = compare.agreement(found, exact, self.step, allowed)
        assert told.holds, told


@pytest.fixture(scope="module", params=["plain", "residual", "lenet5-half", "resnet8"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("embedded")
    if request.param == "plain":
        return Files(request.getfixturevalue("digits_teacher"), "digits", 0, folder)
    if request.param == "residual":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Files(exported(Residual(), (1, 8, 8)), "digits", 0, folder)
    data = request.getfixturevalue("shared") / "data"
    if request.param == "resnet8":
        # Its weights are random: what is tested is the same, and training takes minutes.
        network = students.build("resnet8", (3, 32, 32), 10, seed=0)
        return Files(exported(network, (3, 32, 32)), str(data / "cifar10-jpeg.zip"), 0, folder)
    student, few = folder / "student.onnx", Config(steps=60)
    bundle = Path(__file__).resolve().parents[2] / "examples" / "lenet5-mnist"
    distill(bundle, student, student="lenet5-half", method="class-subspace", config=few, dynamic_batch=True)
    return Files(Graph.from_file(student), str(data / "mnist.npz"), 2, folder)


def exported(network: nn.Module, shape: tuple[int, ...]) -> Graph:
    """As a graph with any batch."""
    names = {"input_names": ["image"], "output_names": ["logits"]}
    return export_module(network.eval(), (torch.rand(2, *shape),), **names, dynamic_batch=True)


@pytest.fixture(scope="module")
def generated(files: Files, tmp_path_factory: pytest.TempPathFactory) -> c.Generated:
    return installed(lambda: c.generate(files.qoperator, tmp_path_factory.mktemp("generated")))


def installed(make: Callable[[], Any]) -> Any:
    """What is made, or a skip that says what to install."""
    try:
        return make()
    except c.Absent as error:
        pytest.skip(str(error))


def test_everything_is_integers_but_the_ends(files: Files) -> None:
    names = Counter(node.op_type for node in Graph.from_file(files.qoperator).model.graph.node)
    assert (names["QuantizeLinear"], names["DequantizeLinear"]) == (1, 1)
    assert names.keys() <= {
        "QuantizeLinear",
        "DequantizeLinear",
        "QLinearConv",
        "MaxPool",
        "Flatten",
        "Reshape",
        "Concat",
    }


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_onnxruntime_with_all_its_kernels(files: Files, form: str) -> None:
    files.agree(runtimes.in_onnxruntime(getattr(files, form), files.images), form)


def test_openvino_runs_it_on_integers(files: Files) -> None:
    openvino = installed(lambda: runtimes.OpenVino(files.qdq))
    files.agree(openvino(files.images), "qdq", allowed=2)
    weights = sum(node.op_type in ("Conv", "Gemm") for node in Graph.from_file(files.qdq).model.graph.node)
    assert openvino.integer_kernels() == weights


def test_c_on_this_machine(files: Files, generated: c.Generated, tmp_path: Path) -> None:
    files.agree(c.build_for_host(generated, tmp_path)(files.images), "qoperator")


@pytest.mark.parametrize("board", boards.BOARDS, ids=lambda board: board.name)
def test_c_on_an_emulated_board(board: boards.Board, files: Files, generated: c.Generated, tmp_path: Path) -> None:
    built = installed(lambda: boards.build_for_board(generated, board, tmp_path))
    ran = installed(lambda: boards.execute(built, files.images[: files.on_board], tmp_path / "run"))
    files.agree(ran.outputs, "qoperator")
    np.testing.assert_array_equal(ran.outputs, c.build_for_host(generated, tmp_path)(files.images[: files.on_board]))
    expected = compare.predicted(files.qoperator, soft_float=board.soft_float)
    assert ran.stack == pytest.approx(expected.temporaries_bytes, rel=0.15, abs=200)
    assert built.data == pytest.approx(expected.constant_bytes, rel=0.05)
    assert built.flash == pytest.approx(expected.flash_bytes, rel=0.15)
    assert len(ran.instructions) == files.on_board
    assert ran.instructions.min() > 5 * costs(Graph.from_file(files.qoperator)).macs


def test_other_numbers_do_not_agree() -> None:
    exact = np.array([[1.0, 0.0], [1.0, 0.95], [0.0, 5.0]], np.float32)
    swapped = exact[:, ::-1]
    assert compare.agreement(exact, exact, 0.1, 1).holds
    close = compare.agreement(np.array([[1.0, 0.0], [0.9, 1.0], [0.0, 5.0]], np.float32), exact, 0.1, 1)
    assert (close.holds, close.differing, close.excused) == (True, 1, 1)
    assert not compare.agreement(swapped, exact, 0.1, 1).holds
    far = compare.agreement(exact + np.float32(0.25), exact, 0.1, 2)
    assert (far.holds, far.differing, round(far.steps, 3)) == (False, 0, 2.5)
    wrong = compare.agreement(np.array([[0.0, 1.0], [1.0, 0.9], [0.0, 5.0]], np.float32), exact, 1.0, 1)
    assert (wrong.differing, wrong.excused, wrong.holds) == (1, 1, True)


def test_a_bound_that_is_missed_is_said() -> None:
    board: dict[str, Any] = {
        "stack": 130,
        "flash": 100,
        "same_as_host": False,
        "instructions": 9,
        "least": 8,
        "most": 10,
    }
    board["predicted"] = {"stack": 100, "flash": 100}
    row = {"holds": False, "steps": 3.0, "allowed": 1, "differing": 2, "excused": 1, "images": 5}
    found = {
        "student": "s",
        "parameters": 1,
        "macs": 1,
        "bytes": {"qdq": 1},
        "violations": ["c-codegen: a rule"],
        "agreement": {"QDQ, here": row},
        "boards": {"cortex-m4": board},
        "accuracy": {"QDQ, here": {"accuracy": 50.0, "images": 2}},
    }
    said = report.misses({"net": found})
    assert [one.removeprefix("net: ") for one in said] == [
        "c-codegen: a rule",
        "QDQ, here: 3.00 steps off where 1 are allowed, 1 other classes",
        "cortex-m4: stack 130, predicted 100 (+30.0%)",
        "cortex-m4: other numbers than the same C on this machine",
    ]
    assert "| cortex-m4 | 130 | 100 (+30.0%) | 100 | 100 (+0.0%) | 9 (8 to 10) |" in report.markdown({"net": found})


def test_what_is_not_installed_is_said(generated: c.Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(c.Absent, match="apt-get install gcc-arm-none-eabi"):
        boards.build_for_board(generated, boards.BOARDS[0], tmp_path)
    with pytest.raises(c.Absent, match="gcc is not installed"):
        c.build_for_host(generated, tmp_path)


def test_a_board_that_stops_in_a_fault_is_an_error(generated: c.Generated, tmp_path: Path) -> None:
    """Code that writes where no memory is."""
    broken = tmp_path / "broken.c"
    broken.write_text("void model(const void *in, void *out) { *(volatile int *)0xf0000000u = 1; }\n")
    other = c.Generated(broken, generated.inputs, generated.outputs)
    built = installed(lambda: boards.build_for_board(other, boards.BOARDS[0], tmp_path))
    images = np.zeros((1, generated.inputs), np.float32)
    with pytest.raises(RuntimeError, match="a fault"):
        boards.execute(built, images, tmp_path / "run")
