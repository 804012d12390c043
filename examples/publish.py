"""The publisher's side: train a small network on the digits, record what they do to it, release that.

    python examples/publish.py --out release

Nothing in the folder it writes is an image, and nothing there is about fewer than ten images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import dfmeta
from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph import export_module
from dfmeta.schema import v1

# What turns a stored image into the model's input. It is published, and everyone applies it from then on.
PREPROCESSING = from_flags(scale=1 / 255)
INPUT = v1.Input(name="image", dtype="float32", shape=["batch", 1, 8, 8], modality="image", preprocessing=PREPROCESSING)


def network() -> nn.Module:
    """Two convolutions with BatchNorm and one dense layer: 5,394 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 28, 3, padding=1, bias=False),
        nn.BatchNorm2d(28),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(112, 10),
    )


def train(seed: int, epochs: int) -> dfmeta.Graph:
    """Train on the real digits and export, with BatchNorm kept: what is recorded is what ships."""
    (batch,) = feed(open_data("digits:train"), [INPUT], 10_000)
    images, labels = torch.from_numpy(batch.inputs["image"]), torch.from_numpy(batch.labels)
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(128):
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return export_module(
        model.eval(),
        (images[:1],),
        input_names=["image"],
        output_names=["logits"],
        dynamic_batch=True,
        keep_batchnorm=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    graph = train(options.seed, options.epochs)
    release = dfmeta.record(graph, "digits:train", options.out, preprocessing=PREPROCESSING)
    report = dfmeta.validate(release.path)
    found = dfmeta.evaluate(release.path / "model.onnx", "digits:test", bundle=release.path)
    print(f"{release.path}: {release.records} records at {release.sites} sites, valid: {report.valid}")
    print(f"teacher: {found.accuracy:.1f} % of {found.count} digits that it has not seen")
    print(f"identity: {release.identity}")


if __name__ == "__main__":
    main()
