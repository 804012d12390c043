"""What goes into a model: its inputs as the manifest describes them, and the range they can take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dfmeta.bundle import Bundle
from dfmeta.data import input_bounds
from dfmeta.errors import StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.records import PublishedRecords
from dfmeta.schema import v1
from dfmeta.synthesis import Task

IMAGE_AXES = ["batch", "channel", "height", "width"]


def graph_inputs(graph: Graph, preprocessing: Sequence[v1.Op] = ()) -> list[v1.Input]:
    """The graph's inputs as manifest entries; image inputs carry the preprocessing."""
    return [
        v1.Input(
            name=value.name,
            dtype=value.dtype,
            shape=["batch", *value.shape[1:]],
            axes=IMAGE_AXES if len(value.shape) == 4 else None,
            modality="image" if len(value.shape) == 4 or preprocessing else None,
            preprocessing=list(preprocessing),
        )
        for value in graph.inputs
    ]


def input_range(entry: v1.Input) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value that preprocessed data can have, broadcastable to one unit.

    Infinite where the manifest does not say that stored images, which have 256 levels, are what goes in.
    """
    if entry.modality != "image" or not entry.preprocessing:
        return np.asarray(-np.inf, np.float32), np.asarray(np.inf, np.float32)
    sizes = [int(size) for size in entry.shape[1:]]
    channels = sizes[0] if len(sizes) == 3 else 1
    stored = 3 if any(isinstance(op, v1.Grayscale) for op in entry.preprocessing) else channels
    low, high = input_bounds(entry.preprocessing, stored)
    shape = (channels, 1, 1) if len(sizes) == 3 else (1,) * len(sizes)
    return low.reshape(shape), high.reshape(shape)


def make_task(bundle: Bundle, graph: Graph, seed: int) -> Task:
    """Everything a synthesis method may use, from nothing but a bundle.

    Raises:
        StepError: a model with several inputs, or without a fixed number of classes.
    """
    inputs, output = bundle.manifest.model.inputs, graph.outputs[0]
    if len(inputs) != 1 or "float" not in inputs[0].dtype:
        found = ", ".join(f"{entry.name} ({entry.dtype})" for entry in inputs)
        raise StepError("model inputs", found, "one floating-point input", "Other models cannot be synthesised yet.")
    if len(output.shape) != 2 or not isinstance(output.shape[1], int):
        raise StepError(f"output {output.name!r}", f"shape {list(output.shape)}", "[batch, classes]")
    entry = inputs[0]
    low, high = input_range(entry)
    return Task(
        teacher=TorchGraph(graph).eval(),
        records=PublishedRecords.read(bundle),
        input_name=entry.name,
        item_shape=tuple(int(size) for size in entry.shape[1:]),
        low=torch.from_numpy(low),
        high=torch.from_numpy(high),
        output_name=output.name,
        classes=output.shape[1],
        generator=torch.Generator().manual_seed(seed),
    )
