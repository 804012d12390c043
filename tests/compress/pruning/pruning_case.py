"""Graphs to prune and a slow reference that reads the data itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import helper

from dfmeta.compress.prune import Result
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]
NO_RECORDS = PublishedRecords(())
PADDED = {"pads": [1] * 4}


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(seed: int, *shape: int) -> np.ndarray:
    """Maps whose neighbours resemble each other, about means that are not 0; of one distribution for all seeds."""
    x = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(2, len(shape)):
        x = x + 0.7 * np.roll(x, 1, axis)
    means = np.random.default_rng(0).standard_normal((1, shape[1], *[1] * (len(shape) - 2)))
    found: np.ndarray = (x + means).astype(np.float32)
    return found


def output(graph: Graph, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = OrtGraph(graph, threads=1).run({"x": x})[graph.outputs[0].name]
    return found


def error(found: Graph, graph: Graph, x: np.ndarray) -> float:
    """Of the outputs, as a share of their variance."""
    expected = output(graph, x)
    return float(np.square(output(found, x) - expected).mean() / expected.var(0).mean())


def by_group(result: Result) -> dict[str, int]:
    return {group.id: group.kept for group in result.groups}


# A convolution with BatchNormalization and ReLU, one that reads it, and a classifier.
CONSTANTS = {
    "first": numbers(0, 8, 3, 3, 3) / 4,
    "scale": numbers(1, 8) / 4 + 1,
    "offset": numbers(2, 8) / 2,
    "mean": numbers(3, 8) / 4,
    "var": np.square(numbers(4, 8)) + 0.5,
    "second": numbers(5, 6, 8, 3, 3) / 6,
    "head": numbers(6, 6, 4),
}


def patches(graph: Graph, images: np.ndarray, value: str = "c") -> np.ndarray:
    """``[rows, channels * 9]`` float64: what the second convolution multiplies, straight from the data."""
    maps = torch.from_numpy(OrtGraph(graph, (value,), threads=1).run({"x": images})[value].astype(np.float64))
    found: np.ndarray = torch.nn.functional.unfold(maps, 3, padding=1).movedim(1, 2).flatten(0, 1).numpy()
    return found


def fitted(x: np.ndarray, weight: np.ndarray, kept: list[int], damping: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Weight, change of the constant and error of the best affine map of ``x[:, kept]``, with the ridge of the step.

    The ridge pulls each column that stays to itself: so it is a penalty on the *change* of the map, centred inputs in.
    """
    centred = x - x.mean(0)
    ridge = damping * centred.var(0).mean()
    gone = [feature for feature in range(x.shape[1]) if feature not in kept]
    inner = centred[:, kept].T @ centred[:, kept] / len(x) + ridge * np.eye(len(kept))
    change = np.linalg.solve(inner, centred[:, kept].T @ (centred[:, gone] @ weight[:, gone].T) / len(x)).T
    new = weight[:, kept] + change
    left = centred @ weight.T - centred[:, kept] @ new.T
    penalised = np.square(left).sum(1).mean() + ridge * (np.square(change).sum() + np.square(weight[:, gone]).sum())
    return new, weight @ x.mean(0) - new @ x.mean(0)[kept], float(penalised)


def features_of(channels: Sequence[int]) -> list[int]:
    return [channel * 9 + tap for channel in sorted(channels) for tap in range(9)]


def chain(build_graph: Build, middle: Sequence[Any], constants: Mapping[str, np.ndarray], wide: int) -> Graph:
    """Convolutions to 8 channels, something in the middle to ``wide`` ones, and a classifier."""
    nodes = [
        make("Conv", ["x", "first", "bias"], ["a"], "one", **PADDED),
        make("Relu", ["a"], ["b"]),
        *middle,
        make("ReduceMean", ["z"], ["f"], axes=[2, 3], keepdims=0),
        make("MatMul", ["f", "head"], ["y"], "head"),
    ]
    given = {"first": numbers(0, 8, 3, 3, 3) / 4, "bias": numbers(1, 8) / 4, "head": numbers(2, wide, 4), **constants}
    return build_graph(nodes, {"x": ["n", 3, 6, 6]}, {"y": ["n", 4]}, given, 17)


MIDDLES: dict[str, tuple[list[Any], dict[str, np.ndarray], int, dict[str, int]]] = {
    "depthwise": (
        [make("Conv", ["b", "d"], ["c"], "deep", group=8, **PADDED), make("Conv", ["c", "p"], ["z"], "point")],
        {"d": numbers(3, 8, 1, 3, 3), "p": numbers(4, 6, 8, 1, 1)},
        6,
        {"first": 4, "p": 3, "head": 4},
    ),
    "grouped": (
        [make("Conv", ["b", "g"], ["z"], "grouped", group=2, **PADDED)],
        {"g": numbers(3, 6, 4, 3, 3)},
        6,
        {"first": 2, "g": 2, "head": 4},
    ),
    "transposed": (
        [make("ConvTranspose", ["b", "t"], ["z"], "turned", strides=[2, 2])],
        {"t": numbers(3, 8, 6, 3, 3)},
        6,
        {"first": 4, "t": 3, "head": 4},
    ),
}  # fmt: skip


def residual(build_graph: Build) -> Graph:
    middle = [
        make("Conv", ["b", "in", "inb"], ["i"], "inner", **PADDED),
        make("Relu", ["i"], ["j"]),
        make("Conv", ["j", "out"], ["k"], "outer", **PADDED),
        make("Add", ["k", "b"], ["l"]),
        make("Relu", ["l"], ["m"]),
        make("Conv", ["m", "left"], ["n1"], "left"),
        make("Conv", ["m", "right"], ["n2"], "right"),
        make("Concat", ["n1", "n2"], ["z"], axis=1),
    ]
    constants = {"in": numbers(3, 6, 8, 3, 3) / 5, "inb": numbers(4, 6), "out": numbers(5, 8, 6, 3, 3) / 5}
    constants |= {"left": numbers(6, 4, 8, 1, 1), "right": numbers(7, 6, 8, 1, 1)}
    return chain(build_graph, middle, constants, 10)
