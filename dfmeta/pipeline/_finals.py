"""The last round of a search: the best candidates as the target reads them, checked and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dfmeta.compress._chain import State
from dfmeta.errors import ExportError, GraphError, StepError
from dfmeta.export import with_provenance
from dfmeta.export.targets import Checked
from dfmeta.graph import OrtGraph
from dfmeta.pipeline._candidates import TEACHER, Candidate
from dfmeta.pipeline._halving import FINALISTS, School, Score, Trainee
from dfmeta.pipeline._target_form import Made, TargetForm
from dfmeta.pipeline.closed_form import ROUNDED, TOLERANCE, Source, Watch, require_finite, require_same, stages


@dataclass(frozen=True, slots=True)
class Finished:
    """A trained candidate in the form that the target reads.

    Attributes:
        trainee: it.
        made: its files.
        checked: the student's, held against the target.
        score: of the student in onnxruntime.
    """

    trainee: Trainee
    made: Made
    checked: Checked
    score: Score


@dataclass(frozen=True, slots=True)
class Finals:
    """Who won, and among whom.

    Attributes:
        best: the best of those that fit.
        finished: all that were made for the target, fitting or not.
        ranked: all that were trained, the best of the earlier rounds first.
    """

    best: Finished
    finished: tuple[Finished, ...]
    ranked: tuple[Trainee, ...]


@dataclass(frozen=True, slots=True)
class Judge:
    """Writes candidates for a target and compares them.

    Attributes:
        source: the bundle.
        form: of the target.
        school: trains them.
        recipe: what was asked for, in JSON types; written into each file beside the student's name.
    """

    source: Source
    form: TargetForm
    school: School
    recipe: Mapping[str, object]

    def finals(self, candidates: Sequence[Candidate], steps: int) -> Finals:
        """Train, compare and write until a candidate fits as it is written; two at a time, the better ones first.

        Args:
            candidates: to begin with.
            steps: of the last round.

        Raises:
            StepError: none holds what was predicted.
        """
        ranked = self.school.halved(candidates, steps)
        finished: list[Finished] = []
        for place in range(0, len(ranked), FINALISTS):
            last = ranked[place : place + FINALISTS]
            stage = f"last round, {place + 1} to {place + len(last)}"
            self.school.round(last, steps, stage, self.school.seed + len(ranked) + place)
            finished += filter(None, map(self.finished, last))
            fitting = [one for one in finished if one.checked.fits]
            if fitting:
                best = min(fitting, key=lambda one: one.score.rank)
                return Finals(best, tuple(finished), tuple(ranked))
        found = [f"{one.candidate.name}: {one.dropped}" for one in ranked if one.dropped]
        found += [f"{one.trainee.candidate.name}: {one.checked.violations[0]}" for one in finished]
        fix = "Leave the candidates more room: raise --ram or --flash, or use another target."
        raise StepError(f"target {self.form.target.name}", "; ".join(found), "a trained candidate that fits", fix)

    def finished(self, one: Trainee) -> Finished | None:
        """A candidate written for the target, and what became of it; one that cannot be written is dropped."""
        if one.dropped:
            return None
        try:
            made = self._made(one)
        except (StepError, ExportError, GraphError) as error:
            one.dropped = str(error)
            return None
        value, output = made.graph.inputs[0].name, made.graph.outputs[0].name
        material = self.school.material
        ours = OrtGraph(made.graph, threads=1, dynamic_batch=True).run({value: material.held.numpy()})[output]
        score = Score.of(one.steps, torch.from_numpy(ours), material.wanted)
        return Finished(one, made, self.form.checked(made.graph), score)

    def _watch(self, name: str) -> Watch:
        """Stages of one candidate's own: the next one has them too."""
        told = stages(self.school.progress)
        return lambda stage, done, total: told(f"{name}, {stage}", done, total)

    def _made(self, one: Trainee) -> Made:
        """Both files, verified as those of other verbs are."""
        source, form = self.source, self.form
        state = State(source.graph, source.records, changed=True)
        state = state if one.candidate.name == TEACHER else state.after(one.graph)
        made = form.made(one.graph, state, self.school.material.training, self._watch(one.candidate.name))
        notes = source.opened.provenance({**self.recipe, "student": one.candidate.name, "trained_steps": one.steps})
        made = replace(made, plain=with_provenance(made.plain, notes), graph=with_provenance(made.graph, notes))
        for graph, tolerance in ((made.plain, TOLERANCE), (made.graph, ROUNDED[8] if form.config else TOLERANCE)):
            require_finite(graph)
            require_same(graph, source, tolerance)
        return made
