"""The teachers of `seeds.py`: what they are, where their data is, and how those that nobody publishes are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta import students
from dfmeta.bundle import write_file
from dfmeta.compress.augment import augmented
from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline.inputs import IMAGE_AXES
from dfmeta.schema import v1

REPOSITORY = Path(__file__).resolve().parents[2]
CIFAR_MEAN, CIFAR_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Teacher:
    """One teacher.

    Attributes:
        data: file below the data folder; ``:train`` is recorded, ``:test`` gives the figures.
        other: the alternative data set, where the papers have one.
        file: an ONNX file, below ``root``; None for a network that is trained here.
        network: the student of the catalogue whose architecture is trained.
        epochs: how long.
        shift: how far images are moved in training, as a share of their size.
        flip: whether they are mirrored too.
    """

    data: str
    other: str | None
    preprocessing: tuple[v1.Op, ...]
    shape: tuple[int, int, int]
    file: Callable[[Path], Path] | None = None
    network: str = ""
    epochs: int = 0
    shift: float = 0.03
    flip: bool = False


_MNIST: dict[str, Any] = {
    "data": "data/mnist.npz",
    "other": "data/usps.npz",
    "preprocessing": tuple(from_flags(scale=1 / 255, pad=2)),
    "shape": (1, 32, 32),
}
_CIFAR: dict[str, Any] = {
    "data": "data/cifar10-jpeg.zip",
    "other": None,
    "preprocessing": tuple(from_flags(scale=1 / 255, mean=CIFAR_MEAN, std=CIFAR_STD)),
    "shape": (3, 32, 32),
    "shift": 0.125,
    "flip": True,
}
TEACHERS: Mapping[str, Teacher] = {
    "lenet5": Teacher(**_MNIST, file=lambda _: REPOSITORY / "examples" / "lenet5-mnist.onnx"),
    "hinton-1200": Teacher(**_MNIST, network="hinton-1200", epochs=20),
    "alexnet": Teacher(**_CIFAR, network="alexnet", epochs=20),
    "resnet20": Teacher(**_CIFAR, file=lambda shared: shared / "models" / "resnet20-cifar10.onnx"),
    "resnet34": Teacher(**_CIFAR, network="resnet34", epochs=60),
}


def graph_of(name: str, shared: Path, folder: Path, device: str) -> Graph:
    """The teacher's graph; trained on the first call and kept in ``folder`` from then on."""
    teacher = TEACHERS[name]
    if teacher.file is not None:
        return Graph.from_file(teacher.file(shared))
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, _trained(name, teacher, shared, device).raw)
    return Graph.from_file(path)


def images_of(teacher: Teacher, shared: Path, split: str) -> tuple[Tensor, Tensor]:
    """``[n, c, h, w]`` preprocessed images and ``[n]`` labels of a split, all in memory."""
    entry = v1.Input(
        name="input",
        dtype="float32",
        shape=["batch", *teacher.shape],
        axes=list(IMAGE_AXES),
        modality="image",
        preprocessing=list(teacher.preprocessing),
    )
    source = open_data(f"{shared / teacher.data}:{split}")
    inputs = np.concatenate([batch.inputs["input"] for batch in feed(source, [entry], 1024)])
    assert source.labels is not None  # noqa: S101 - these sets have labels
    return torch.from_numpy(inputs), torch.from_numpy(source.labels)


def _trained(name: str, teacher: Teacher, shared: Path, device: str) -> Graph:
    images, labels = images_of(teacher, shared, "train")
    network = students.build(teacher.network, teacher.shape, 10, seed=0).to(device)
    _fit(network, images, labels, teacher, name)
    return export_module(
        network.cpu().eval(),
        (images[:1],),
        input_names=["image"],
        output_names=["logits"],
        dynamic_batch=True,
        keep_batchnorm=True,
    )


def _fit(network: nn.Module, images: Tensor, labels: Tensor, teacher: Teacher, name: str) -> None:
    """Adam, one cycle to 2e-3, cross-entropy."""
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    steps = teacher.epochs * -(-len(images) // 256)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps + 1)
    network.train()
    started = time.monotonic()
    for epoch in range(teacher.epochs):
        for rows in torch.split(torch.randperm(len(images), generator=generator), 256):
            batch = augmented(images[rows].to(device), teacher.shift, teacher.flip, generator)
            loss = F.cross_entropy(network(batch), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        print(
            f"{name}: epoch {epoch + 1} of {teacher.epochs}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s"
        )
