"""Two trained networks with their records and their data, for every test of the claim."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmeta.data import from_flags, open_data
from dfmeta.graph import Graph
from dfmeta.pipeline import Gathering

# The references and what compares with them are modules beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from claim_case import Case, made

IMAGES = 500


@pytest.fixture(scope="session")
def digits_case(digits_teacher: Graph, digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    how = Gathering(presets=("calibration",), preprocessing=from_flags(1 / 255), form="full")
    test = next(open_data("digits:test").batches(1000))
    held_out = test.inputs["x"][:, None].astype(np.float32) / 255, test.labels
    out = tmp_path_factory.mktemp("digits-claim")
    return made(digits_teacher, "digits:train", how, digits[0].numpy(), held_out, out)


@pytest.fixture(scope="session")
def mnist_case(shared: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    out = tmp_path_factory.mktemp("mnist-claim")
    with np.load(shared / "data" / "mnist.npz") as file:
        x, y, test, labels = file["x_train"][:IMAGES], file["y_train"][:IMAGES], file["x_test"], file["y_test"]
    np.savez(out / "some.npz", x_train=x, y_train=y)
    how = Gathering(presets=("calibration",), preprocessing=from_flags(1 / 255, pad=2), form="full", batch_size=100)
    images, others = (padded(each) for each in (x, test[:2000]))
    graph = Graph.from_file(repository / "examples" / "lenet5-mnist.onnx")
    return made(graph, f"{out / 'some.npz'}:train", how, images, (others, labels[:2000]), out)


def padded(images: np.ndarray) -> np.ndarray:
    whole = np.pad(images.astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2)))
    return whole[:, None]


@pytest.fixture(scope="session", params=["digits", "mnist"])
def case(request: pytest.FixtureRequest) -> Case:
    """Either of them."""
    found: Case = request.getfixturevalue(f"{request.param}_case")
    return found
