"""Hints: a narrower copy of the teacher also learns what the teacher's layers say, not the logits alone.

A student whose channels *are* channels of the teacher (``scaled:``) can be told at each layer what those channels were:
Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, sec. 2.2, without their regressor, which is only
needed where nobody knows which channel answers to which. Synthetic inputs leave much of a network undetermined at its
output; its layers determine far more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfmeta.graph import TorchGraph
from dfmeta.graph.operator_inputs import operator_inputs


@dataclass(frozen=True, slots=True)
class Hints:
    """What is compared, between which networks.

    Attributes:
        teacher: frozen.
        student: the one in training.
        input_name, output_name: of the teacher's graph; the student's may differ.
        channels: value's name, the same in both graphs, to the places of the student's channels among the teacher's.
    """

    teacher: TorchGraph
    student: TorchGraph
    input_name: str
    output_name: str
    channels: Mapping[str, Tensor]

    @classmethod
    def between(cls, teacher: TorchGraph, student: nn.Module, input_name: str, output_name: str) -> Hints | None:
        """Hints at every value that a weight reads; None for a student that says nothing of its channels."""
        if not isinstance(student, TorchGraph) or not student.follows:
            return None
        read = dict.fromkeys(entry.value for entry in operator_inputs(student.graph))
        places = {
            name: student.follows[name].to(next(student.parameters()).device)
            for name in read
            if name in student.follows and name != input_name and name in teacher.graph.values
        }
        return cls(teacher, student, input_name, output_name, places) if places else None

    def of_teacher(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``[n, classes]`` logits, and the student's channels of each value: ``[n, k, ...]``."""
        values = self.teacher.run({self.input_name: inputs}, [*self.channels, self.output_name])
        return values[self.output_name], [values[name][:, places] for name, places in self.channels.items()]

    def of_student(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same of the student."""
        output = self.student.graph.outputs[0].name
        values = self.student.run({self.student.graph.inputs[0].name: inputs}, [*self.channels, output])
        return values[output], [values[name] for name in self.channels]

    @staticmethod
    def distance(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """Mean over the values of their mean squared difference, in units of the teacher's variance there."""
        parts = [
            (mine - wanted).square().mean() / wanted.var().clamp(min=1e-12)
            for mine, wanted in zip(ours, theirs, strict=True)
        ]
        return torch.stack(parts).mean()
