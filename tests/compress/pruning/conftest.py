"""A small network, images and records of them, for every test of pruning."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dfmeta.graph import Graph
from dfmeta.records import PublishedRecords

# What the tests share is a module beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from pruning_case import CONSTANTS, PADDED, Build, Records, make, smooth


@pytest.fixture(scope="module")
def network(build_graph: Build) -> Graph:
    nodes = [
        make("Conv", ["x", "first"], ["a"], "one", **PADDED),
        make("BatchNormalization", ["a", "scale", "offset", "mean", "var"], ["b"], "norm"),
        make("Relu", ["b"], ["c"]),
        make("Conv", ["c", "second"], ["d"], "two", **PADDED),
        make("Relu", ["d"], ["e"]),
        make("ReduceMean", ["e"], ["f"], axes=[2, 3], keepdims=0),
        make("MatMul", ["f", "head"], ["y"], "three"),
    ]
    return build_graph(nodes, {"x": ["n", 3, 6, 6]}, {"y": ["n", 4]}, CONSTANTS, 17)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return smooth(7, 40, 3, 6, 6)


@pytest.fixture(scope="module")
def records(network: Graph, images: np.ndarray, records_of_graph: Records) -> PublishedRecords:
    return records_of_graph(network, {"x": images})
