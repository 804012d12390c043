"""Train a LeNet-5 on MNIST and export it with its names and values intact: the teacher of the README's figures.

    python examples/train_lenet5_mnist.py --data mnist.npz --out lenet5-mnist.onnx

`mnist.npz` holds `x_train`, `y_train`, `x_test`, `y_test` as uint8 images and integer labels.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.bundle import write_file
from dfmeta.compress.augment import shift
from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph.export_torch import export_module
from dfmeta.schema import v1

PREPROCESSING = from_flags(scale=1 / 255, pad=2)
INPUT = v1.Input(
    name="input", dtype="float32", shape=["batch", 1, 32, 32], modality="image", preprocessing=PREPROCESSING
)


def load(data: str) -> tuple[Tensor, Tensor]:
    """All preprocessed images ``[n, 1, 32, 32]`` and labels ``[n]`` of a split."""
    batches = list(feed(open_data(data), [INPUT], 4096))
    images = np.concatenate([batch.inputs["input"] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    return torch.from_numpy(images), torch.from_numpy(labels)


def lenet5() -> nn.Module:
    """LeNet-5 with ReLU and max pooling, 61,706 parameters, weights as torch draws them.

    These are small at first, so that the trained filters are mostly what the digits taught them: 27 % of the energy of
    the convolutions lies at high spatial frequencies (above 0.3 cycles a pixel), where the larger weights of He et
    al. (2015) leave 45 %, as a rest of their initial noise. Both name over 99 % of the digits right.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            out=nn.Linear(84, 10),
        )
    )


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Adam with a one-cycle schedule; images are moved by up to one pixel."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = lenet5()
    batches = -(-len(images) // 256)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * batches + 1)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(256):
            loss = F.cross_entropy(model(shift(images[rows], 0.03, generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.4f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="mnist.npz")
    parser.add_argument("--out", required=True, type=Path, help="ONNX file to write")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images, labels = load(f"{options.data}:train")
    model = train(images, labels, options.epochs, options.seed)
    test_images, test_labels = load(f"{options.data}:test")
    with torch.no_grad():
        accuracy = (model(test_images).argmax(1) == test_labels).float().mean().item()
    print(f"test accuracy {100 * accuracy:.2f} %")
    graph = export_module(
        model,
        (images[:1],),
        input_names=["input"],
        output_names=["logits"],
        dynamic_batch=True,
        keep_batchnorm=True,
    )
    write_file(options.out, graph.raw)


if __name__ == "__main__":
    main()
