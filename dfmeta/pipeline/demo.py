"""The whole way on real handwritten digits: teacher, records, bundle, and a student made from the bundle alone."""

from __future__ import annotations

import importlib.util
import os.path
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.compress.augment import shift
from dfmeta.data import feed, from_flags, open_data
from dfmeta.errors import MissingExtra, OutputExists, StepError
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline.check import validate
from dfmeta.pipeline.evaluation import evaluate
from dfmeta.pipeline.recording import record
from dfmeta.pipeline.release import Release
from dfmeta.report import ModelRow, save_digits_picture
from dfmeta.schema import v1

Progress = Callable[[str, int, int, float], None]
TRAIN, TEST = "digits:train", "digits:test"
STUDENT = "tiny8"
SYNTHETIC = "synthetic-digits.safetensors"
PRESETS = ("top-layer", "all-layers", "spectral")
_PROGRESS_LINE = re.compile(r"^([a-z]+): (\d+) of (\d+)(?:, loss (\S+))?$")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made and measured.

    Attributes:
        rows: teacher; student from the bundle, from noise, and from the real data.
        bundle, student, picture: where they are.
        seconds: how long all of it took.
    """

    rows: tuple[ModelRow, ...]
    bundle: Path
    student: Path
    picture: Path
    seconds: float


def run_demo(out: Path, *, seed: int = 0, progress: Progress | None = None, quick: bool = False) -> DemoResult:
    """Run the demo.

    Args:
        out: folder to make.
        seed: of everything.
        progress: called with stage, steps done, steps in all, and loss.
        quick: few steps, to show the way without its figures.

    Raises:
        OutputExists: ``out`` is taken.
        MissingExtra: scikit-learn or matplotlib is not installed.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    for package in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "demo", "the demo")
    started = time.monotonic()
    report = progress or (lambda stage, done, total, loss: None)
    ops = from_flags(scale=1 / 255)
    images, labels = _digits(ops)
    teacher = _train(images, labels, 3 if quick else 30, seed, report)
    out.mkdir(parents=True)
    bundle = out / "bundle"
    release = Release(
        name="digits-cnn",
        dataset="scikit-learn digits",
        title="Handwritten digits, 8x8",
        contains_personal_data="no",
    )
    record(
        teacher,
        TRAIN,
        bundle,
        presets=PRESETS,
        preprocessing=ops,
        release=release,
        seed=seed,
        progress=report,
    )
    checked = validate(bundle)
    if not checked.valid:
        raise StepError(str(bundle), "; ".join(map(str, checked.problems)), "a valid bundle")
    students = _students(out, bundle, seed, quick, report)
    rows = _rows(bundle, students)
    picture = _picture(out, images, labels)
    return DemoResult(rows, bundle, students["student from the bundle"], picture, time.monotonic() - started)


def _digits(ops: Sequence[v1.Op]) -> tuple[Tensor, Tensor]:
    entry = v1.Input(name="image", dtype="float32", shape=["batch", 1, 8, 8], modality="image", preprocessing=list(ops))
    (batch,) = feed(open_data(TRAIN), [entry], 10_000)
    assert batch.labels is not None  # noqa: S101 - digits have labels
    return torch.from_numpy(batch.inputs["image"]), torch.from_numpy(batch.labels)


def teacher_network(seed: int) -> nn.Module:
    """A small CNN with BatchNorm for ``[n, 1, 8, 8]``, ten classes, 37,410 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(192, 80),
            nn.ReLU(),
            nn.Linear(80, 10),
        )


def _train(images: Tensor, labels: Tensor, epochs: int, seed: int, report: Progress) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    network = teacher_network(seed)
    steps = epochs * -(-len(images) // 64)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps + 1)
    done = 0
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(images), generator=generator), 64):
            logits = network(shift(images[rows], 0.125, generator))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done += 1
            report("train teacher", done, steps, float(loss.detach()))
    return export_module(
        network.eval(),
        (images[:1],),
        input_names=["image"],
        output_names=["logits"],
        dynamic_batch=True,
        keep_batchnorm=True,
    )


def _students(out: Path, bundle: Path, seed: int, quick: bool, report: Progress) -> dict[str, Path]:
    """Each student comes out of a process that is told of nothing but the bundle; the last also of the real data."""
    common = ["--seed", str(seed), "--json"]
    synthetic = out / SYNTHETIC
    made = ["--out", str(synthetic), "--count", "1000" if quick else "20000"]
    _run("synthetic digits", ["reconstruct", str(bundle), *made, *common], report)
    students = {}
    for name, file, source in (
        ("student from the bundle", "student.onnx", ["--data", str(synthetic)]),
        ("same student from noise", "student-noise.onnx", ["--method", "noise"]),
        ("same student from real data", "student-real.onnx", ["--data", TRAIN]),
    ):
        students[name] = out / file
        words = ["--student", STUDENT, "--steps", "100" if quick else "3000", "--batch", "128", *source]
        _run(name, ["distill", str(bundle), "--out", str(students[name]), *words, *common], report)
    return students


def _run(name: str, words: list[str], report: Progress) -> None:
    """Run one command of ours in a process of its own and pass its progress on."""
    command = [sys.executable, "-m", "dfmeta", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
    assert process.stderr is not None  # noqa: S101 - asked for
    said = []
    try:
        for line in process.stderr:
            match = _PROGRESS_LINE.match(line.strip())
            if match is None:
                said.append(line.strip())
                continue
            stage, done, total, loss = match.groups()
            report(f"{name}: {stage}", int(done), int(total), float(loss or 0))
        answer, _ = process.communicate()
    finally:
        # Whatever ends this ends the step too; it is told, so that it leaves nothing half-written.
        process.terminate()
        process.wait()
    if process.returncode:
        raise StepError(name, f"exit code {process.returncode}: {' '.join(said) or answer.strip()}", "exit code 0")


def _rows(bundle: Path, students: dict[str, Path]) -> tuple[ModelRow, ...]:
    found = {name: evaluate(path, TEST, bundle=bundle) for name, path in students.items()}
    first = next(iter(found.values()))
    assert first.teacher_accuracy is not None and first.teacher_costs is not None  # noqa: S101, PT018
    rows = [ModelRow.of("teacher", first.teacher_costs, first.teacher_accuracy)]
    rows += [ModelRow.of(name, one.costs, one.accuracy, one.agreement) for name, one in found.items()]
    return tuple(rows)


def _picture(out: Path, images: Tensor, labels: Tensor) -> Path:
    (made,) = open_data(str(out / SYNTHETIC)).batches(100_000)
    assert made.labels is not None  # noqa: S101 - reconstruct writes them
    means = np.stack([images[labels == digit].mean(0).numpy() for digit in range(10)])
    return save_digits_picture(out / "synthetic-digits.png", made.inputs["x"], made.labels, means)
