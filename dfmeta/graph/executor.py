"""An ONNX graph as a torch module: any value, differentiable, on any device and in any floating type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dfmeta import _watched
from dfmeta.errors import GraphError
from dfmeta.graph.batch import fixed_batch
from dfmeta.graph.carriers import CARRIERS, to_torch
from dfmeta.graph.dtypes import FLOATS
from dfmeta.graph.freeing import rewrites
from dfmeta.graph.learning import in_training, running_statistics, with_values
from dfmeta.graph.load import Graph
from dfmeta.graph.plan import Plan, Step, bind, execute, fold, plan, steering_constants


class TorchGraph(nn.Module):
    """Runs a graph node by node with torch operators.

    The semantics are those of evaluation: BatchNormalization uses its stored statistics, Dropout does
    nothing, whatever ``train()`` says; a frozen teacher stays as it is. Only a graph made with
    ``batch_norm="train"`` follows ``train()`` and ``eval()`` in BatchNormalization (and in nothing else).
    Nothing is computed in place, so returned values stay valid. Moving the module (``.to(device)``,
    ``.double()``) moves every floating value of the graph, casts included.

    A graph exported with a fixed batch takes any multiple of it: its reshapes are freed where that is certain
    to be sound (:mod:`dfmeta.graph.freeing`), and otherwise every item is run as its own batch, vectorized.

    Attributes:
        graph: what it runs.
        follows: of a narrower copy of another graph: for values of both, which places along axis 1 of the other's this
            one's are. Whoever makes the copy says so; empty otherwise.

    Args:
        graph: a checked graph.
        trainable: whether the weights (:attr:`Graph.weights`) become parameters; all other constants are
            buffers. What is computed from other constants alone is computed once, here.
        batch_norm: ``"train"`` for a student: in ``train()`` mode BatchNormalization uses the statistics of the
            batch and moves its running mean and variance (buffers), as torch's own layers do with momentum 0.1.

    Raises:
        UnsupportedOperator: naming a node that cannot run.
        GraphError: ``batch_norm="train"`` where running statistics are not tensors of the file.
    """

    def __init__(
        self, graph: Graph, *, trainable: bool = False, batch_norm: Literal["evaluate", "train"] = "evaluate"
    ) -> None:
        super().__init__()
        self.graph = graph
        self.follows: Mapping[str, Tensor] = {}
        self._statistics = running_statistics(graph) if batch_norm == "train" else frozenset[str]()
        self._steps: dict[bool, tuple[Step, ...] | None] = {False: bind(graph)}
        self._slots: dict[str, str] = {}
        self._plans: dict[tuple[tuple[str, ...], torch.dtype | None, bool, bool], Plan] = {}
        self._batch = fixed_batch(graph)
        steps = self._steps[False] or ()
        for name, array in graph.initializers.items():
            self._hold(
                name,
                to_torch(array, f"{graph.where}: tensor {name!r}"),
                trainable and name in graph.weights,
            )
        fixed = {name: self._constant(name) for name in self._slots if name not in graph.weights}
        with _watched.timed(graph.where, "what is constant in a graph"):
            folded = fold(steps, fixed, graph)
        for name, tensor in folded.items():
            self._hold(name, tensor, False)
        self._ran = False
        # Shapes, axes and the like are read as Python numbers: their constants stay on the CPU for good.
        self._host = {name: self._constant(name) for name in steering_constants(steps) if name in self._slots}
        self._probe = next((name for name in self._slots if graph.value(name).dtype in FLOATS), None)

    def _hold(self, name: str, tensor: Tensor, trainable: bool) -> None:
        slot = f"constant_{len(self._slots)}"
        self._slots[name] = slot
        if trainable:
            self.register_parameter(slot, nn.Parameter(tensor))
        else:
            self.register_buffer(slot, tensor)

    def _constant(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self, self._slots[name])
        return tensor

    def named_initializers(self) -> Iterator[tuple[str, Tensor]]:
        """Initializers by their name in the graph: parameters where trainable, buffers otherwise."""
        for name in self.graph.initializer_names:
            yield name, self._constant(name)

    def to_graph(self) -> Graph:
        """The same graph with the present values of its weights, and of the running statistics that move.

        Nodes, names and everything else stay as they are in the file; each tensor has the file's element type.

        Raises:
            GraphError: values that do not fit the file, which no training makes.
        """
        present = {
            name: self._constant(name)
            for name in self.graph.initializer_names
            if name in self.graph.weights or name in self._statistics
        }
        return with_values(self.graph, present)

    def _moves(self) -> bool:
        """Whether running this now changes running statistics."""
        return bool(self._statistics) and self.training

    def forward(self, *inputs: Tensor) -> Tensor:
        """First output for ``inputs`` in graph order.

        Raises:
            GraphError: a wrong number of inputs, or inputs that do not fit.
        """
        names = [value.name for value in self.graph.inputs]
        if len(inputs) != len(names):
            raise GraphError(
                self.graph.where,
                f"{len(inputs)} inputs",
                f"{len(names)} ({', '.join(names)})",
                "Give one tensor each.",
            )
        output = self.graph.outputs[0].name
        return self.run(dict(zip(names, inputs, strict=True)), [output])[output]

    def run(self, inputs: Mapping[str, Tensor], values: Sequence[str]) -> dict[str, Tensor]:
        """The named values; only what they need is computed, each intermediate dropped after its last use.

        Args:
            inputs: tensors by input name; those that ``values`` do not need may be left out.
            values: names of inputs, initializers, intermediates or outputs.

        Returns:
            Tensors by name, in the file's element types (or the floating type that the module was moved to).

        Raises:
            GraphError: an unknown value, a missing input, or inputs that do not fit.
        """
        names = tuple(dict.fromkeys(values))
        real = self._real(inputs)
        chosen = self._plan(names, real, False)
        given = self._given(chosen, inputs)
        groups = self._groups(given)
        if groups is not None and self._moves() and not self._freed():
            raise GraphError(
                self.graph.where,
                f"a batch of {self._batch} that is part of the graph",
                "a free one: BatchNormalization learns from the whole batch",
                "Export the graph with a dynamic batch.",
            )
        if groups is not None and self._freed():
            chosen, groups = self._plan(names, real, True), None
        if self._ran:
            found = self._executed(chosen, given, names, groups)
        else:
            with _watched.timed(self.graph.where, "a first forward pass"):
                found = self._executed(chosen, given, names, groups)
            self._ran = True
        return {name: self._declared(name, tensor) for name, tensor in found.items()}

    def _executed(
        self, chosen: Plan, given: Mapping[str, Tensor], names: Sequence[str], groups: int | None
    ) -> dict[str, Tensor]:
        if groups is None:
            return self._execute(chosen, given, names)
        return self._each(chosen, given, names, groups)

    def _given(self, chosen: Plan, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for name in chosen.inputs:
            if name not in inputs:
                raise GraphError(self.graph.where, f"no input {name!r}", "a tensor for it", "Add it to `inputs`.")
        return {name: inputs[name] for name in chosen.inputs}

    def _groups(self, given: Mapping[str, Tensor]) -> int | None:
        """How many fixed batches are given; None when the graph takes the inputs as they are."""
        sizes = {tensor.shape[0] for tensor in given.values() if tensor.dim()}
        if self._batch is None or sizes <= {self._batch}:
            return None
        size = next(iter(sizes))
        if len(sizes) > 1 or size % self._batch or not size:
            raise GraphError(
                self.graph.where,
                f"batches of {', '.join(map(str, sorted(sizes)))}",
                f"one multiple of the graph's fixed batch {self._batch} for all inputs",
                "Cut the batch, or export the graph with a dynamic batch.",
            )
        return size // self._batch

    def _execute(self, chosen: Plan, given: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        live = dict(given)
        device = next((tensor.device for tensor in given.values()), torch.device("cpu"))
        for step, done in zip(chosen.steps, chosen.frees, strict=True):
            live.update(execute(step, self._arguments(step, live, device)))
            for name in done:
                live.pop(name, None)
        return {name: live[name] if name in live else self._constant(name) for name in names}

    def _arguments(self, step: Step, live: Mapping[str, Tensor], device: torch.device) -> list[Tensor | None]:
        arguments: list[Tensor | None] = []
        for position, name in enumerate(step.node.inputs):
            if not name:
                arguments.append(None)
                continue
            steers = position in step.host
            constant = self._host.__getitem__ if steers else self._constant
            argument = live[name] if name in live else constant(name)
            arguments.append(argument if steers or argument.device == device else argument.to(device))
        return arguments

    def _each(self, chosen: Plan, given: Mapping[str, Tensor], names: Sequence[str], groups: int) -> dict[str, Tensor]:
        """Every fixed batch on its own, all at once (:func:`torch.vmap`), joined along axis 0."""
        shared = {name: tensor for name, tensor in given.items() if not tensor.dim()}
        parts = {name: tensor.reshape(groups, -1, *tensor.shape[1:]) for name, tensor in given.items() if tensor.dim()}
        found = torch.vmap(lambda part: self._execute(chosen, shared | part, names))(parts)
        for name, tensor in found.items():
            if tensor.dim() < 2 or tensor.shape[1] != self._batch:
                raise GraphError(
                    self.graph.where,
                    f"value {name!r} of shape {list(tensor.shape[1:])}",
                    f"the fixed batch {self._batch} as its axis 0",
                    "Run the graph at its own batch size, or export it with a dynamic batch.",
                )
        return {name: tensor.flatten(0, 1) for name, tensor in found.items()}

    def _freed(self) -> bool:
        """Whether the steps could be freed from the fixed batch; worked out once, when first needed."""
        if True not in self._steps:
            steps = self._steps[False] or ()
            constants = {name: self._host.get(name, self._constant(name).detach()) for name in self._slots}
            try:
                targets = rewrites(self.graph, steps, constants)
            except GraphError:
                targets = None
            self._steps[True] = None if targets is None else self._retargeted(steps, targets)
        return self._steps[True] is not None

    def _retargeted(self, steps: Sequence[Step], targets: Mapping[str, Sequence[int]]) -> tuple[Step, ...]:
        changed = []
        for step in steps:
            node = step.node
            if node.outputs[0] in targets:
                name = f"{node.outputs[0]} without its batch"
                self._host[name] = torch.tensor(list(targets[node.outputs[0]]))
                node = dataclasses.replace(node, inputs=(node.inputs[0], name))
            changed.append(dataclasses.replace(step, node=node))
        return tuple(changed)

    def _plan(self, values: tuple[str, ...], real: torch.dtype | None, freed: bool) -> Plan:
        key = (values, real, freed, self._moves())
        if key not in self._plans:
            for name in values:
                self.graph.value(name)
            steps = [
                dataclasses.replace(step, node=dataclasses.replace(step.node, real=real))
                for step in self._steps[freed] or ()
            ]
            steps = [in_training(step) for step in steps] if self._moves() else steps
            self._plans[key] = plan(steps, values, {*self._slots, *self._host})
        return self._plans[key]

    def _real(self, inputs: Mapping[str, Tensor]) -> torch.dtype | None:
        """The floating type everything was moved to; None while each value has the file's own."""
        name, tensor = self._probe, None
        if name is not None:
            tensor = self._constant(name)
        else:
            for value in self.graph.inputs:
                if value.dtype in FLOATS and value.name in inputs:
                    name, tensor = value.name, inputs[value.name]
        if name is None or tensor is None or tensor.dtype == CARRIERS[self.graph.value(name).dtype]:
            return None
        return tensor.dtype

    def _declared(self, name: str, tensor: Tensor) -> Tensor:
        """Quantized values, carried as floating numbers between nodes, in the integer type of the file."""
        declared = self.graph.value(name).dtype
        if tensor.is_floating_point() and declared not in FLOATS:
            return tensor.to(CARRIERS[declared])
        return tensor
