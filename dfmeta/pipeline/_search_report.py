"""What a search for a target found: as it is returned, in ``report.json``, and as a picture."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfmeta.export.targets import Checked
from dfmeta.pipeline._candidates import Candidate
from dfmeta.pipeline._finals import Finals, Finished
from dfmeta.pipeline._halving import Score, Trainee
from dfmeta.pipeline.evaluation import Evaluation
from dfmeta.records.foreign_moments import LeftOut
from dfmeta.report.pareto import ParetoPoint, pareto_picture


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate.

    Attributes:
        name: ``teacher``, ``scaled:0.5``, ``prune:0.5``, ``factorize:0.5``, or a student of the catalogue.
        family: which of these, or ``zoo``.
        parameters: elements of weights and biases, as the target will hold them.
        macs: multiply-accumulates for one unit.
        flash_bytes, ram_bytes: as the target counts them; these four are None where it cannot be written for it.
        fits: the target and the budgets; as predicted, or of the file where one was made.
        why_not: what keeps it from that, in sentences.
        rounds: agreement on the held-out inputs after each round of training, in floating point.
        final: the same of the file for the target; None where none was made.
        chosen: whether it is the one.
    """

    name: str
    family: str
    parameters: int | None
    macs: int | None
    flash_bytes: int | None
    ram_bytes: int | None
    fits: bool
    why_not: tuple[str, ...]
    rounds: tuple[Score, ...] = ()
    final: Score | None = None
    chosen: bool = False

    @property
    def last(self) -> Score | None:
        """Its last score: of the file for the target, if there is one."""
        return self.final or (self.rounds[-1] if self.rounds else None)


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on the data that was given.

    Attributes:
        name: ``teacher``, ``float student`` or ``student``.
        accuracy: percent of units whose label it names; None without labels.
        agreement: percent of units on which it names the teacher's class.
        count: units.
    """

    name: str
    accuracy: float | None
    agreement: float | None
    count: int

    @classmethod
    def of(cls, name: str, found: Evaluation) -> Measured:
        """One that was evaluated."""
        return cls(name, found.accuracy, found.agreement, found.count)


@dataclass(frozen=True, slots=True)
class Searched:
    """What :func:`dfmeta.pipeline.search_target` wrote.

    Attributes:
        path: the folder.
        model: the student for the target, in it.
        target, board: that it is for; the board is empty without one.
        ram, flash: bytes that there are; None for no limit.
        chosen: name of the candidate.
        agreement: percent of held-out synthetic inputs on which the student, as written, names the teacher's class;
            it was chosen by that.
        checked: the student held against the target.
        candidates: all that were made: those that were trained, the best first, then the others.
        left_out: what could not be made of this teacher, and why.
        inputs, held_out: how many different synthetic inputs were trained on, and how many were held out.
        seed: of everything that is drawn at random.
        measured: teacher, float student and student on the data that was given; empty without.
        inputs_from: the method that made the synthetic inputs, or the file that they were read from.
        source: sha256 of the bundle's manifest.
        ranges: format of ``ranges.json``, as ``convert --to`` names it; empty where there is no such file.
        recipe: what was asked for, defaults written out, in JSON types.
        notes: what a reader should know, in sentences.
        seconds: that all of it took.
    """

    path: Path
    model: Path
    target: str
    board: str
    ram: int | None
    flash: int | None
    chosen: str
    agreement: float
    checked: Checked
    candidates: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    inputs: int
    held_out: int
    seed: int
    measured: tuple[Measured, ...] = ()
    inputs_from: str = ""
    source: str = ""
    ranges: str = ""
    recipe: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """The same in JSON types."""
        found = dataclasses.asdict(dataclasses.replace(self, checked=None))  # type: ignore[arg-type]  # filled in below
        for row in found["candidates"]:
            for score in (*row["rounds"], *filter(None, [row["final"]])):
                score["error"] = score["error"] if math.isfinite(score["error"]) else None
        return {**found, "path": str(self.path), "model": str(self.model), "checked": self.checked.as_dict()}


def rows(finals: Finals, others: Sequence[Candidate]) -> tuple[Row, ...]:
    """All candidates, the chosen one first."""
    done = {id(one.trainee): one for one in finals.finished}
    best = finals.best.trainee
    trained = [_row(one.candidate, one, done.get(id(one)), chosen=one is best) for one in finals.ranked]
    trained.sort(key=lambda row: (not row.chosen, row.final is None))
    rest = [_row(one, None, None) for one in others]
    return (*trained, *sorted(rest, key=lambda row: (not row.fits, -(row.parameters or 0))))


def _row(candidate: Candidate, trainee: Trainee | None, done: Finished | None, *, chosen: bool = False) -> Row:
    checked = candidate.checked if done is None else done.checked
    costs = None if checked is None else checked.costs
    why_not = candidate.why_not if done is None else tuple(str(one) for one in done.checked.violations)
    dropped = trainee.dropped if trainee is not None else ""
    return Row(
        candidate.name,
        candidate.family,
        None if costs is None else costs.parameters,
        None if costs is None else costs.macs,
        None if costs is None else costs.flash_bytes,
        None if checked is None else checked.ram_bytes,
        checked is not None and checked.fits and not dropped,
        (*why_not, dropped) if dropped else why_not,
        () if trainee is None else tuple(trainee.scores),
        None if done is None else done.score,
        chosen,
    )


def report(found: Searched) -> bytes:
    """``report.json``."""
    return (json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n").encode()


def picture(found: Searched) -> bytes:
    """``pareto.png``: every candidate that was trained, by its last score.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    points = [
        ParetoPoint(
            row.name,
            row.family,
            row.last.agreement,
            row.macs,
            {"flash": row.flash_bytes, "RAM": row.ram_bytes},
            row.chosen,
        )
        for row in found.candidates
        if row.last and row.macs is not None and row.flash_bytes is not None and row.ram_bytes is not None
    ]
    place = f"{found.target} on {found.board}" if found.board else found.target
    return pareto_picture(points, {"flash": found.flash, "RAM": found.ram}, f"Students for {place}")
