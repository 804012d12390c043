"""A teacher, its bundle and its student: each made once, by the command itself, on the real digits."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfmeta.cli import main
from dfmeta.data import open_data

MODULE = '''"""A publisher's own module."""

from torch import nn


def teacher():
    print("a publisher's module may print")
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )


def broken():
    raise ValueError("no such luck")


def number():
    return 7
'''
SCALE = ("--scale", "1/255")


@dataclass(frozen=True)
class Outcome:
    """What one command left: exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


def run(*words: object) -> Outcome:
    """The command in this process: starting another costs seconds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Command:
    """Run the command in this process."""
    return run


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``dfmeta_test_teacher.py`` and ``weights.safetensors``, on the path."""
    folder = tmp_path_factory.mktemp("publisher")
    (folder / "dfmeta_test_teacher.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import dfmeta_test_teacher  # type: ignore[import-not-found]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = train(dfmeta_test_teacher.teacher())
    save_file(network.state_dict(), folder / "weights.safetensors")
    yield folder
    sys.path.remove(str(folder))


def train(network: nn.Module) -> nn.Module:
    """Twenty passes over the training digits: about 97 % on the others, in a second or two."""
    batch = next(open_data("digits:train").batches(2000))
    images, labels = torch.tensor(batch.inputs["x"])[:, None].float() / 255, torch.tensor(batch.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(20):
        for chosen in torch.randperm(len(images)).split(128):
            loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def recorded(publisher: Path) -> Outcome:
    """What ``record`` printed for the bundle of :func:`release`."""
    weights = publisher / "weights.safetensors"
    model = ("--model", "dfmeta_test_teacher:teacher", "--weights", weights)
    about = ("--name", "digits teacher", "--license", "MIT", "--dataset-name", "digits of a test")
    return run("record", *model, *about, "--data", "digits:train", *SCALE, "--out", publisher / "release", "--json")


@pytest.fixture(scope="session")
def release(publisher: Path, recorded: Outcome) -> Path:
    """The bundle. Do not change it: take :func:`spoiled`."""
    assert recorded.code == 0, recorded.err
    return publisher / "release"


@pytest.fixture(scope="session")
def calibrated(publisher: Path) -> Path:
    """A bundle of the same model with what a compressor reads. Do not change it: take a copy."""
    out = publisher / "calibrated"
    model = ("--model", "dfmeta_test_teacher:teacher", "--weights", publisher / "weights.safetensors")
    about = ("--name", "digits teacher", "--license", "MIT", "--preset", "calibration")
    found = run("record", *model, *about, "--data", "digits:train", *SCALE, "--out", out)
    assert found.code == 0, found.err
    return out


@pytest.fixture
def spoiled(release: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(release, tmp_path / "spoiled"))


@pytest.fixture(scope="session")
def distilled(release: Path, publisher: Path) -> Outcome:
    """What ``distill`` printed for the student of :func:`student`."""
    made = ("--method", "matched-generator", "--set", "iterations=30", "--set", "batch=100")
    few = ("--student", "tiny8", "--steps", "60", "--batch", "64")
    out = publisher / "student.onnx"
    return run("distill", release, *few, *made, "--out", out, "--json")


@pytest.fixture(scope="session")
def student(publisher: Path, distilled: Outcome) -> Path:
    """The student's file."""
    assert distilled.code == 0, distilled.err
    return publisher / "student.onnx"
