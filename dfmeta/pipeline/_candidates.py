"""Students that may fit a target, before any training: what can be made of a teacher, and what each will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from dfmeta._catalog import STUDENTS
from dfmeta.compress import factorize, prune
from dfmeta.errors import DfmetaError, ExportError, GraphError, StepError
from dfmeta.export import export_student
from dfmeta.export.targets import Checked
from dfmeta.graph import Graph
from dfmeta.pipeline._target_form import TargetForm, any_units
from dfmeta.pipeline.closed_form import Source, require_finite
from dfmeta.pipeline.synthesising import new_student
from dfmeta.records.foreign_moments import LeftOut
from dfmeta.synthesis import Task

TEACHER = "teacher"
BUDGETS = frozenset({"ram", "flash"})
# What stays of a teacher: of its channels, or of its weights' elements.
GRADES = (0.9, 0.75, 0.625, 0.5, 0.42, 0.35, 0.29, 0.24, 0.2, 0.17, 0.14, 0.12, 0.1, 0.08, 0.06, 0.04)
_PAUSE = 2

Built = tuple[Graph, nn.Module | None]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A student with its first weights.

    Attributes:
        name: ``teacher``, ``scaled:0.5``, ``prune:0.5``, ``factorize:0.5``, or a student of the catalogue.
        family: the part of it before the colon, or ``zoo``.
        graph: with the teacher's inputs and outputs.
        module: that is trained by distilling; None for a graph that is fine-tuned.
        checked: what the target will say of it; None where it cannot be written for the target.
        reason: why that is so.
    """

    name: str
    family: str
    graph: Graph
    module: nn.Module | None
    checked: Checked | None
    reason: str = ""

    @property
    def fits(self) -> bool:
        """Whether it will fit, as far as that can be known before training."""
        return self.checked is not None and self.checked.fits

    @property
    def refused(self) -> tuple[str, ...]:
        """What no budget would change, in sentences."""
        if self.checked is None:
            return (self.reason,)
        return tuple(str(one) for one in self.checked.violations if one.rule not in BUDGETS)

    @property
    def why_not(self) -> tuple[str, ...]:
        """All that keeps it from fitting, in sentences."""
        return (self.reason,) if self.checked is None else tuple(str(one) for one in self.checked.violations)

    def over(self, budget: str) -> bool:
        """Whether it needs more than there is of ``ram`` or ``flash``."""
        return self.checked is not None and any(one.rule == budget for one in self.checked.violations)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes candidates.

    Attributes:
        source: the bundle.
        form: of the target.
        task: of the bundle.
        seed: of fresh weights.
        units: inputs to predict with.
    """

    source: Source
    form: TargetForm
    task: Task
    seed: int
    units: Tensor

    @classmethod
    def of(cls, source: Source, form: TargetForm, task: Task, seed: int) -> Workshop:
        """For one search."""
        return cls(source, form, task, seed, any_units(task))

    def candidate(self, name: str, family: str, built: Built) -> Candidate:
        """With what it will cost."""
        graph, module = built
        graph = Graph.from_bytes(graph.raw, name)
        try:
            return Candidate(name, family, graph, module, self.form.predicted(graph, self.units))
        except (StepError, ExportError, GraphError) as error:
            return Candidate(name, family, graph, module, None, str(error))

    def teacher(self) -> Candidate:
        """The bundle's own graph, which needs no training."""
        return self.candidate(TEACHER, TEACHER, (self.source.graph, None))

    def student(self, spec: str) -> Built:
        """One of :mod:`dfmeta.students`.

        Raises:
            StepError: it does not suit the task.
        """
        module = new_student(spec, self.source.opened, self.task, self.seed)
        return self.exported(module), module

    def stranger(self, name: str) -> Built:
        """One of the catalogue's that has nothing of the teacher.

        Raises:
            StepError: it does not suit the task, or is no smaller than the teacher.
        """
        module = new_student(name, self.source.opened, self.task, self.seed)
        count, most = sum(one.numel() for one in module.parameters()), self.source.graph.parameter_count
        if count >= most:
            raise StepError(f"student {name!r}", f"{count:,} parameters", f"fewer than the teacher's {most:,}")
        return self.exported(module), module

    def exported(self, module: nn.Module) -> Graph:
        """A module as a graph with the teacher's names and a free batch."""
        entry = self.source.opened.bundle.manifest.model.inputs[0]
        place = self.task.device
        raw = export_student(module.cpu().eval(), entry, self.task.output_name, provenance={}, dynamic_batch=True)
        module.to(place)
        return Graph.from_bytes(raw, "student.onnx")

    def pruned(self, share: float) -> Built:
        """Fewer channels, the weights that are left making up for them."""
        source = self.source
        return prune.run(source.graph, source.records, prune.Config(channels=share)).graph, None

    def factorized(self, share: float) -> Built:
        """Weights as products of smaller ones."""
        source = self.source
        return factorize.run(source.graph, source.records, factorize.Config(params=share)).graph, None


@dataclass
class Family:
    """Candidates of one kind at several sizes.

    Attributes:
        name: before the colon.
        make: what makes one of a size, which is a share of the teacher.
        less_ram: whether a smaller one needs less RAM, too; chains of factors need more.
        workshop: checks them.
        seen: all that were made, by size.
        stopped: why none could be made; empty where some could.
    """

    name: str
    make: Callable[[float], Built]
    less_ram: bool
    workshop: Workshop
    seen: dict[float, Candidate] = field(default_factory=dict)
    stopped: str = ""

    def fitting(self) -> Iterator[Candidate]:
        """Those that fit, the largest first, at some distance from each other."""
        place = self._largest()
        sizes: set[int] = set()
        while place is not None and place < len(GRADES):
            found = self._at(place)
            if found is None or found.checked is None or not found.fits or found.checked.costs is None:
                return
            if found.checked.costs.parameters not in sizes:
                sizes.add(found.checked.costs.parameters)
                yield found
            place += _PAUSE

    def _largest(self) -> int | None:
        """Place of the largest size that fits, by bisection: each is made, and none is trained.

        Where code counts, a larger one may fit all the same: a smaller rank can need one more node.
        """
        first = self._at(0)
        if first is None or first.fits or first.refused:
            return 0 if first is not None and first.fits else None
        low, high, best = 1, len(GRADES) - 1, None
        while low <= high:
            place = (low + high) // 2
            found = self._at(place)
            if found is not None and found.fits:
                best, high = place, place - 1
            elif found is None or found.refused or not (self.less_ram or found.over("flash")):
                # Smaller than this there is none, or it would need more.
                high = place - 1
            else:
                low = place + 1
        return best

    def _at(self, place: int) -> Candidate | None:
        """The one of a size; None where there is none so small."""
        share = GRADES[place]
        if share not in self.seen:
            try:
                built = self.make(share)
                require_finite(built[0])
            except DfmetaError as error:
                self.stopped = self.stopped or str(error)
                return None
            self.seen[share] = self.workshop.candidate(f"{self.name}:{share:g}", self.name, built)
        return self.seen[share]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was made of a teacher for a target.

    Attributes:
        starting: those that will fit and are to be trained, the teacher first if it is one of them.
        others: the rest of those that were made, fitting or not.
        left_out: families and students that could not be made, and why.
    """

    starting: tuple[Candidate, ...]
    others: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Every one that was made."""
        return (*self.starting, *self.others)


def gathered(workshop: Workshop, count: int, watch: Callable[[str, int, int], None]) -> Gathered:
    """Candidates of every family, as many as are to start.

    Args:
        workshop: makes them.
        count: most that start: the largest of every family that fit first, then smaller ones.
        watch: called with ``candidates``, how much is done, and how much there is to do at most.
    """
    families = [
        Family("scaled", lambda share: workshop.student(f"scaled:{share:g}"), True, workshop),
        Family("prune", workshop.pruned, True, workshop),
        Family("factorize", workshop.factorized, False, workshop),
    ]
    names = zoo_names()
    total = 1 + len(names) + count
    teacher = workshop.teacher()
    watch("candidates", 1, total)
    zoo, left_out = _zoo(workshop, names, lambda done: watch("candidates", 1 + done, total))
    queues = [iter([teacher] if teacher.fits else []), *(family.fitting() for family in families)]
    queues.append(iter([one for one in zoo if one.fits]))
    starting: list[Candidate] = []

    def taken(queue: Iterator[Candidate]) -> bool:
        more = len(starting) < count and _take(queue, starting)
        watch("candidates", 1 + len(names) + len(starting), total)
        return more

    while queues and len(starting) < count:
        queues = [queue for queue in queues if taken(queue)]
    watch("candidates", total, total)
    left_out += [LeftOut(one.name, one.stopped) for one in families if one.stopped and not one.seen]
    made = [teacher, *(one for family in families for one in family.seen.values()), *zoo]
    others = tuple(one for one in made if one not in starting)
    return Gathered(tuple(starting), others, tuple(left_out))


def zoo_names() -> tuple[str, ...]:
    """The catalogue's students that are not made from their teacher."""
    return tuple(name for name in STUDENTS.names() if hasattr(STUDENTS.load(name), "build"))


def _take(queue: Iterator[Candidate], into: list[Candidate]) -> bool:
    """One more of a queue, if there is one."""
    found = next(queue, None)
    if found is not None:
        into.append(found)
    return found is not None


def _zoo(
    workshop: Workshop, names: Sequence[str], told: Callable[[int], None]
) -> tuple[list[Candidate], list[LeftOut]]:
    """The catalogue's students that suit the task, the one of most parameters first."""
    found, left_out = [], []
    for number, name in enumerate(names):
        try:
            found.append(workshop.candidate(name, "zoo", workshop.stranger(name)))
        except (StepError, ExportError, GraphError) as error:
            left_out.append(LeftOut(name, str(error)))
        told(number + 1)
    return sorted(found, key=lambda one: -one.graph.parameter_count), left_out
