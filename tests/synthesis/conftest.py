"""What a method is given: the digits' bundle, and one of a perceptron whose input is no image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import graph_inputs, make_task, publish
from dfmeta.pipeline.release import Release
from dfmeta.records import Recorder, make_plan
from dfmeta.synthesis import Task

MakeTask = Callable[[int], Task]


PRESETS = ("top-layer", "all-layers", "spectral", "spectral-pairs", "calibration")


@pytest.fixture(scope="session")
def image_task(digits, digits_teacher: Graph, tmp_path_factory: pytest.TempPathFactory) -> MakeTask:
    """Seed to task: ``[1, 8, 8]`` images in 0..1, with the records of every preset."""
    out = tmp_path_factory.mktemp("images") / "bundle"
    images, labels = digits
    with Recorder(digits_teacher, make_plan(digits_teacher, PRESETS), classes=10, threads=1) as recorder:
        recorder.update(images.numpy(), labels.numpy())
    entry = graph_inputs(digits_teacher, from_flags(1 / 255))
    publish(out, digits_teacher, recorder.finish(), inputs=entry, release=Release(), classes=10)
    bundle = Bundle.open(out)
    return lambda seed: make_task(bundle, digits_teacher, seed)


@pytest.fixture(scope="session")
def vector_task(digits, tmp_path_factory: pytest.TempPathFactory) -> MakeTask:
    """Seed to task: vectors of 64 numbers, of which nothing says how large they may be."""
    images, labels = digits
    vectors = images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    names = {"input_names": ["x"], "output_names": ["y"]}
    graph = export_module(network.eval(), (vectors[:1],), **names, dynamic_batch=True, keep_batchnorm=True)
    with Recorder(graph, make_plan(graph, PRESETS), classes=10, threads=1) as recorder:
        recorder.update(vectors.numpy(), labels.numpy())
    out = tmp_path_factory.mktemp("vectors") / "bundle"
    publish(out, graph, recorder.finish(), inputs=graph_inputs(graph), release=Release(), classes=10)
    bundle = Bundle.open(out)
    return lambda seed: make_task(bundle, graph, seed)


@pytest.fixture(params=["image", "vector"])
def task(request: pytest.FixtureRequest) -> MakeTask:
    """Both, one after the other."""
    made: MakeTask = request.getfixturevalue(f"{request.param}_task")
    return made
