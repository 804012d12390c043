"""What goes into a model: its inputs as the manifest describes them, and the range they can take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dfmeta.bundle import Bundle
from dfmeta.data import input_bounds
from dfmeta.errors import GraphError, StepError
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


def class_count(graph: Graph) -> int:
    """The number of classes: the last axis of the graph's first output, ``[batch, classes]``.

    Raises:
        GraphError: the output is not that of a classifier.
    """
    output = graph.outputs[0]
    size = output.shape[1] if len(output.shape) == 2 else None
    if not isinstance(size, int):
        raise GraphError(
            f"output {output.name!r}",
            f"shape {list(output.shape)}",
            "[batch, classes], with a fixed number of classes",
            "Only classifiers can be evaluated or synthesised; others are recorded without classes (--no-classes).",
        )
    return size


def make_task(bundle: Bundle, graph: Graph, seed: int, device: str = "cpu") -> Task:
    """Everything a synthesis method may use, from nothing but a bundle.

    Args:
        bundle: the release.
        graph: its teacher.
        seed: of everything.
        device: torch's name of the device that does the work.

    Raises:
        StepError: a model with several inputs, or one whose sizes are not all fixed but for the batch; no such device.
        GraphError: a graph that is no classifier.
    """
    inputs = bundle.manifest.model.inputs
    if len(inputs) != 1 or "float" not in inputs[0].dtype:
        found = ", ".join(f"{entry.name} ({entry.dtype})" for entry in inputs)
        raise StepError("model inputs", found, "one floating-point input", "Other models cannot be synthesised yet.")
    entry, classes = inputs[0], class_count(graph)
    sizes = tuple(size for size in entry.shape[1:] if isinstance(size, int))
    if len(sizes) != len(entry.shape) - 1:
        raise StepError(f"input {entry.name!r}", f"shape {entry.shape}", "fixed sizes for every axis but the batch")
    low, high = input_range(entry)
    place = _device(device)
    teacher = TorchGraph(graph).eval().to(place)
    return Task(
        # On a CPU, convolutions of few channels take two thirds of the time in this layout.
        teacher=teacher.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        records=PublishedRecords.read(bundle).to(place),
        input_name=entry.name,
        item_shape=sizes,
        low=torch.from_numpy(low).to(place),
        high=torch.from_numpy(high).to(place),
        output_name=graph.outputs[0].name,
        classes=classes,
        generator=torch.Generator().manual_seed(seed),
        device=place,
    )


def _device(name: str) -> torch.device:
    try:
        place = torch.device(name)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise StepError(
            f"device {name!r}", text, "a device of this machine", "Use cpu, or install a torch build for it."
        ) from error
    return place
