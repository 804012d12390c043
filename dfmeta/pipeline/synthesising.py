"""Running a synthesis method: what it is given, its optimisation, and the inputs that come of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dfmeta import students, synthesis
from dfmeta.compress.hints import Hints
from dfmeta.data import check_labels, feed, fitted_input, open_data
from dfmeta.errors import MethodInput, StepError, UnknownName
from dfmeta.graph import Graph, TorchGraph
from dfmeta.pipeline.opening import Opened
from dfmeta.synthesis import Synthesis, Task

Progress = Callable[[str, int, int, float], None]

# A method draws classes as it likes; one that has not made enough of a class by then does not make it.
MOST_DRAWS = 64


def begin(
    task: Task,
    opened: Opened,
    method: str,
    *,
    settings: Mapping[str, str] | None = None,
    student: nn.Module | None = None,
    data: str | None = None,
) -> Synthesis:
    """A method at its start.

    Args:
        task: what every method may use.
        opened: the bundle it is of.
        method: one of :func:`dfmeta.synthesis.names`.
        settings: fields of the method's ``Config`` as text.
        student: given to a method that learns from one.
        data: what ``--data`` takes, for a method that draws from data.

    Raises:
        UnknownName: no such method or setting.
        StepError: records that it needs are not there.
        MethodInput: it lacks a student or data that it needs, or is given data that it cannot use.
        DataError: data that does not fit the model.
    """
    uses = synthesis.uses(method)
    if data is not None and "data" not in uses:
        raise MethodInput(
            f"method {method!r}", "--data", "none", "It makes its inputs; the method data draws from them."
        )
    if data is not None:
        task = dataclasses.replace(task, data=_drawn(data, opened, task, fit=synthesis.other_data(method)))
    if "student" in uses:
        task = dataclasses.replace(task, student=student)
    return synthesis.build(method, task, settings)


def prepare(made: Synthesis, progress: Progress | None, until: float | None = None) -> None:
    """Run a method's optimisation to its end, or until the monotonic clock says ``until``, one step at least."""
    for step in range(made.steps):
        if until is not None and step and time.monotonic() > until:
            break
        loss = made.advance()
        if progress is not None:
            progress("synthesise", step + 1, made.steps, loss)


def chosen_classes(given: Sequence[str], opened: Opened, classes: int) -> list[int]:
    """Classes by number or by the name that the manifest has for them, ascending.

    Raises:
        UnknownName: no such class.
    """
    labels = opened.bundle.manifest.model.outputs[0].labels
    named = opened.bundle.manifest.label_set(labels) if labels is not None else None
    numbers = {str(number): number for number in range(classes)}
    if named is not None:
        numbers |= {name: number for number, name in enumerate(named.names[:classes]) if name not in numbers}
    for name in given:
        if name not in numbers:
            raise UnknownName("class", name, numbers)
    return sorted({numbers[name] for name in given})


def sample(made: Synthesis, count: int, classes: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """``[count, ...]`` inputs and their labels, of some classes only where any are named.

    Raises:
        StepError: a method that makes too few inputs of those classes.
    """
    if not classes:
        return made.sample(count)
    kept: list[tuple[Tensor, Tensor]] = []
    found = 0
    for _ in range(MOST_DRAWS):
        inputs, labels = made.sample(count)
        wanted = torch.isin(labels, torch.tensor(classes, device=labels.device))
        kept.append((inputs[wanted], labels[wanted]))
        found += int(wanted.sum())
        if found >= count:
            return torch.cat([part for part, _ in kept])[:count], torch.cat([part for _, part in kept])[:count]
    raise StepError(
        f"classes {', '.join(map(str, classes))}",
        f"{found} inputs among {MOST_DRAWS * count}",
        str(count),
        "Ask for more classes, or use a method that makes inputs of these: their records may be withheld.",
    )


def source(made: Synthesis, progress: Progress | None, until: float | None = None) -> Callable[[int], Tensor]:
    """Inputs for training: from a method that is done before, or from one that learns along with the student."""
    turns: int = getattr(made, "student_steps", 0)
    if not turns:
        prepare(made, progress, until)
    taken = 0

    def draw(count: int) -> Tensor:
        nonlocal taken
        if turns and taken % turns == 0:
            made.advance()
        taken += 1
        return made.sample(count)[0]

    return draw


def answers(made: Synthesis, task: Task) -> Callable[[Tensor], Tensor]:
    """What the student is told of its inputs: the teacher's logits, unless the method has its own."""
    own: Callable[[Tensor], Tensor] | None = getattr(made, "teach", None)
    return own or task.logits


def hints(made: Synthesis, task: Task, student: nn.Module) -> Hints | None:
    """What the teacher's layers tell the student's; None where there is nothing, or where the method tells its own."""
    if getattr(made, "teach", None) is not None:
        return None
    return Hints.between(task.teacher, student, task.input_name, task.output_name)


def trained_student(path: str, task: Task) -> nn.Module:
    """A student's ONNX file as a frozen, differentiable module on the task's device."""
    network = TorchGraph(Graph.from_file(path)).to(task.device).eval()
    return network.requires_grad_(False)


def new_student(spec: str, opened: Opened, task: Task, seed: int) -> nn.Module:
    """A student by name or ``module:callable``, untrained, on the task's device."""
    origin = students.Origin(opened.graph, task.records)
    return students.build(spec, task.item_shape, task.classes, seed, origin).to(task.device)


def _drawn(data: str, opened: Opened, task: Task, *, fit: bool) -> Callable[[int], tuple[Tensor, Tensor]]:
    source = open_data(data)
    entry = opened.bundle.manifest.model.inputs[0]
    known = None if fit else source.labels
    if known is not None:
        check_labels(known, task.classes, source.name)
    batches = feed(source, [fitted_input(entry, source) if fit else entry], 1024)
    inputs = torch.from_numpy(np.concatenate([batch.inputs[task.input_name] for batch in batches])).to(task.device)
    labels = torch.from_numpy(np.full(len(inputs), -1) if known is None else known).to(task.device)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        rows = task.integers(len(inputs), count)
        return inputs[rows], labels[rows]

    return draw
