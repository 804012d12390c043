"""The best student that fits a chip or runtime, found without data: ``compress --target``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dfmeta import synthesis
from dfmeta.bundle import write_folder
from dfmeta.compress import distill as distillation
from dfmeta.compress.recipe import Inputs
from dfmeta.errors import DataError, DfmetaError, MissingExtra
from dfmeta.graph import Graph
from dfmeta.pipeline import _step_of_recipe
from dfmeta.pipeline._candidates import Gathered, Workshop, gathered
from dfmeta.pipeline._finals import Finals, Judge
from dfmeta.pipeline._halving import Material, School, Score
from dfmeta.pipeline._out_of_reach import nothing_fits
from dfmeta.pipeline._search_report import Measured, Row, Searched, picture, report, rows
from dfmeta.pipeline._synthetic_inputs import SyntheticInputs
from dfmeta.pipeline._target_form import Made, TargetForm
from dfmeta.pipeline.closed_form import Progress, Source, open_source, stages
from dfmeta.pipeline.consume import chosen_method, training_config
from dfmeta.pipeline.converting import To, ranges_of
from dfmeta.pipeline.inputs import make_task
from dfmeta.pipeline.targeting import profile_for

__all__ = ["Config", "Measured", "Row", "Score", "Searched", "search_target"]

STUDENT, PLAIN = "student.onnx", "student-float.onnx"
RANGES, REPORT, PICTURE = "ranges.json", "report.json", "pareto.png"
# The least and the greatest of each value by its name: what any tool that quantizes can be told, whatever its scales
# are like (powers of two, signed, one for each weight or each channel).
RANGES_FORMAT: To = "ort-calibration"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the search.

    Attributes:
        candidates: most that are trained at all.
        steps: of training in the last round, which two candidates reach; earlier rounds are shorter.
    """

    candidates: int = 8
    steps: int = 1000


def search_target(
    bundle: str | Path,
    out: str | Path,
    target: str,
    *,
    board: str = "",
    ram: int | None = None,
    flash: int | None = None,
    fpu: bool | None = None,
    config: Config | None = None,
    wanted: Inputs | None = None,
    inputs: str | None = None,
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Searched:
    """Find the student of a bundle's model that is best among those that fit a target, and write a folder, or nothing.

    What can be made of the teacher is held against the target before any training, in the form that the target reads.
    What fits is trained on synthetic inputs by successive halving (:mod:`~._halving`). The last ones are written for
    the target, checked again, and compared on synthetic inputs that none was trained on. The folder holds
    ``student.onnx`` for the target, ``student-float.onnx``, its ranges for other tools in ``ranges.json``,
    ``report.json`` with everything that is returned, and ``pareto.png``.

    Args:
        bundle: its folder; of the publisher's data nothing but its records is looked at.
        out: folder to make; must not exist.
        target: name of a profile of :mod:`dfmeta.export.targets`.
        board: one of the target's.
        ram: bytes for what changes while the student runs; None takes the board's, or no limit.
        flash: bytes for constants, and for code where the target's profile predicts it; likewise.
        fpu: whether the core has a floating-point unit, for that code; None takes the board's word, or yes.
        config: settings of the search.
        wanted: how synthetic inputs are made.
        inputs: synthetic inputs that :func:`dfmeta.pipeline.reconstruct` kept, in place of new ones.
        data: measure teacher and student on it (what ``--data`` takes); changes nothing in the student.
        limit: on that many units of it, drawn with ``seed``.
        seed: of synthetic inputs, of training, and of ``limit``.
        device: where synthesis and training run.
        progress: called with stage, steps done, steps in all, and loss.

    Raises:
        OutputExists: ``out`` is taken.
        UnknownName: no such target, board or method; the text offers a near match.
        StepError: no candidate fits; the text says what comes nearest, and which budget to raise.
        DataError, BundleError, GraphError, ExportError: see :mod:`dfmeta.errors`.
    """
    started = time.monotonic()
    form = _form(target, board, ram, flash, fpu)
    config, wanted = _checked(config or Config()), wanted or Inputs()
    source = open_source(bundle, out)
    method = chosen_method(source.opened.bundle.manifest, wanted.method or None, None)
    synthesis.configured(method, wanted.settings)
    measure = _Measure(source, data, limit, seed, progress)
    # A data set that cannot be read is told of now, and not after the work.
    measure.teacher()
    workshop = Workshop.of(source, form, make_task(source.opened.bundle, source.graph, seed, device), seed)
    found = gathered(workshop, config.candidates, stages(progress))
    if not found.starting:
        raise nothing_fits(form, found.all, found.left_out)
    made = SyntheticInputs(source, wanted, inputs, seed, device, progress)
    material = Material.of(made(), source.graph, seed)
    training = training_config(method) if inputs is None else distillation.Config()
    school = School(workshop, material, training, seed, device, progress)
    recipe = {**form.asked, **asdict(config), "inputs": made.recipe, "seed": seed}
    finals = Judge(source, form, school, recipe).finals(found.starting, config.steps)
    ranges, notes = _ranges(source, finals.best.made)
    result = replace(
        _told(Path(out), form, found, finals, school),
        measured=measure.students(finals.best.made),
        inputs_from=made.told,
        source=source.opened.bundle.identity,
        ranges=RANGES_FORMAT if ranges is not None else "",
        recipe=recipe,
        notes=(*finals.best.made.notes, *notes),
        seconds=round(time.monotonic() - started, 3),
    )
    return _written(result, finals.best.made, ranges)


def _told(path: Path, form: TargetForm, found: Gathered, finals: Finals, school: School) -> Searched:
    """What the search itself knows of its result."""
    best = finals.best
    return Searched(
        path=path,
        model=path / STUDENT,
        target=form.target.name,
        board=form.board,
        ram=best.checked.ram,
        flash=best.checked.flash,
        chosen=best.trainee.candidate.name,
        agreement=best.score.agreement,
        checked=best.checked,
        candidates=rows(finals, found.others),
        left_out=found.left_out,
        inputs=len(school.material.training),
        held_out=len(school.material.held),
        seed=school.seed,
    )


def _form(target: str, board: str, ram: int | None, flash: int | None, fpu: bool | None) -> TargetForm:
    profile = profile_for(target, board, fpu)
    for name, given in (("ram", ram), ("flash", flash)):
        if given is not None and given < 1:
            raise DataError(f"--{name}", f"{given} bytes", "1 or more")
    return TargetForm(profile, board, ram, flash, fpu)


def _checked(config: Config) -> Config:
    for name in ("candidates", "steps"):
        if getattr(config, name) < 1:
            raise DataError(f"--{name}", str(getattr(config, name)), "1 or more")
    return config


class _Measure:
    """Accuracy on the data that was given; nothing without data."""

    def __init__(
        self, source: Source, data: str | None, limit: int | None, seed: int, progress: Progress | None
    ) -> None:
        self._source, self._data, self._limit, self._seed, self._progress = source, data, limit, seed, progress
        self._found: list[Measured] = []

    def teacher(self) -> None:
        """Of the bundle's own model."""
        self._take("teacher", self._source.graph)

    def students(self, made: Made) -> tuple[Measured, ...]:
        """Of the student in floating point, and as it is written, behind the teacher's."""
        self._take("float student", made.plain)
        self._take("student", made.graph)
        return tuple(self._found)

    def _take(self, name: str, graph: Graph) -> None:
        if self._data is not None:
            given = self._source, self._data, self._limit, self._seed, self._progress
            self._found.append(Measured.of(name, _step_of_recipe.measured(graph, *given)))


def _ranges(source: Source, made: Made) -> tuple[bytes | None, tuple[str, ...]]:
    """The float student's ranges for who quantizes it, and what is not among them; or nothing, and why."""
    own = Source(source.path, replace(source.opened, graph=made.plain), made.records)
    try:
        raw, left_out = ranges_of(own, RANGES_FORMAT)
    except DfmetaError as error:
        return None, (f"{RANGES} was left out: {error}",)
    return raw, tuple(f"{RANGES} has no {one.name!r}: {one.reason}" for one in left_out)


def _written(result: Searched, made: Made, ranges: bytes | None) -> Searched:
    """The folder, whole or not at all."""
    members = {STUDENT: made.graph.raw, PLAIN: made.plain.raw}
    if ranges is not None:
        members[RANGES] = ranges
    try:
        members[PICTURE] = picture(result)
    except MissingExtra as error:
        result = replace(result, notes=(*result.notes, f"{PICTURE} was left out: {error}"))
    write_folder(result.path, {**members, REPORT: report(result)})
    return result
