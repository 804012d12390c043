"""The networks of `closed_form.py`: their graphs, their data, and the bundles that are recorded of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.capi import onnxruntime_pybind11_state as state
from torch import Tensor, nn

from dfmeta.bundle import Bundle, write_file
from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import Gathering, graph_inputs
from dfmeta.pipeline.recording import record_with
from dfmeta.pipeline.release import Publishing
from dfmeta.records import PublishedRecords
from dfmeta.schema import v1

REPOSITORY = Path(__file__).resolve().parents[2]
# Images that are recorded, noise that is recorded in their place, and images that peers calibrate with.
RECORDED, NOISE, CALIBRATION = 5000, 2000, 500
EPOCHS = 4


class Transformer(nn.Module):
    """Two blocks of a vision transformer (Dosovitskiy et al., 2021) on 16 patches of 7 x 7 pixels; 104 k parameters."""

    def __init__(self, width: int = 64, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, 1, 28, 28]`` to ``[n, 10]`` logits."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        q, k, v = (each(y).reshape(-1, 16, self.heads, 16).transpose(1, 2) for each in (self.q, self.k, self.v))
        weights = (q @ k.transpose(2, 3) / 4).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, 16, 64))
        found: Tensor = x + self.down(F.relu(self.up(self.second(x))))
        return found


@dataclass(frozen=True)
class Network:
    """A network and its data.

    Attributes:
        name: in tables.
        data: below the data folder.
        preprocessing: of its images.
        graph: reads it, or trains it, given the network, the data folder and one of this benchmark.
        tuning: settings of fine-tuning; natural images are moved further than digits, and mirrored.
        shared: the data folder.
        folder: of this benchmark and this network.
    """

    name: str
    data: str
    preprocessing: tuple[v1.Op, ...]
    make: Callable[[Network], Graph]
    tuning: Mapping[str, Any] = field(default_factory=dict)
    shared: Path = Path()
    folder: Path = Path()

    @cached_property
    def graph(self) -> Graph:
        """The float graph."""
        return self.make(self)

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """All test images, preprocessed, and their labels."""
        return self.images("test", None)

    def images(self, split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Preprocessed images and labels, those that a recording of as many takes."""
        source = open_data(f"{self.shared / self.data}:{split}", limit=limit, seed=0)
        [entry] = graph_inputs(self.graph, self.preprocessing)
        inputs = [batch.inputs[entry.name] for batch in feed(source, [entry], 500)]
        assert source.labels is not None  # noqa: S101 - these sets have labels
        return np.concatenate(inputs), np.asarray(source.labels)

    def records(self, source: str) -> PublishedRecords:
        """Recorded once.

        Args:
            source: ``full``; ``toeplitz`` (int8 correlations); ``noise``, of standard normal inputs; ``synthetic`` and
                ``synthetic toeplitz``, these forms with what inputs are made from; or ``compact``, ``toeplitz`` with as
                much of that as a sidecar of the model's own size has room for.
        """
        return PublishedRecords.read(Bundle.open(self.bundle(source)))

    def bundle(self, source: str) -> Path:
        """The bundle of :meth:`records`."""
        out = self.folder / source
        if out.exists():
            return out
        self.folder.mkdir(parents=True, exist_ok=True)
        how: dict[str, Any] = {
            "presets": ("calibration",),
            "preprocessing": self.preprocessing,
            "form": "full",
            "by_class": False,
        }
        data, limit = f"{self.shared / self.data}:train", RECORDED
        if source == "noise":
            shape = [size for size in self.graph.inputs[0].shape if isinstance(size, int)]
            noise = np.random.default_rng(0).standard_normal((NOISE, *shape)).astype(np.float32)
            np.savez(self.folder / "noise.npz", x=noise)
            data, limit, how["preprocessing"] = str(self.folder / "noise.npz"), NOISE, ()
        spectrum = f"spectral@{self.graph.inputs[0].name}"
        if source.startswith("synthetic"):
            how |= {"presets": ("all-layers", spectrum, "calibration"), "by_class": True, "rank": 64}
        if source == "compact":
            how |= {"presets": (spectrum, "calibration"), "by_class": True, "budget_bytes": len(self.graph.raw)}
        if source in ("toeplitz", "synthetic toeplitz", "compact"):
            how |= {"form": "toeplitz", "storage": "int8"}
        record_with(self.graph, data, out, Gathering(limit=limit, seed=0, **how), Publishing())
        return out

    def accuracy(self, graph: Graph | bytes) -> float:
        """On all test images, in percent, with onnxruntime on one thread.

        Args:
            graph: ours, or the bytes of a peer's, which may hold onnxruntime's own operators.

        Raises:
            RuntimeError: onnxruntime does not run it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        raw = graph if isinstance(graph, bytes) else graph.raw
        try:
            session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except (state.InvalidGraph, state.NotImplemented, state.Fail) as error:
            raise RuntimeError(str(error)) from error
        images, labels = self.test
        right, fixed = 0, session.get_inputs()[0].shape[0]
        size = fixed if isinstance(fixed, int) else 500
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            [logits, *_] = session.run(None, {session.get_inputs()[0].name: images[part]})
            right += int((logits.argmax(1) == labels[part]).sum())
        return 100 * right / len(labels)


def _from_file(path: str, *, ours: bool) -> Callable[[Network], Graph]:
    return lambda network: Graph.from_file((REPOSITORY if ours else network.shared) / path)


def _transformer(network: Network) -> Graph:
    path = network.folder / "model.onnx"
    if not path.exists():
        network.folder.mkdir(parents=True, exist_ok=True)
        write_file(path, _trained(network.shared / network.data).raw)
    return Graph.from_file(path)


def _trained(data: Path) -> Graph:
    """Adam with one cycle, cross-entropy, on all training images, moved by up to two pixels."""
    with np.load(data) as file:
        images, labels = torch.from_numpy(file["x_train"])[:, None].float() / 255, torch.from_numpy(file["y_train"])
    torch.manual_seed(0)
    network, batch = Transformer(), 128
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = EPOCHS * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps + 1)
    started = time.monotonic()
    for epoch in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(images)), batch):
            down, right = torch.randint(-2, 3, (2,)).tolist()
            given = images[rows].roll((down, right), (2, 3))
            loss = F.cross_entropy(network(given), labels[rows].long())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        print(f"transformer: epoch {epoch + 1} of {EPOCHS}, {loss.item():.3f}, {time.monotonic() - started:.0f} s")
    names: Mapping[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    return export_module(network.eval(), (images[:2],), **names, dynamic_batch=True, keep_batchnorm=True)


def networks(shared: Path, folder: Path) -> dict[str, Network]:
    """All of them, by name."""
    cifar = tuple(from_flags(scale=1 / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    lenet5, resnet20 = "examples/lenet5-mnist.onnx", "models/resnet20-cifar10.onnx"
    found = (
        Network(
            "resnet20",
            "data/cifar10-jpeg.zip",
            cifar,
            _from_file(resnet20, ours=False),
            {"shift": 0.125, "flip": True},
            shared,
            folder / "resnet20",
        ),
        Network(
            "lenet5",
            "data/mnist.npz",
            tuple(from_flags(scale=1 / 255, pad=2)),
            _from_file(lenet5, ours=True),
            {},
            shared,
            folder / "lenet5",
        ),
        Network(
            "transformer",
            "data/mnist.npz",
            tuple(from_flags(scale=1 / 255)),
            _transformer,
            {},
            shared,
            folder / "transformer",
        ),
    )
    return {network.name: network for network in found}
